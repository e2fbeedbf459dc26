"""The loop around rounds: states, retries, and what is reported."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from support.table_world import BAD, TOPIC, World, good
from support.wait import DEADLINE_S, until

from streamlake.table.commit import health
from streamlake.table.commit import machine as commit_machine
from streamlake.table.commit.health import Unreadable
from streamlake.table.task import flush, task
from streamlake.table.task.control import TableReport
from streamlake.table.task.task import TableTask
from streamlake.table.upkeep import maintenance, schedule


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit_machine, "DELAY_FIRST_S", 0.001)
    monkeypatch.setattr(commit_machine, "DELAY_MAX_S", 0.002)
    monkeypatch.setattr(task, "FAILED_RETRY_S", 0.001)


class Ran:
    """A task in the background, and a way to wait for what it reports."""

    def __init__(self, world: World, **spec: object) -> None:
        world.epoch = world.epoch or 1
        self.world = world
        self._changed = asyncio.Event()
        self.reports: list[TableReport] = []
        self.task = TableTask(
            world.spec(**spec), world.settings, world.work(report=self._reported), "lake", world.tools()
        )
        self._running = asyncio.create_task(self.task.run())

    def _reported(self, report: TableReport) -> None:
        self.reports.append(report)
        self._changed.set()

    async def until(self, wanted: Callable[[TableReport], bool]) -> TableReport:
        async with asyncio.timeout(DEADLINE_S):
            while not (self.reports and wanted(self.reports[-1])):
                self._changed.clear()
                await self._changed.wait()
        return self.reports[-1]

    async def caught_up(self) -> TableReport:
        return await self.until(lambda r: r.state == "running" and r.lag == 0 and list(r.hold) == self.world.log.end)

    async def __aenter__(self) -> "Ran":
        return self

    async def __aexit__(self, *_: object) -> None:
        self._running.cancel()
        await asyncio.wait([self._running])


async def test_follows_the_log_and_says_so() -> None:
    world = World(2)
    world.log.produce(0, [*good(range(5)), BAD])
    world.log.produce(1, good([1]))
    async with Ran(world) as ran:
        report = await ran.caught_up()
        assert (report.topic, report.table, report.message) == (TOPIC, "default.orders", "")
        assert (report.positions, report.rows, report.dead_letters) == ((6, 1), 6, 1)
        assert report.committed_once
        assert report.commits >= 1
        assert report.last_commit_ms is not None
        assert report.last_commit_duration_ms is not None
        assert report.metadata_location == world.load().metadata_location
        assert report.dead_letter_table == "default.orders__dlq"
        assert report.dead_letter_metadata_location == world.load("__dlq").metadata_location
        world.log.produce(1, good(range(3)))
        assert (await ran.caught_up()).rows == 9
    world.check()
    assert world.budget.used_bytes == 0


async def test_the_hold_comes_one_look_after_the_commit() -> None:
    world = World()
    world.log.produce(0, good([1]))
    async with Ran(world) as ran:
        await ran.caught_up()
    first = next(r for r in ran.reports if r.positions == (1,))
    assert first.hold == ()
    assert all(sum(r.hold) <= sum(r.positions) for r in ran.reports)


@pytest.mark.parametrize("part", ["catalog", "log", "registry"])
async def test_a_dependency_that_is_down_is_waited_out(part: str, capsys: pytest.CaptureFixture[str]) -> None:
    world = World()
    world.log.produce(0, good([1]))
    broken = getattr(world, part)
    broken.down = True
    async with Ran(world) as ran:
        report = await ran.until(lambda r: r.state == "retrying")
        assert "answer" in report.message or "no route" in report.message
        told = capsys.readouterr().out
        assert report.message in told
        assert ("Traceback" in told) == (part == "catalog"), "our own errors say in words what may pass"
        broken.down = False
        await ran.caught_up()
    world.check()


async def test_a_catalog_that_dies_between_rounds_loses_nothing() -> None:
    world = World()
    world.log.produce(0, good([1]))
    async with Ran(world) as ran:
        await ran.caught_up()
        world.catalog.plan = ["timeout", "lost"] * 20
        world.log.produce(0, good([2]))
        await ran.until(lambda r: r.rows == 2)
        world.catalog.down = True
        world.log.produce(0, good([3]))
        await ran.until(lambda r: r.state == "retrying")
        world.catalog.down = False
        world.catalog.plan = []
        await ran.caught_up()
    world.check()


async def test_what_needs_a_person_fails_and_goes_on_by_itself_when_it_is_mended() -> None:
    world = World(errors_tolerance="none")
    world.log.produce(0, good([1]))
    world.registry.gone = {1}
    async with Ran(world) as ran:
        report = await ran.until(lambda r: r.state == "failed")
        assert "unknown_schema" in report.message
        assert world.rows() == []
        world.registry.gone = set()
        await ran.caught_up()
    world.check()


async def test_a_table_dropped_while_it_runs_fails_loudly() -> None:
    world = World()
    world.log.produce(0, good([1]))
    async with Ran(world) as ran:
        await ran.caught_up()
        world.catalog.inner.drop_table(("default", TOPIC))
        world.log.produce(0, good([1]))
        report = await ran.until(lambda r: r.state == "failed")
        assert "is gone from the catalog" in report.message
        assert report.positions == (1,)


@pytest.mark.parametrize("kind", ["metadata file", "manifest list", "manifest"])
async def test_nothing_is_committed_on_top_of_a_head_that_cannot_be_read(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "LOOK_S", 0.0)
    world = World()
    world.log.produce(0, good([1]))
    async with Ran(world) as ran:
        await ran.caught_up()
        table = world.load()
        head = table.current_snapshot()
        files = [table.metadata_location, head.manifest_list, head.manifests(table.io)[0].manifest_path]
        location = dict(zip(["metadata file", "manifest list", "manifest"], files, strict=True))[kind]
        kept = world.files.pop(location)
        world.log.produce(0, good([2]))
        report = await ran.until(lambda r: r.state == "unreadable")
        assert kind in report.message
        assert location in report.message
        assert (report.positions, report.hold) == ((1,), (1,))
        committed = world.catalog.commits
        for _ in range(3):  # it goes on looking, and refusing
            with pytest.raises(Unreadable):
                await ran.task.table.open()
        assert world.catalog.commits == committed
        world.files[location] = kept
        assert (await ran.caught_up()).rows == 2
    world.check()


async def test_maintenance_that_fails_is_reported_and_stops_no_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "MERGE_AT", 2)
    monkeypatch.setattr(schedule, "RETRY_FIRST_S", 0.01)
    world = World()
    broken = True
    merged = maintenance.Maintenance._merged

    def merge(*args: Any) -> Any:
        if broken:
            raise PermissionError("the bucket does not let us")
        return merged(*args)

    monkeypatch.setattr(maintenance.Maintenance, "_merged", merge)
    async with Ran(world) as ran:
        for n in range(3):
            world.log.produce(0, good([n]))
            await ran.caught_up()
        report = await ran.until(lambda r: r.maintenance_failures > 1)
        assert report.state == "running"
        assert "merging manifests of default.orders fails since 2023-11-14T22:13" in report.maintenance
        assert "PermissionError: the bucket does not let us" in report.maintenance
        broken = False
        assert (await ran.until(lambda r: r.maintenance == "")).maintenance_failures > 1
    world.check()


async def test_a_newer_worker_ends_the_task() -> None:
    world = World()
    world.log.produce(0, good([1]))
    async with Ran(world) as ran:
        await ran.caught_up()
        world.epoch = 1
        await world.life().drain()
        world.log.produce(0, good([1]))
        report = await ran.until(lambda r: r.state == "fenced")
        assert "epoch 2" in report.message
        await asyncio.wait([ran._running], timeout=DEADLINE_S)
        assert ran._running.done()


async def test_a_schema_that_another_engine_changes_is_followed() -> None:
    world = World()
    world.log.produce(0, good([1]))
    async with Ran(world) as ran:
        await ran.caught_up()
        with world.load().update_schema() as update:
            update.add_column("theirs", world.load().schema().find_type("n"))
        world.log.produce(0, good([2], 2))
        await ran.caught_up()
    world.check()
    assert {"theirs", "note"} <= set(world.load().schema().column_names)


async def test_a_backlog_is_taken_in_rounds_that_follow_at_once() -> None:
    """The interval is an hour: only rounds that are full let it be done within the test's patience."""
    world = World()
    world.configs["streamlake.table.commit.interval.ms"] = "900000"
    for n in range(5):
        world.log.produce(0, good([n]))
    world.epoch = 1
    work = world.work(round_bytes=1)
    running = TableTask(world.spec(), world.settings, work, "lake", world.tools())
    background = asyncio.create_task(running.run())
    async with asyncio.timeout(DEADLINE_S):
        while running.table.main.progress.position(0) < 5:
            await asyncio.sleep(0)
    background.cancel()
    await asyncio.wait([background])
    world.check()


