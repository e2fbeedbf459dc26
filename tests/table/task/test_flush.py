"""Commits on demand: shared, at a distance, and not during somebody else's."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from support.wait import DEADLINE_S, turns

from streamlake.table.task import flush as module
from streamlake.table.task.flush import Flush


@pytest.fixture
async def tasks() -> AsyncIterator[list["asyncio.Task[None]"]]:
    tasks: list[asyncio.Task[None]] = []
    yield tasks
    for task in tasks:
        task.cancel()


async def ask(flush: Flush, tasks: list["asyncio.Task[None]"]) -> "asyncio.Task[None]":
    tasks.append(asyncio.create_task(flush.ask()))
    await turns()
    return tasks[-1]


async def test_readers_who_ask_before_a_look_share_its_commit(tasks: list["asyncio.Task[None]"]) -> None:
    flush = Flush()
    flush.begin()
    assert not flush.begun
    first, second = await ask(flush, tasks), await ask(flush, tasks)
    flush.begin()
    late = await ask(flush, tasks)
    assert flush.begun and not first.done()
    flush.done()
    await turns()
    assert first.done() and second.done() and not flush.begun
    assert not late.done(), "what was durable when it asked may not have been in that look"


async def test_commits_on_demand_keep_a_distance(
    tasks: list["asyncio.Task[None]"], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DISTANCE_S", 0.1)
    flush = Flush()
    await ask(flush, tasks)
    flush.begin()
    flush.committed()
    flush.done()
    again = await ask(flush, tasks)
    flush.begin()
    assert not flush.begun and not again.done()
    await flush.wait(DEADLINE_S)
    flush.begin()
    assert flush.begun


async def test_a_look_that_found_nothing_keeps_nobody_waiting(
    tasks: list["asyncio.Task[None]"], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DISTANCE_S", DEADLINE_S)
    flush = Flush()
    flush.committed()  # on time, not on demand: that keeps nobody waiting either
    for _ in range(2):
        await ask(flush, tasks)
        async with asyncio.timeout(DEADLINE_S / 2):
            await flush.wait(DEADLINE_S)
        flush.begin()
        assert flush.begun
        flush.done()


async def test_a_reader_wakes_the_task_that_sleeps(tasks: list["asyncio.Task[None]"]) -> None:
    flush = Flush()
    sleeping = asyncio.create_task(flush.wait(DEADLINE_S))
    await turns()
    assert not sleeping.done()
    await ask(flush, tasks)
    async with asyncio.timeout(DEADLINE_S / 2):
        await sleeping
    flush.begin()
    await flush.wait(0.01)  # sleeps on: this reader is taken up


async def test_a_reader_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAIT_S_MAX", 0.01)
    flush = Flush()
    async with asyncio.timeout(DEADLINE_S):
        await flush.ask()
    flush.begin()
    assert flush.begun, "the commit comes all the same"
    flush.done()


async def test_none_while_somebody_else_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    flush = Flush()
    flush.pause()
    await flush.ask()  # returns at once
    flush.begin()
    assert not flush.begun
    monkeypatch.setattr(module, "FOREIGN_PAUSE_S", -1)
    flush.pause()
    asking = asyncio.create_task(flush.ask())
    await turns()
    flush.begin()
    assert flush.begun
    flush.done()
    await asking


async def test_the_snapshot_is_dated_before_the_question(tasks: list["asyncio.Task[None]"]) -> None:
    """DuckDB shows a transaction no snapshot that is younger than it, and asks some time after it began."""
    flush = Flush()
    assert flush.age_s == 0
    loop = asyncio.get_running_loop()
    began = loop.time()
    await ask(flush, tasks)
    assert flush.age_s == 0, "nobody is served by the round that is under way"
    flush.begin()
    assert module.DATED_BEFORE_S <= flush.age_s <= module.DATED_BEFORE_S + loop.time() - began
    flush.done()
    assert flush.age_s == 0
