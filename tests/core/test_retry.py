"""Pauses between attempts: bounded, growing, jittered, and the same for the same seed."""

from streamlake.core.ids import Ids
from streamlake.core.retry import Backoff


def delays(seed: int, count: int) -> list[float]:
    backoff = Backoff(Ids(seed), first_s=1, max_s=5)
    return [backoff.next_delay_s() for _ in range(count)]


def test_the_bound_doubles_up_to_a_limit() -> None:
    found = [delays(seed, 2000) for seed in range(50)]
    for at, bound_s in ((0, 1), (1, 2), (2, 4), (3, 5), (1999, 5)):
        assert 0.8 * bound_s < max(each[at] for each in found) <= bound_s


def test_chance_is_handed_in() -> None:
    assert delays(7, 5) == delays(7, 5) != delays(8, 5)


def test_after_a_success_it_begins_with_the_first_bound() -> None:
    backoff = Backoff(Ids(1), first_s=1, max_s=1000)
    for _ in range(10):
        backoff.next_delay_s()
    assert backoff.failures == 10
    backoff.reset()
    assert backoff.next_delay_s() <= 1 and backoff.failures == 1
