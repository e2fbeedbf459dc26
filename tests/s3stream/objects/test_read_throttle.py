from math import inf
from typing import Any

from streamlake.s3stream.objects.read_throttle import (
    FASTER,
    LATE_S,
    MIB,
    QUIET_S,
    RATE_INITIAL,
    RATE_MIN,
    ROUND_S,
    SAMPLE_S,
    SLOWER,
    STEP_BYTES,
    WAIT_MAX_S,
    ReadThrottle,
)


class Handle:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """Time that the test moves; a timer is `late_s` late."""

    def __init__(self) -> None:
        self.now, self.late_s = 100.0, 0.0
        self.timers: list[tuple[float, Any, Handle]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, call: Any) -> Handle:
        self.timers.append((when, call, Handle()))
        return self.timers[-1][2]

    def pass_s(self, seconds: float) -> None:
        end = self.now + seconds
        while self.timers and self.timers[0][0] + self.late_s <= end:
            when, call, handle = self.timers.pop(0)
            self.now = when + self.late_s
            if not handle.cancelled:
                call()
        self.now = end


class Broker:
    def __init__(self, *, produces: bool = True) -> None:
        self.loop, self.produces = Loop(), produces
        self.throttle = ReadThrottle(self._appended_at, self.loop)  # type: ignore[arg-type]

    def _appended_at(self) -> float:
        return self.loop.now if self.produces else -inf

    def read(self, seconds: float) -> float:
        """One reader that reads on and on: bytes a second."""
        end, size = self.loop.now + seconds, 0
        while self.loop.now < end:
            wait_s = self.throttle.wait_s()
            self.throttle.consumed(STEP_BYTES)
            size += STEP_BYTES
            self.loop.pass_s(max(wait_s, 0.0001))
        return size / seconds


def test_without_producers_nobody_waits() -> None:
    broker = Broker(produces=False)
    assert broker.read(1.0) > 50 * RATE_INITIAL


def test_what_was_read_without_a_limit_is_not_to_be_waited_for() -> None:
    broker = Broker(produces=False)
    broker.loop.late_s = 2 * LATE_S  # the rate shrinks, though nobody minds
    broker.read(2.0)
    broker.produces = True
    broker.loop.pass_s(2 * ROUND_S)
    assert broker.throttle.limited and broker.throttle.wait_s() < 0.1


def test_readers_keep_to_the_rate_and_it_grows_while_the_loop_is_punctual() -> None:
    broker = Broker()
    first = broker.read(0.9 * ROUND_S)
    assert 0.7 * RATE_INITIAL < first < 1.2 * RATE_INITIAL
    broker.read(1.0)
    assert broker.throttle.rate > RATE_INITIAL * FASTER**9
    rate = broker.throttle.rate
    assert 0.8 * rate < broker.read(0.9 * ROUND_S) < 1.3 * rate


def test_one_late_turn_makes_it_slower() -> None:
    broker = Broker()
    broker.read(ROUND_S * 2.5)
    rate = broker.throttle.rate
    broker.loop.late_s = LATE_S * 1.1
    broker.read(SAMPLE_S * 2)
    broker.loop.late_s = 0.0
    broker.read(ROUND_S)
    assert broker.throttle.rate in (rate * SLOWER, rate * SLOWER * FASTER)


def test_readers_always_get_on() -> None:
    broker = Broker()
    broker.loop.late_s = 2 * LATE_S
    broker.read(5.0)
    assert broker.throttle.rate == RATE_MIN
    assert 0.9 * RATE_MIN < broker.read(2.0) < 1.1 * RATE_MIN


def test_a_crowd_of_readers_does_not_wait_for_ever() -> None:
    broker = Broker()
    broker.read(0.2)
    waits = [broker.throttle.wait_s() for _ in range(10_000)]
    assert waits == sorted(waits) and waits[-1] == WAIT_MAX_S
    assert sum(wait < WAIT_MAX_S for wait in waits) > 100  # one after the other, not all at once


def test_what_was_less_or_more_than_thought_counts_as_it_was() -> None:
    broker = Broker()
    for size in (0, 8 * MIB):
        broker.throttle.wait_s()
        broker.throttle.consumed(size)
        assert abs(broker.throttle.wait_s() - size / broker.throttle.rate) < 0.001
        broker.throttle.consumed(0)
        broker.loop.pass_s(1.0)


def test_an_idle_broker_has_no_timer() -> None:
    broker = Broker()
    broker.read(1.0)
    broker.loop.pass_s(2 * QUIET_S)
    assert not broker.loop.timers and not broker.throttle.limited
    assert broker.throttle.wait_s() == 0.0 and broker.throttle.rate == RATE_INITIAL
    broker.throttle.close()
    assert all(handle.cancelled for _, _, handle in broker.loop.timers)
