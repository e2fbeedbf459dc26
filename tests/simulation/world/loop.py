"""An event loop whose time, order and outside world come from a seed: one seed is one life.

Time is virtual: when nothing is ready it jumps to the next timer, and each turn of the loop takes TURN_S, so that a busy
wait does end. What is ready at once runs in an order drawn from the seed: `order="processes"` interleaves the simulated
processes (process.py) and keeps asyncio's promise, first come, first served, inside each; `order="any"` shuffles all of
it, and so finds code that leans on that promise (some code may).

There is no I/O but `net` (net.py). Real sockets, threads, subprocesses and sleeps raise RealWorld while the loop runs.
The loop ends a run that cannot go on: Deadlock, TooManySteps, TooLong; each says what was waiting for what.

`trace` is a hash of every callback that ran, of its time, and of each event that the environment told; two runs of a
seed have the same. With `Trace(keep=True)` the lines are kept too: compare those of two runs to find where they part.

The garbage collector rests during a run (finalizers would run at times that no seed decides). Tasks are kept until
`close`, so a killed process's `finally` blocks never run while anybody could see them.
"""

import asyncio
import contextlib
import gc
import socket
import subprocess
import sys
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextvars import Context, ContextVar, copy_context
from heapq import heapify, heappop, heappush
from random import Random
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from simulation.world.net import SimNet
    from simulation.world.process import Process

Order = Literal["any", "processes"]

TURN_S = 10e-6
STEPS_MAX = 10_000_000
SECONDS_MAX = 6 * 3600.0
WAITING_LINES_MAX = 60
FORBIDDEN = (
    (socket.socket, "__init__"),
    (subprocess.Popen, "__init__"),
    (threading.Thread, "start"),
    (time, "sleep"),
)

PROCESS: "ContextVar[Process]" = ContextVar("process")


class RealWorld(RuntimeError):
    """The simulated code reached for the real machine: a run would no longer be a function of its seed."""


class Stuck(Exception):
    """A run that cannot go on; `str` says what was waiting."""


class Deadlock(Stuck): ...


class TooManySteps(Stuck): ...


class TooLong(Stuck): ...


def current_process() -> "Process | None":
    """The simulated process that runs; None: the world."""
    return PROCESS.get(None)


class Trace:
    """What happened, as a hash; as lines too if `keep`."""

    def __init__(self, keep: bool = False) -> None:
        self.lines: list[str] | None = [] if keep else None
        self.state = 0

    def event(self, now: float, text: str) -> None:
        """Of the environment. `text` must not have ids, addresses or the order of a set in it."""
        data = text.encode()
        self.state = hash((self.state, zlib.crc32(data), len(data)))  # of integers: the same in every Python process
        if self.lines is not None:
            process = current_process()
            self.lines.append(f"{now:.6f} {process.name if process else 'world'}: {text}")

    def ran(self, now: float, handle: "SimHandle") -> None:
        assert self.lines is not None
        name = handle.process.name if handle.process else "world"
        self.lines.append(f"{now:.6f} {name}: run #{handle.sequence} {described(handle._callback)}")

    @property
    def digest(self) -> str:
        return f"{self.state & (1 << 64) - 1:016x}"


class SimHandle(asyncio.TimerHandle):
    __slots__ = ("process", "sequence")

    def __init__(self, loop: "SimLoop", when: float, callback: Any, args: Any, context: Context, sequence: int) -> None:
        self._callback = callback
        self._args = args
        self._context = context
        self._cancelled = False
        self._loop = loop
        self._when = when
        self._source_traceback = None
        self._repr = None
        self._scheduled = False
        self.process = context.get(PROCESS)
        self.sequence = sequence

    def cancel(self) -> None:
        if not self._cancelled:
            self._cancelled = True
            self._callback = self._args = None
            if self._when:
                self._loop._timer_cancelled()  # type: ignore[attr-defined]


class TaskList:
    """Holds tasks that are not done, and now and then lets go of those that are."""

    def __init__(self) -> None:
        self.tasks: list[asyncio.Task[Any]] = []
        self._prune_at = 64

    def add(self, task: asyncio.Task[Any]) -> None:
        self.tasks.append(task)
        if len(self.tasks) >= self._prune_at:
            self.tasks = self.pending()
            self._prune_at = 2 * len(self.tasks) + 64

    def pending(self) -> list[asyncio.Task[Any]]:
        return [task for task in self.tasks if not task.done()]

    def unseen_errors(self) -> Iterator[tuple[str, BaseException]]:
        """Of tasks that failed, and whose error nobody looked at; each once."""
        for task in self.tasks:
            if task.done() and task._log_traceback and (error := task.exception()) is not None:  # type: ignore[attr-defined]
                yield task.get_name(), error

    def forget(self) -> None:
        """Drop them without a word."""
        while self.tasks:
            self.tasks.pop()._log_destroy_pending = False  # type: ignore[attr-defined]


