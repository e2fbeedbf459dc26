"""How fast readers may read from objects while producers are served by the same broker.

A reader that catches up takes all it can get: the processor, its caches, the memory bus. Producers feel that in their
slowest requests first. So while anything is appended, all reads from objects share one rate. It adapts as TCP's does:
it grows slowly as long as the event loop is punctual, and shrinks by a constant factor as soon as it is not, whatever
the cause (AIMD, Chiu and Jain 1989). It never shrinks below RATE_MIN, so readers always make progress. When nothing was
appended for a tenth of a second there is no limit.
"""

import asyncio
from collections.abc import Callable

MIB = 1 << 20
RATE_MIN, RATE_INITIAL, RATE_MAX = 32.0 * MIB, 64.0 * MIB, 4096.0 * MIB  # bytes a second, of all readers
SAMPLE_S = 0.005
SAMPLES = 20  # between two changes of the rate
ROUND_S = SAMPLES * SAMPLE_S
LATE_S = 0.002  # a timer of the loop is due to a millisecond, and late by another one when nothing is wrong
FASTER, SLOWER = 1.1, 0.7
STEP_BYTES = 512 * 1024  # assumed size of a read until `consumed` is called: a block
WAIT_MAX_S = 5.0  # at most, however many wait: clients give a request up after 30 s
QUIET_S = 1.0  # after that long without a read the rate is out of date


class ReadThrottle:
    """`appended_at`: when something was appended last, by the loop's time."""

    def __init__(self, appended_at: Callable[[], float], loop: asyncio.AbstractEventLoop) -> None:
        self.rate = RATE_INITIAL
        self.waited_s = 0.0
        self._appended_at = appended_at
        self._round_began = 0.0
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._samples = 0
        self._late = False
        self._limited = False
        self._asked_at = 0.0
        self._free_at = 0.0

    @property
    def limited(self) -> bool:
        """True while there are producers: a read should take little, so that all readers make progress."""
        return self._limited

    async def acquire(self) -> None:
        """Wait until a read from objects may begin; call `consumed` when it ends."""
        wait_s = self.wait_s()
        if wait_s:
            self.waited_s += wait_s
            try:
                await asyncio.sleep(wait_s)
            except BaseException:
                self.consumed(0)
                raise

    def wait_s(self) -> float:
        """How long a read that comes now must wait: until all reads before it have had their share."""
        now = self._asked_at = self._loop.time()
        if self._timer is None:
            self._begin(now)
        start = max(now, min(self._free_at, now + WAIT_MAX_S)) if self._limited else now
        self._free_at = start + STEP_BYTES / self.rate
        return start - now

    def consumed(self, size_bytes: int) -> None:
        self._free_at += (size_bytes - STEP_BYTES) / self.rate

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _begin(self, now: float) -> None:
        self.rate, self._samples, self._late = RATE_INITIAL, 0, False
        self._limited, self._round_began = self._appended_at() >= now - ROUND_S, now
        self._next_sample(now)

    def _next_sample(self, now: float) -> None:
        self._due = now + SAMPLE_S
        self._timer = self._loop.call_at(self._due, self._sample)

    def _sample(self) -> None:
        now = self._loop.time()
        self._late = self._late or now - self._due > LATE_S
        self._samples += 1
        if self._samples == SAMPLES:
            self._adapt(now)
        if now - self._asked_at < QUIET_S:
            self._next_sample(now)
        else:
            self._timer, self._limited = None, False

    def _adapt(self, now: float) -> None:
        self.rate = min(max(self.rate * (SLOWER if self._late else FASTER), RATE_MIN), RATE_MAX)
        self._limited, self._round_began = self._appended_at() >= self._round_began, now
        self._samples, self._late = 0, False
