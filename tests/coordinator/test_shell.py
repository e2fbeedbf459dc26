"""The shell, with a machine of a kind that it has never seen: it counts, and forgets its count when it is left alone."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.wait import until

from streamlake.coordinator import shell as module
from streamlake.coordinator.machine import NEVER_MS, Answer, Effect, Machine, Save, Saved
from streamlake.coordinator.shell import Entry, Shell
from streamlake.core.clock import SystemClock
from streamlake.core.errors import StreamLakeError, Unavailable


class Counting:
    """Answers with the count once it is durable."""

    def __init__(self) -> None:
        self.count = 0
        self.ticks = 0
        self.wake_ms = NEVER_MS
        self.errors: list[StreamLakeError | None] = []
        self._waiting: dict[Any, None] = {}
        self._effects: list[Effect] = []

    def add(self, token: Any, forget_ms: int) -> None:
        self.count += 1
        self.wake_ms = min(self.wake_ms, forget_ms)
        self._waiting[token] = None
        saved = Saved("counting", self.count, str(self.count).encode())
        self._effects.append(Save(saved, "added", Answer(token, self.count)))

    def take_effects(self) -> list[Effect]:
        effects, self._effects = self._effects, []
        return effects

    def tick(self, now_ms: int) -> None:
        self.ticks += 1
        if now_ms >= self.wake_ms:
            self.count, self.wake_ms = 0, NEVER_MS

    def saved(self, save: Save, error: StreamLakeError | None, now_ms: int) -> None:
        self.errors.append(error)
        assert save.then is not None
        if save.then.token in self._waiting:
            del self._waiting[save.then.token]
            self._effects.append(Answer(save.then.token, error) if error else save.then)

    def abandon(self) -> None:
        self._effects += [Answer(token, "abandoned") for token in self._waiting]
        self._waiting.clear()


class Bench:
    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: StreamLakeError | None = None
        self.writes: list[tuple[str, Saved]] = []
        self.settled = 0
        self.shell = Shell[Entry[Counting]](SystemClock(), self._write, self._settled)
        machine: Machine = Counting()
        self.entry = Entry("k", machine)

    async def _write(self, entry: Entry[Counting], saved: Saved, now_ms: int) -> None:
        await self.gate.wait()
        if self.error:
            raise self.error
        self.writes.append((entry.key, saved))

    def _settled(self, entry: Entry[Counting]) -> None:
        self.settled += 1

    @property
    def machine(self) -> Counting:
        return self.entry.machine

    def add(self, forget_in_ms: int = 10_000_000) -> "asyncio.Future[Any]":
        token: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.machine.add(token, self.shell.now_ms() + forget_in_ms)
        self.shell.settle(self.entry)
        return token


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    await bench.shell.stop([bench.entry])


async def test_an_answer_waits_until_what_it_depends_on_is_durable(bench: Bench) -> None:
    bench.gate.clear()
    first = bench.add()
    await asyncio.sleep(0)
    assert bench.entry.stored and not first.done()
    bench.gate.set()
    assert await first == 1
    assert bench.writes == [("k", Saved("counting", 1, b"1"))]
    assert bench.settled == 2, "after the event and after the save"


async def test_states_are_written_in_order_each_as_it_was(bench: Bench) -> None:
    bench.gate.clear()
    answers = [bench.add() for _ in range(3)]
    for _ in range(5):
        await asyncio.sleep(0)
    bench.gate.set()
    assert await asyncio.gather(*answers) == [1, 2, 3]
    assert [saved.blob for _, saved in bench.writes] == [b"1", b"2", b"3"]


async def test_a_deletion_that_holds_the_lock_comes_before_or_after_a_save(bench: Bench) -> None:
    async with bench.entry.lock:
        answer = bench.add()
        for _ in range(5):
            await asyncio.sleep(0)
        assert bench.writes == [] and not answer.done()
    assert await answer == 1


async def test_the_machine_hears_that_a_save_failed(bench: Bench) -> None:
    bench.error = Unavailable("no store")
    assert await bench.add() is bench.error
    assert bench.machine.errors == [bench.error]
    assert bench.shell.failed_saves == 1
    bench.error = None
    assert await bench.add() == 2


async def test_nobody_waits_for_a_shell_that_stops(bench: Bench) -> None:
    bench.gate.clear()
    waiting = bench.add()
    await asyncio.sleep(0)
    lost = bench.add()
    lost.cancel()  # its connection is lost
    await bench.shell.stop([bench.entry])
    assert isinstance(await waiting, Unavailable)
    assert bench.entry.timer is None


async def test_a_machine_wakes_when_it_asked_to(bench: Bench) -> None:
    await bench.add(forget_in_ms=600_000)
    later = bench.entry.timer
    await bench.add(forget_in_ms=5)
    assert later is not None and later.cancelled(), "one timer for each machine"
    await until(lambda: bench.machine.count == 0)
    assert (bench.machine.ticks, bench.entry.timer) == (1, None)


async def test_a_far_deadline_is_looked_at_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMER_MAX_S", 0.001)
    await bench.add(forget_in_ms=60_000_000)
    await until(lambda: bench.machine.ticks > 2)
    assert bench.machine.count == 1


async def test_a_machine_that_was_released_has_no_timer_until_its_next_event(bench: Bench) -> None:
    await bench.add()
    timer = bench.entry.timer
    bench.shell.release(bench.entry)
    assert timer is not None and timer.cancelled() and bench.entry.timer is None
    await bench.add(forget_in_ms=1)
    await until(lambda: bench.machine.count == 0)
