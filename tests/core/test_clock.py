import time

from streamlake.core.clock import SystemClock


def test_now_is_unix_milliseconds() -> None:
    before = time.time_ns() // 1_000_000
    assert before <= SystemClock().now_ms() <= time.time_ns() // 1_000_000


def test_boottime_counts_suspended_time_and_never_goes_back() -> None:
    clock = SystemClock()
    first = clock.boottime()
    assert first >= time.clock_gettime(time.CLOCK_MONOTONIC) - 0.1
    assert clock.boottime() >= first
