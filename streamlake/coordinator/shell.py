"""Runs state machines (machine.py): delivers their answers, makes durable what they save, keeps one timer for each.

Whoever has an event calls the machine and then `settle`, without an await before the machine has seen the event, so
requests of one connection act in their order. All that writes the stored state of a machine holds its lock: states are
written in order, and a deletion cannot overtake a save. Everything else needs no lock: it happens between two awaits.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import structlog

from streamlake.coordinator.machine import NEVER_MS, Machine, Save, Saved
from streamlake.core.clock import Clock
from streamlake.core.errors import StreamLakeError, Unavailable
from streamlake.core.tasks import Supervisor

TIMER_MAX_S = 3_600.0  # a deadline that is further away is looked at again after this: timers of a loop have a limit
log = structlog.get_logger(__name__)

M = TypeVar("M", bound=Machine)


@dataclass(slots=True, eq=False)
class Entry(Generic[M]):
    """A machine and what keeps it running."""

    key: str  # the id of its group
    machine: M
    stored: bool = False  # it has a row, or is about to have one
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    timer: asyncio.TimerHandle | None = None
    timer_at_ms: int = NEVER_MS
    dropped: bool = False  # another broker runs it, or nobody


E = TypeVar("E", bound=Entry[Any])


class Shell(Generic[E]):
    """`write(entry, saved, now_ms)` makes a state durable; `settled(entry)` is called after every event."""

    def __init__(
        self, clock: Clock, write: Callable[[E, Saved, int], Awaitable[None]], settled: Callable[[E], None]
    ) -> None:
        self.failed_saves = 0
        self._clock = clock
        self._write = write
        self._settled = settled
        self._tasks = Supervisor()

    def now_ms(self) -> int:
        """The time of the machines: it does not go back, and begins anywhere."""
        return int(self._clock.boottime() * 1000)

    async def stop(self, entries: Iterable[E]) -> None:
        """Requests that still wait are answered."""
        await self._tasks.stop()
        for entry in entries:
            self.drop(entry)

    def drop(self, entry: E) -> None:
        """It is not run here any more: requests that wait are answered with that. A save that is under way ends as it
        ends, and nobody waits for it but those who were promised its outcome."""
        entry.machine.abandon()
        self._deliver(entry)
        self.release(entry)
        entry.dropped = True

    def settle(self, entry: E) -> None:
        """After each event: deliver answers, start saves, set the timer."""
        self._deliver(entry)
        if entry.dropped:
            return
        self.set_timer(entry)
        self._settled(entry)

    def set_timer(self, entry: E) -> None:
        """All that an event without effects needs. Only an earlier deadline needs a new timer: one that comes too early
        finds nothing due and is set again."""
        if entry.machine.wake_ms >= entry.timer_at_ms:
            return
        if entry.timer is not None:
            entry.timer.cancel()
        entry.timer_at_ms = entry.machine.wake_ms
        delay_s = min(max(entry.timer_at_ms - self.now_ms(), 0) / 1000, TIMER_MAX_S)
        entry.timer = asyncio.get_running_loop().call_later(delay_s, self._tick, entry)

    def release(self, entry: E) -> None:
        """No more time passes for it."""
        if entry.timer is not None:
            entry.timer.cancel()
            entry.timer, entry.timer_at_ms = None, NEVER_MS

    def _deliver(self, entry: E) -> None:
        for effect in entry.machine.take_effects():
            if isinstance(effect, Save):
                entry.stored = True
                self._tasks.start(f"save group {entry.key}", self._save(entry, effect, self._clock.now_ms()))
            elif not effect.token.done():  # else its connection is lost
                effect.token.set_result(effect.answer)

    async def _save(self, entry: E, save: Save, now_ms: int) -> None:
        error: StreamLakeError | None = Unavailable("this coordinator stops")
        facts = {"group": entry.key, "kind": save.saved.kind, "epoch": save.saved.epoch}
        try:
            async with entry.lock:
                await self._write(entry, save.saved, now_ms)
            error = None
            log.info("group saved", **facts, reason=save.reason)
        except StreamLakeError as failed:
            self.failed_saves += 1
            error = failed
            log.warning("group not saved", **facts, error=str(failed))
        finally:  # also if this task is cancelled: members wait for the outcome
            entry.machine.saved(save, error, self.now_ms())
            self.settle(entry)

    def _tick(self, entry: E) -> None:
        entry.machine.tick(self.now_ms())
        entry.timer, entry.timer_at_ms = None, NEVER_MS
        self.settle(entry)
