import pytest

from streamlake.cluster.watch import CLOCK_RATES, GAP_S, Sign, Watch

LEASE_S = 3.0
STILL_S = LEASE_S * (1 + CLOCK_RATES)


class Watcher:
    """Looks at node 1 each quarter of a second, each look taking `slow_s`."""

    def __init__(self, slow_s: float = 0.01) -> None:
        self.now = 100.0
        self.watch = Watch(LEASE_S)
        self.slow_s = slow_s

    def look(self, **signs: tuple[int, int]) -> None:
        asked_at = self.now
        self.now += self.slow_s
        self.watch.look({int(n.removeprefix("n")): Sign(*sign) for n, sign in signs.items()}, asked_at, self.now)

    def look_for(self, seconds: float, **signs: tuple[int, int]) -> None:
        until = self.now + seconds
        while self.now < until:
            self.look(**signs)
            self.now += 0.25


def test_a_node_is_dead_when_its_beat_stood_still_for_a_lease() -> None:
    watcher = Watcher()
    watcher.look_for(STILL_S - 0.3, n1=(1, 7))
    assert not watcher.watch.is_dead(1)
    watcher.look_for(1, n1=(1, 7))
    assert watcher.watch.is_dead(1)
    watcher.look(n1=(1, 8))
    assert not watcher.watch.is_dead(1), "it beat after all"


def test_time_counts_from_the_first_answer_to_the_last_request() -> None:
    """The beat may have been written just before the answer, and the node may have beaten just after the request."""
    watch = Watch(LEASE_S)
    watch.look({1: Sign(1, 1)}, 10.4, 10.9)
    for at in (11.0, 11.7, 12.4, 13.1, 13.8):
        watch.look({1: Sign(1, 1)}, at, at + 0.2)
    watch.look({1: Sign(1, 1)}, 10.9 + STILL_S - 0.001, 10.9 + STILL_S + 0.6)
    assert not watch.is_dead(1)
    watch.look({1: Sign(1, 1)}, 10.9 + STILL_S + 0.001, 10.9 + STILL_S + 0.2)
    assert watch.is_dead(1)


@pytest.mark.parametrize("gap_s", [GAP_S + 0.01, 60.0])
def test_after_an_outage_everybody_is_watched_anew(gap_s: float) -> None:
    """Nobody could beat during an outage of the store; nobody was seen to while the watcher slept."""
    watcher = Watcher()
    watcher.look_for(2.5, n1=(1, 7), n2=(4, 1))
    watcher.now += gap_s
    watcher.look(n1=(1, 7), n2=(4, 1))
    assert not watcher.watch.is_dead(1) and not watcher.watch.is_dead(2)
    watcher.now += 0.25
    watcher.look_for(STILL_S + 0.5, n1=(1, 7), n2=(4, 2))
    assert watcher.watch.is_dead(1)


def test_reads_that_are_slow_judge_nobody() -> None:
    watcher = Watcher(slow_s=GAP_S)
    watcher.look_for(60, n1=(1, 7))
    assert not watcher.watch.is_dead(1)


def test_a_beat_that_was_under_way_is_no_life() -> None:
    watcher = Watcher()
    watcher.look(n1=(1, 7))
    assert not watcher.watch.is_alive(1)
    watcher.look(n1=(1, 8))
    assert not watcher.watch.is_alive(1)
    watcher.look(n1=(1, 9))
    assert watcher.watch.is_alive(1)
    watcher.look_for(STILL_S + 0.5, n1=(1, 9))
    assert watcher.watch.is_dead(1) and not watcher.watch.is_alive(1)


def test_a_new_epoch_is_a_sign_of_life() -> None:
    watcher = Watcher()
    watcher.look_for(2.5, n1=(1, 7))
    watcher.look_for(2.5, n1=(2, 0))
    assert not watcher.watch.is_dead(1)


def test_of_unknown_nodes_nothing_is_said() -> None:
    watcher = Watcher()
    watcher.look_for(5, n1=(1, 7))
    assert not watcher.watch.is_dead(2) and not watcher.watch.is_alive(2)
    watcher.look()
    assert not watcher.watch.is_dead(1)
