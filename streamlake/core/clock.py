"""Time is handed in, so that a simulated cluster is a pure function of its seed.

Two clocks: `now_ms` is the wall clock that users see in records and retention; `boottime` never goes back
and counts suspended time, so a lease measured with it cannot look young after the machine slept.
Waiting is `asyncio.sleep` and `asyncio.timeout`: they follow the loop's own (real or virtual) time.
"""

import time
from typing import Protocol


class Clock(Protocol):
    def now_ms(self) -> int:
        """Wall clock, milliseconds since 1970-01-01 UTC."""
        ...

    def boottime(self) -> float:
        """Seconds since some start; monotonic, suspended time included (CLOCK_BOOTTIME)."""
        ...


class SystemClock:
    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def boottime(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)
