"""Redrives of a running task: asked for, resumed, given up; the table goes on all the while."""

import asyncio

import pytest
from msgspec.structs import replace
from support.table_world import BAD, World, good
from support.wait import until
from table.task.test_task import Ran

from streamlake.core.errors import Conflict, OutcomeUnknown, Unavailable
from streamlake.table.commit import machine as commit_machine
from streamlake.table.task import redrive as redrive_module
from streamlake.table.task import redriving as module
from streamlake.table.task import task as task_module
from streamlake.table.task.control import RedriveReport, TableReport
from streamlake.table.task.redrive import PROPERTY, Order, order_of
from streamlake.table.task.redriving import Redriving


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit_machine, "DELAY_FIRST_S", 0.001)
    monkeypatch.setattr(commit_machine, "DELAY_MAX_S", 0.002)
    monkeypatch.setattr(task_module, "FAILED_RETRY_S", 0.001)
    monkeypatch.setattr(redrive_module, "STEP_BYTES", 1)


async def dead_world(**configs: str) -> World:
    world = World(**configs)
    world.registry.gone = {2}
    world.log.produce(0, [*good([1]), *good([2], 2), BAD])
    await world.life().drain()
    world.registry.gone = set()
    return world


def is_over(report: TableReport) -> bool:
    return report.redrive is not None and report.redrive.state != "running"


async def test_a_redrive_is_done_between_rounds_and_told() -> None:
    world = await dead_world()
    async with Ran(world) as ran:
        await ran.caught_up()
        await ran.task.redrive(Order())
        world.log.produce(0, good([5]))
        report = await ran.until(is_over)
        assert report.redrive is not None and report.redrive.asked_ms > 0
        told = replace(report.redrive, asked_ms=0)
        assert told == RedriveReport("done", Order().reasons, redriven=1, still_dead=1)
        assert (report.rows, report.dead_letters) in ((2, 1), (3, 1))
        assert (await ran.caught_up()).rows == 3
    world.check()
    assert world.budget.used_bytes == 0


async def test_an_idle_table_need_not_wait_for_its_commit_interval() -> None:
    world = await dead_world(commit_interval_ms="900000")
    async with Ran(world) as ran:
        await until(lambda: ran.task.table.dead_letters.claimed)
        await ran.task.redrive(Order())
        await ran.until(is_over)
    world.check()


async def test_one_at_a_time() -> None:
    world = await dead_world()
    life = await world.opened()
    redriving = Redriving(life.table, world.executor, world.budget)
    first = asyncio.create_task(redriving.ask(order_of("invalid_value")))
    await asyncio.sleep(0)
    with pytest.raises(Conflict, match="is under way"):
        await redriving.ask(Order())
    while not first.done():
        await redriving.step()
        await asyncio.sleep(0)
    await first
    while redriving.is_active:
        await redriving.step()
    assert redriving.report is not None
    assert (redriving.report.reasons, redriving.report.still_dead) == (("invalid_value",), 1)
    second = asyncio.create_task(redriving.ask(Order()))
    await asyncio.sleep(0)
    while redriving.is_active:
        await redriving.step()
    await second
    world.check()


async def test_the_next_worker_finishes_what_was_ordered() -> None:
    world = await dead_world()
    life = await world.opened()
    await redrive_module.Redrive(life.table, Order(), world.executor, world.budget).begin()
    world.epoch += 1
    async with Ran(world) as ran:
        report = await ran.until(is_over)
        assert report.redrive is not None and report.redrive.redriven == 1
    world.check()
    assert PROPERTY not in world.load("__dlq").properties


async def test_a_registry_that_is_away_makes_it_wait() -> None:
    world = await dead_world()
    async with Ran(world) as ran:
        await ran.caught_up()
        world.registry.down = True
        await ran.task.redrive(Order())
        await ran.until(lambda r: r.state == "retrying")
        world.registry.down = False
        report = await ran.until(is_over)
        assert report.redrive is not None
        assert report.redrive.redriven == 1 or report.redrive.state == "failed"


async def test_one_that_a_person_must_look_at_stops_no_table(monkeypatch: pytest.MonkeyPatch) -> None:
    world = await dead_world()
    async with Ran(world) as ran:
        await ran.caught_up()

        def gone(*_: object) -> None:
            raise FileNotFoundError("a file of the dead-letter table is gone")

        monkeypatch.setattr(redrive_module, "_read", gone)
        await ran.task.redrive(Order())
        report = await ran.until(is_over)
        assert report.redrive is not None and report.redrive.state == "failed"
        assert "a file of the dead-letter table is gone" in report.redrive.message
        world.log.produce(0, good([7]))
        assert (await ran.caught_up()).rows == 2
    world.check()
    assert PROPERTY not in world.load("__dlq").properties


async def test_what_cannot_be_redriven_now(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(errors_tolerance="none")
    world.log.produce(0, good([1]))
    async with Ran(world) as ran:
        with pytest.raises(Unavailable, match="is starting"):
            await ran.task.redrive(Order())
        await ran.caught_up()
        with pytest.raises(Conflict, match=r"errors\.tolerance is none"):
            await ran.task.redrive(Order())
    world = await dead_world()
    async with Ran(world) as ran:
        await ran.caught_up()
        monkeypatch.setattr(module, "ASK_TIMEOUT_S", 0.01)
        world.executor.before = lambda name: asyncio.sleep(0.3) if name == "_commit" else None
        with pytest.raises(OutcomeUnknown):
            await ran.task.redrive(Order())
        world.executor.before = None
        await until(lambda: ran.reports[-1].state == "running")


async def test_status_tells_reasons_and_what_the_table_waits_for() -> None:
    world = World()
    async with Ran(world) as ran:
        assert (await ran.until(lambda r: r.state == "running")).waiting_for == "the first record"
        world.log.produce(0, [BAD, BAD])
        world.log.garbage(0, 3)
        report = await ran.until(lambda r: r.dead_letters == 5)
        assert report.waiting_for == "the first record that can be a row"
        assert report.dead_letter_reasons == {"invalid_value": 2, "invalid_batch": 3}
        assert report.dead_letter_table == "default.orders__dlq"
        world.log.produce(0, good([1]))
        report = await ran.until(lambda r: r.rows == 1)
        assert report.waiting_for == ""
