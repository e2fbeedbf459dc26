"""What is fuzzed, and what counts as a failure: anything but a normal return or an error that the parser documents.

A target takes bytes and nothing else, so that an input can be kept, shrunk and replayed. Choices (which API, which
schema) are in its first bytes. Time and memory are limited for each input: by the CPU time that the process used, and by
what Python allocated at the peak.
"""

import asyncio
import signal
import time
import tracemalloc
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

CPU_S_MAX = 5.0
MIB = 1 << 20


class TooSlow(BaseException):
    """Not an Exception: nothing that is fuzzed may swallow it."""


class TooLarge(AssertionError):
    """Memory that has no relation to the input."""


@dataclass(frozen=True)
class Target:
    """`check` raises for a failure. `seeds` are valid inputs. `memory_factor` bytes may be allocated for each byte of the
    input, and `memory_bytes` besides. `dictionary`: tokens, for text formats."""

    name: str
    seeds: Callable[[], Sequence[bytes]]
    check: Callable[[bytes], None]
    dictionary: Sequence[bytes] = ()
    memory_bytes: int = 16 * MIB
    memory_factor: int = 200
    cpu_s: float = CPU_S_MAX
    examples: int = 60  # in the test suite
    _made: list[Sequence[bytes]] = field(default_factory=list, compare=False)

    @property
    def inputs(self) -> Sequence[bytes]:
        """The seeds; made once."""
        if not self._made:
            self._made.append(list(self.seeds()))
        return self._made[0]

    def run(self, data: bytes, *, trace: bool = False) -> None:
        """Check one input within its limits; with `trace`, its memory too (three times slower)."""
        with cpu_limit(self.cpu_s):
            if not trace:
                self.check(data)
                return
            tracemalloc.start()
            try:
                self.check(data)
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
        allowed = self.memory_bytes + self.memory_factor * len(data)
        if peak > allowed:
            raise TooLarge(f"{len(data)} bytes of input took {peak} bytes of memory, allowed are {allowed}")


@contextmanager
def cpu_limit(seconds: float) -> Iterator[None]:
    """TooSlow once this process has computed for so long; waiting, and other processes, do not count."""

    def expired(_signal: int, _frame: FrameType | None) -> None:
        raise TooSlow(f"more than {seconds:g} s of computing")

    before = signal.signal(signal.SIGVTALRM, expired)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    started = time.process_time()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
    if time.process_time() - started > 2 * seconds:  # one call into C, which no signal interrupts
        raise TooSlow(f"more than {2 * seconds:g} s of computing")


_loop: asyncio.AbstractEventLoop | None = None


def run_async(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """On one loop for all inputs: a loop of its own would cost each of them a millisecond.

    An error that nobody handles (a callback's, a task's) is one of the input."""
    global _loop
    if _loop is None:
        _loop = asyncio.new_event_loop()
    unhandled: list[BaseException | str] = []
    _loop.set_exception_handler(lambda _, context: unhandled.append(context.get("exception") or context["message"]))
    result = _loop.run_until_complete(coroutine)
    if unhandled:
        raise AssertionError(f"left unhandled: {unhandled[0]!r}")
    return result