async def test_a_reader_finds_what_was_durable_when_it_asked() -> None:
    world = World(commit_interval_ms="600000")
    world.log.produce(0, good([1]))
    async with Ran(world) as ran:
        await ran.until(lambda r: r.rows == 1)
        for n in range(3):
            world.log.produce(0, good([n]))
            await ran.task.refresh()
            assert len(world.rows()) == 2 + n, "the commit interval is far from over"
            head, before = world.load().metadata.snapshots[-1], world.load().metadata.snapshots[-2]
            assert before.timestamp_ms < head.timestamp_ms
        commits = ran.task.report().commits
        await ran.task.refresh()
        assert ran.task.report().commits == commits, "nothing was new"
    world.check()


async def test_a_reader_does_not_make_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """DuckDB ends in an internal error if a table is younger than the transaction that loads it."""
    monkeypatch.setattr(flush, "WAIT_S_MAX", DEADLINE_S)
    world = World(commit_interval_ms="600000")
    async with Ran(world) as ran:
        async with asyncio.timeout(DEADLINE_S / 2):
            await ran.task.refresh()
        assert world.rows() == []


async def test_a_reader_of_a_table_that_has_just_been_opened() -> None:
    world = World(commit_interval_ms="600000")
    world.log.produce(0, good([1]))
    async with Ran(world) as ran:
        await ran.until(lambda r: r.rows == 1)
    async with Ran(world) as again:
        await until(lambda: again.task.table.main.table is not None and again.task.table.main.claimed)
        world.log.produce(0, good([2]))
        await again.task.refresh()
        assert len(world.rows()) == 2