class SimLoop(asyncio.BaseEventLoop):
    def __init__(
        self,
        seed: int | str,
        *,
        order: Order = "processes",
        trace: Trace | None = None,
        steps_max: int = STEPS_MAX,
        seconds_max: float = SECONDS_MAX,
    ) -> None:
        super().__init__()
        self.set_debug(False)
        self.seed = seed
        self.trace = trace or Trace()
        self.steps = 0
        self.net: SimNet | None = None
        self.processes: list[Process] = []
        self.failures: list[str] = []  # what asyncio would only log: callbacks that raised, errors nobody looked at
        self.busy_s = 0.0  # see executor.take_time
        self._random = self.derived("order").random
        self._order = order
        self._steps_max = steps_max
        self._seconds_max = seconds_max
        self._now = 0.0
        self._ready: list[SimHandle] = []  # type: ignore[assignment]
        self._timers: list[tuple[float, int, SimHandle]] = []
        self._timers_cancelled = 0
        self._sequence = 0
        self._world_tasks = TaskList()
        self._generators: dict[int, Process | None] = {}  # by id: asynchronous generators that began, and whose
        self._graveyard: list[Any] = []
        self._tasks_made = 0
        self._buried = False

    def derived(self, name: str) -> Random:
        """A source of chance of its own, so that one part's draws do not shift another's."""
        return Random(f"{self.seed}/{name}")  # a text is hashed by SHA-512, whatever PYTHONHASHSEED says

    def time(self) -> float:
        return self._now

    def event(self, text: str) -> None:
        self.trace.event(self._now, text)

    # -- scheduling ----------------------------------------------------------------------------------------------------

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> SimHandle:  # type: ignore[override]
        self._sequence = sequence = self._sequence + 1
        handle = SimHandle(self, 0.0, callback, args, copy_context() if context is None else context, sequence)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_at(self, when: float, callback: Any, *args: Any, context: Context | None = None) -> SimHandle:  # type: ignore[override]
        self._sequence = sequence = self._sequence + 1
        handle = SimHandle(self, when, callback, args, copy_context() if context is None else context, sequence)
        heappush(self._timers, (when, sequence, handle))
        return handle

    def call_later(self, delay: float, callback: Any, *args: Any, context: Context | None = None) -> SimHandle:  # type: ignore[override]
        return self.call_at(self._now + delay, callback, *args, context=context)

    def in_world(self, delay: float, callback: Callable[..., Any], *args: Any) -> SimHandle:
        """Later, outside of all processes: it happens whoever is dead or paused by then."""
        return self.call_at(self._now + delay, callback, *args, context=Context())

    def create_task(self, coro: Any, *, name: str | None = None, context: Context | None = None) -> asyncio.Task[Any]:
        process = PROCESS.get(None) if context is None else context.get(PROCESS)
        self._tasks_made += 1
        task = asyncio.Task(coro, loop=self, name=name or f"task {self._tasks_made}", context=context)
        (self._world_tasks if process is None else process.tasks).add(task)
        return task

    def _timer_cancelled(self) -> None:
        self._timers_cancelled += 1
        if self._timers_cancelled > 1000 and self._timers_cancelled * 2 > len(self._timers):
            self._timers = [entry for entry in self._timers if not entry[2]._cancelled]
            heapify(self._timers)
            self._timers_cancelled = 0

    # -- running -------------------------------------------------------------------------------------------------------

    def run_forever(self) -> None:
        self._check_closed()
        self._check_running()
        with _alone(), self._hooks():
            self._thread_id = threading.get_ident()
            asyncio._set_running_loop(self)
            try:
                while not self._stopping:
                    self._run_once()
            finally:
                self._stopping = False
                self._thread_id = None
                asyncio._set_running_loop(None)

    def run_until_complete(self, future: Any) -> Any:
        try:
            return super().run_until_complete(future)
        finally:
            self._find_failed_tasks()

    def _find_failed_tasks(self) -> None:
        owners = [("world", self._world_tasks), *((p.name, p.tasks) for p in self.processes if p.alive)]
        for owner, tasks in owners:
            for name, error in tasks.unseen_errors():
                self.failures.append(f"{owner}: task {name} failed: {error!r}{_place(error)}")

    def _run_once(self) -> None:
        batch, self._ready = self._ready, []
        timers = self._timers
        if not batch:
            self._jump()
        now = self._now
        while timers and timers[0][0] <= now:
            handle = heappop(timers)[2]
            if handle._cancelled:
                self._timers_cancelled -= 1
            else:
                handle._when = 0.0
                batch.append(handle)
        if len(batch) > 1:
            batch = self._shuffled(batch)
        self.steps += len(batch)
        if self.steps > self._steps_max:
            raise TooManySteps(f"{self.steps} callbacks ran in {now:.3f} s. {self.waiting()}")
        self._now = now + TURN_S
        self._run_batch(batch)

    def _run_batch(self, batch: list[SimHandle]) -> None:
        trace = self.trace
        kept = trace.lines is not None
        ran = [self._now, trace.state]
        for handle in batch:
            if handle._cancelled:
                continue
            process = handle.process
            if process is not None and process.guarded and not process.admits(handle):
                continue
            ran.append(handle.sequence)
            if kept:
                trace.ran(self._now, handle)
            try:
                handle._context.run(handle._callback, *handle._args)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                self.call_exception_handler({"message": "a callback raised", "exception": error})
        trace.state = hash((trace.state, *ran))

    def _jump(self) -> None:
        timers = self._timers
        while timers and timers[0][2]._cancelled:
            heappop(timers)
            self._timers_cancelled -= 1
        if not timers:
            raise Deadlock(f"nothing will ever happen again, at {self._now:.3f} s. {self.waiting()}")
        self._now = max(self._now, timers[0][0])
        if self._now > self._seconds_max:
            raise TooLong(f"{self._seconds_max:g} s have passed. {self.waiting()}")

    def _shuffled(self, batch: list[SimHandle]) -> list[SimHandle]:
        random = self._random
        if self._order == "any":
            for i in range(len(batch) - 1, 0, -1):
                j = int(random() * (i + 1))
                batch[i], batch[j] = batch[j], batch[i]
            return batch
        queues: dict[Process | None, list[SimHandle]] = {}
        for handle in reversed(batch):
            queues.setdefault(handle.process, []).append(handle)
        if len(queues) == 1:
            return batch[:]
        turns = [queues[handle.process] for handle in batch]
        for i in range(len(turns) - 1, 0, -1):
            j = int(random() * (i + 1))
            turns[i], turns[j] = turns[j], turns[i]
        return [queue.pop() for queue in turns]

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """asyncio would log it. Here it is a finding: `failures`."""
        process = current_process()
        if self._buried or (process is not None and not process.alive):
            return
        error = context.get("exception")
        text = f"{process.name if process else 'world'}: {context['message']}: {error!r}{_place(error)}"
        self.failures.append(text)
        self.event(f"failure {context['message']} {type(error).__name__}")

    # -- what is waiting -----------------------------------------------------------------------------------------------

    def waiting(self) -> str:
        """The tasks that are not done, where each of them stands, and the next timers."""
        lines = []
        owners: list[tuple[str, TaskList]] = [("world", self._world_tasks)]
        owners += [(p.name + ("" if not p.paused else " (paused)"), p.tasks) for p in self.processes if p.alive]
        for name, tasks in owners:
            lines += [f"  {name}: {task.get_name()}: {_standing(task)}" for task in tasks.pending()]
        more = len(lines) - WAITING_LINES_MAX
        lines = lines[:WAITING_LINES_MAX] + ([f"  … and {more} more"] if more > 0 else [])
        timers = sum(not handle._cancelled for _, _, handle in self._timers)
        return f"{timers} timers; waiting tasks:\n" + "\n".join(lines)

    # -- no real world -------------------------------------------------------------------------------------------------

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        raise RealWorld(f"run_in_executor({func}): blocking work goes through the Executor that is handed in")

    async def create_connection(self, protocol_factory: Any, host: Any = None, port: Any = None, **_: Any) -> Any:  # type: ignore[override]
        if self.net is None:
            raise RealWorld("there is no simulated network: make a SimNet(loop)")
        return await self.net.connect(protocol_factory, host, port)

    async def create_server(self, protocol_factory: Any, host: Any = None, port: Any = None, **more: Any) -> Any:  # type: ignore[override]
        if self.net is None:
            raise RealWorld("there is no simulated network: make a SimNet(loop)")
        return self.net.listen(protocol_factory, more.get("sock") or self.net.bind(host, port))

    def _write_to_self(self) -> None:
        pass

    # -- asynchronous generators, and the end ----------------------------------------------------------------------------

    @contextlib.contextmanager
    def _hooks(self) -> Iterator[None]:
        before = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(firstiter=self._generator_began, finalizer=self._generator_dropped)
        try:
            yield
        finally:
            sys.set_asyncgen_hooks(*before)

    def _generator_began(self, generator: Any) -> None:
        self._generators[id(generator)] = current_process()

    def _generator_dropped(self, generator: Any) -> None:
        process = self._generators.pop(id(generator), None)
        if self._buried or (process is not None and not process.alive):
            self._graveyard.append(generator)  # its process was killed: it may not run its finally blocks
        else:
            self.call_soon(
                lambda: self.create_task(generator.aclose()),
                context=Context() if process is None else process.context.copy(),
            )

    def close(self) -> None:
        """Let go of everything, silently: what is still suspended is thrown away, not finished."""
        if self._closed:
            return
        self._closed = self._buried = True
        with warnings.catch_warnings(), _unraisable_ignored():
            warnings.simplefilter("ignore")
            self.call_soon = self.call_at = self.call_later = self._ignore  # type: ignore[method-assign]
            self._ready, self._timers, self._graveyard = [], [], []
            self._world_tasks.forget()
            while self.processes:
                self.processes.pop().forget()
            self.net = None
            gc.collect()

    def _ignore(self, *args: Any, context: Context | None = None) -> SimHandle:
        return SimHandle(self, 0.0, None, (), Context(), 0)


