"""The Executor port in virtual time: functions run inline, but later, and answer later still.

The pauses before and after a function are where a process may die: it then happened or not, and the caller never
heard. One thread runs its calls in order; several run as many side by side (each function is whole: no two of them
interleave). A function that takes its time, because a disk or a catalog is slow, says so by `take_time`.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from simulation.world.chance import Latency
from simulation.world.loop import SimLoop, current_process
from simulation.world.process import Process, ProcessKilled

T = TypeVar("T")

CALM = Latency(0.0001)


def take_time(seconds: float) -> None:
    """Inside a function that an executor runs: its thread is busy for so long. The world's own looks take no time."""
    process = current_process()
    if process is not None:
        process.loop.busy_s += seconds


@dataclass(slots=True, eq=False)
class Call:
    fn: Callable[..., Any]
    args: tuple[Any, ...]
    answer: "asyncio.Future[Any]"
    begun: bool = False


class SimExecutor:
    """Implements Executor for one process; its functions run in the context of that process."""

    def __init__(self, name: str, process: Process, latency: Latency = CALM, threads: int = 1) -> None:
        self.calls = 0
        self._name = name
        self._process = process
        self._loop: SimLoop = process.loop
        self._latency = latency
        self._random = self._loop.derived(f"executor {process.name} {name}")
        self._idle = threads
        self._waiting: deque[Call] = deque()
        self._started: list[Call] = []
        self._closed = False

    async def run(self, fn: Callable[..., T], *args: Any) -> T:
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        call = Call(fn, args, self._loop.create_future())
        self._waiting.append(call)
        self._next()
        return await call.answer  # type: ignore[no-any-return]

    def close(self) -> None:
        """As threads do it: what was asked for is done first; nobody has to be there to hear."""
        self._closed = True
        waiting, self._waiting = self._waiting, deque()
        for call in [*self._started, *waiting]:
            self._perform(call)

    def _next(self) -> None:
        if self._idle and self._waiting:
            self._idle -= 1
            call = self._waiting.popleft()
            self._started.append(call)
            self._process.call_later(self._latency.draw(self._random), self._perform, call)

    def _perform(self, call: Call) -> None:
        if call.begun:
            return
        call.begun = True
        if call in self._started:
            self._started.remove(call)
        if call.answer.cancelled():  # nobody wants it any more, and it had not begun
            self._thread_is_free()
            return
        self.calls += 1
        self._loop.busy_s = 0.0
        value, error = None, None
        try:
            value = call.fn(*call.args)
        except ProcessKilled:
            return
        except BaseException as raised:
            error = raised
        busy_s = self._loop.busy_s
        self._process.call_later(busy_s, self._thread_is_free)
        self._process.call_later(busy_s + self._latency.draw(self._random), self._answer, call.answer, value, error)

    def _thread_is_free(self) -> None:
        self._idle += 1
        self._next()

    def _answer(self, answer: "asyncio.Future[Any]", value: Any, error: BaseException | None) -> None:
        if answer.done():
            return  # the caller has gone
        if error is None:
            answer.set_result(value)
        else:
            answer.set_exception(error)