async def test_a_reader_does_not_hold_up_a_foreign_commit() -> None:
    world = World(commit_interval_ms="600000")
    world.log.produce(0, good([1]))
    async with Ran(world) as ran:
        await ran.until(lambda r: r.rows == 1)
        ran.task.pause_refresh()
        world.log.produce(0, good([2]))
        await ran.task.refresh()
        assert len(world.rows()) == 1


async def test_a_reader_waits_neither_for_a_table_that_is_stuck_nor_for_one_that_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(flush, "WAIT_S_MAX", DEADLINE_S)
    world = World(errors_tolerance="none", commit_interval_ms="600000")
    world.log.produce(0, good([1]))
    async with Ran(world) as ran:
        await ran.until(lambda r: r.rows == 1)
        world.registry.gone = {1}
        world.log.produce(0, [BAD])
        async with asyncio.timeout(DEADLINE_S / 2):
            await ran.task.refresh()
        await ran.until(lambda r: r.state == "failed")
        async with asyncio.timeout(DEADLINE_S / 2):
            await ran.task.refresh()


async def test_a_table_by_the_latest_schema_waits_until_its_subject_has_one() -> None:
    world = World(convert_value_type="by_latest_schema")
    world.registry.gone = {1, 2}
    world.log.produce(0, [value[5:] for value in good(range(3)) if value is not None])
    async with Ran(world) as ran:
        report = await ran.until(lambda r: r.state == "retrying")
        assert "no subject orders-value: the table waits until a schema is registered there" in report.message
        world.registry.gone = {2}
        report = await ran.caught_up()
        assert (report.rows, report.dead_letters) == (3, 0)
    world.check()