# -- the real machine --------------------------------------------------------------------------------------------------

_frozen = False


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """No garbage collection and no real world until the end of it."""
    global _frozen
    if not _frozen:
        _frozen = True
        gc.collect()
        gc.freeze()  # what was imported by now is never garbage: collecting after a run only looks at the run
    collecting = gc.isenabled()
    gc.disable()
    before = [getattr(owner, name) for owner, name in FORBIDDEN]
    for owner, name in FORBIDDEN:
        setattr(owner, name, _forbidden(f"{owner.__name__}.{name}"))
    try:
        yield
    finally:
        for (owner, name), real in zip(FORBIDDEN, before, strict=True):
            setattr(owner, name, real)
        if collecting:
            gc.enable()


def _forbidden(what: str) -> Callable[..., Any]:
    def reach(*_: Any, **__: Any) -> Any:
        raise RealWorld(f"{what} inside the simulation")

    return reach


@contextlib.contextmanager
def _unraisable_ignored() -> Iterator[None]:
    before = sys.unraisablehook
    sys.unraisablehook = lambda _: None
    try:
        yield
    finally:
        sys.unraisablehook = before


# -- telling -----------------------------------------------------------------------------------------------------------


def described(callback: Any) -> str:
    """A name that is the same in every run."""
    owner = getattr(callback, "__self__", None)
    if isinstance(owner, asyncio.Task):
        return f"{owner.get_name()} at {_standing(owner)}"
    name = getattr(callback, "__qualname__", None) or type(callback).__name__
    return f"{type(owner).__name__}: {name}" if owner is not None else str(name)


def _standing(task: asyncio.Task[Any]) -> str:
    """The innermost place where the task is suspended."""
    awaited: Any = task.get_coro()
    place = getattr(awaited, "__qualname__", "?")
    while awaited is not None:
        frame = next((f for a in ("cr_frame", "gi_frame", "ag_frame") if (f := getattr(awaited, a, None))), None)
        if frame is None:
            break
        file = "/".join(frame.f_code.co_filename.split("/")[-2:])
        place = f"{frame.f_code.co_qualname} ({file}:{frame.f_lineno})"
        awaited = next((w for a in ("cr_await", "gi_yieldfrom", "ag_await") if (w := getattr(awaited, a, None))), None)
    return place


def _place(error: Any) -> str:
    trace: TracebackType | None = getattr(error, "__traceback__", None)
    places = []
    while trace is not None:
        places.append(f"{'/'.join(trace.tb_frame.f_code.co_filename.split('/')[-2:])}:{trace.tb_lineno}")
        trace = trace.tb_next
    return f" at {' > '.join(places[-4:])}" if places else ""
