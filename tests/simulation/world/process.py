"""Simulated processes: what runs in one carries it in its context, so it can be killed, paused and told apart.

A context is inherited by every task, callback and timer that is made in it; the loop asks a process before it runs
one of its handles. So `kill` is kill -9: nothing of it runs again, no except, no finally; `pause` is SIGSTOP: what
becomes due is kept and runs late, all of it, after `resume` (a zombie that wakes).

Completions cross the border of a process only through the environment (network, store, metadata), which schedules
them with the receiver's context: `call_later`, `call_soon`. The environment clears up after a process in `at_end`.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any

from simulation.world.loop import PROCESS, SimHandle, SimLoop, TaskList

from streamlake.core.ids import Ids

KILLED = -9
EPOCH_MS = 1_700_000_000_000


class ProcessKilled(BaseException):
    """Raised in the middle of a synchronous step of a process that was killed right there."""


class SimClock:
    """Implements Clock. `step` moves the wall clock of this process; boottime follows the loop, `rate` times as fast."""

    def __init__(self, loop: SimLoop, skew_ms: int = 0, booted_s: float = 0.0, rate: float = 1.0) -> None:
        self.skew_ms = skew_ms
        self._loop = loop
        self._booted_s = booted_s
        self._rate = rate

    def now_ms(self) -> int:
        return EPOCH_MS + self.skew_ms + int(self._loop.time() * 1000)

    def boottime(self) -> float:
        return self._loop.time() * self._rate + self._booted_s

    def step(self, ms: int) -> None:
        self.skew_ms += ms


class Process:
    def __init__(
        self, loop: SimLoop, name: str, host: str = "world", skew_ms: int = 0, clock_rate: float = 1.0
    ) -> None:
        """`name`: unique in a run; the seeds of its ids come from it."""
        self.loop = loop
        self.name = name
        self.host = host
        self.alive = True
        self.paused = False
        self.guarded = False  # the loop asks `admits` before each callback
        self.returncode: int | None = None
        self.tasks = TaskList()
        self.clock = SimClock(loop, skew_ms, loop.derived(f"boottime {host}").uniform(10, 1e6), clock_rate)
        self.ids = Ids(loop.derived(f"ids {name}").getrandbits(64))
        self.random = loop.derived(f"process {name}")
        self.context = Context()
        self.context.run(PROCESS.set, self)
        self.at_end: list[Callable[[], None]] = []
        self._held: list[SimHandle] = []
        self._fuse = 0
        self._waiters: list[asyncio.Future[int]] = []
        loop.processes.append(self)

    def __repr__(self) -> str:
        return f"<process {self.name}>"

    # -- what it does --------------------------------------------------------------------------------------------------

    def start(self, coro: Coroutine[Any, Any, Any], name: str | None = None) -> asyncio.Task[Any]:
        """Run `coro` in this process. Whoever is outside must not await the task: it may be killed. Use `wait`."""
        return self.loop.create_task(coro, name=name, context=self.context.copy())

    def call_soon(self, fn: Callable[..., Any], *args: Any) -> SimHandle:
        return self.loop.call_soon(fn, *args, context=self.context.copy())

    def call_later(self, delay: float, fn: Callable[..., Any], *args: Any) -> SimHandle:
        return self.loop.call_later(delay, fn, *args, context=self.context.copy())

    async def wait(self) -> int:
        """The exit code, once it has ended."""
        if self.returncode is not None:
            return self.returncode
        waiter: asyncio.Future[int] = self.loop.create_future()
        self._waiters.append(waiter)
        return await waiter

    # -- what happens to it ----------------------------------------------------------------------------------------------

    def kill(self) -> None:
        """kill -9. In its own step, that step runs on to its next await, with an environment that is deaf to it."""
        self._end(KILLED)

    def exit(self, code: int = 0) -> None:
        """It ends by itself: the caller has finished all it wanted to."""
        self._end(code)

    def kill_in(self, callbacks: int) -> None:
        """Kill it instead of its n-th callback from now, so at any await."""
        assert callbacks > 0
        self._fuse = callbacks
        self._guard()

    def pause(self) -> None:
        if self.alive and not self.paused:
            self.loop.event(f"pause {self.name}")
            self.paused = True
            self._guard()

    def resume(self) -> None:
        if self.alive and self.paused:
            self.loop.event(f"resume {self.name}")
            self.paused = False
            held, self._held = self._held, []
            self.loop._ready.extend(held)
            self._guard()

    def admits(self, handle: SimHandle) -> bool:
        """May it run now? Called by the loop while `guarded`."""
        if not self.alive:
            return False
        if self.paused:
            self._held.append(handle)
            return False
        if self._fuse:
            self._fuse -= 1
            if self._fuse == 0:
                self.kill()
                return False
        return True

    def forget(self) -> None:
        """At the end of the run."""
        self.tasks.forget()
        self._held = []
        self.at_end = []

    def _guard(self) -> None:
        self.guarded = self.paused or not self.alive or self._fuse > 0

    def _end(self, code: int) -> None:
        if not self.alive:
            return
        self.loop.event(f"end of {self.name}: {code}")
        self.alive = False
        self.paused = False
        self.returncode = code
        self._guard()
        self._held.clear()
        at_end, self.at_end = self.at_end, []
        for clear_up in at_end:
            Context().run(clear_up)
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(code)
