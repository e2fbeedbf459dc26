import asyncio
from uuid import UUID

import pytest
from support.table_world import TOPIC, TOPIC_ID, Executor, Pause, World, good
from support.wait import DEADLINE_S

from streamlake.catalogs.config import CatalogConfig
from streamlake.catalogs.named import NamedCatalogs
from streamlake.core.errors import Unavailable
from streamlake.table.commit import machine as commit_machine
from streamlake.table.commit.tools import Tools
from streamlake.table.task import tables as tables_module
from streamlake.table.task.catalogs import Catalogs
from streamlake.table.task.control import TableReport
from streamlake.table.task.tables import Tables

OTHER_ID = UUID(int=9)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit_machine, "DELAY_FIRST_S", 0.001)


class Worker:
    def __init__(self, world: World, executor: Executor | None = None) -> None:
        self.world = world
        self.reports: dict[UUID, TableReport] = {}
        self.failures: list[str] = []
        self._changed = asyncio.Event()
        work = world.work(report=self._report)
        self.tables = Tables(work, world.catalogs(executor), lambda name, _: self.failures.append(name))

    def _report(self, report: TableReport) -> None:
        self.reports[report.topic_id] = report
        self._changed.set()

    async def until(self, topic_id: UUID, state: str) -> TableReport:
        async with asyncio.timeout(DEADLINE_S):
            while topic_id not in self.reports or self.reports[topic_id].state != state:
                self._changed.clear()
                await self._changed.wait()
        return self.reports[topic_id]


async def test_starts_stops_and_leaves_alone() -> None:
    world = World()
    world.log.produce(0, good([1]))
    worker = Worker(world)
    await worker.tables.apply([world.spec(), world.spec(topic="other", topic_id=OTHER_ID)])
    await worker.until(TOPIC_ID, "running")
    await worker.until(OTHER_ID, "running")
    task = worker.tables.tasks[TOPIC_ID]
    await worker.tables.apply([world.spec(committed_once=True)])
    assert worker.tables.tasks == {TOPIC_ID: task}
    await worker.tables.apply([])
    assert worker.tables.tasks == {}
    worker.reports.clear()
    await worker.tables.apply([world.spec()])
    await worker.until(TOPIC_ID, "running")
    assert worker.tables.tasks[TOPIC_ID] is not task
    await worker.tables.close()
    assert worker.tables.tasks == {}
    assert worker.failures == []
    world.check()


@pytest.mark.parametrize(
    "change",
    [
        {"partitions": 3},
        {"committer_epoch": 5},
        {"configs": {"streamlake.table.convert.value.type": "string", "streamlake.table.errors.tolerance": "all"}},
    ],
)
async def test_a_changed_spec_restarts_the_table(change: dict[str, object]) -> None:
    world = World()
    worker = Worker(world)
    await worker.tables.apply([world.spec()])
    await worker.until(TOPIC_ID, "running")
    task = worker.tables.tasks[TOPIC_ID]
    await worker.tables.apply([world.spec(**change)])
    assert worker.tables.tasks.get(TOPIC_ID) is not task
    await worker.tables.close()


async def test_a_restart_waits_for_the_commit_in_flight() -> None:
    """One epoch, one committer: the old task's commit has ended before the new task looks."""
    world = World()
    executor = Executor()
    world.log.produce(0, good([1]))
    worker = Worker(world, executor)
    pause = Pause(executor, "_commit", 2)
    await worker.tables.apply([world.spec()])
    await pause.reached.wait()
    applying = asyncio.create_task(worker.tables.apply([world.spec(partitions=2)]))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not applying.done()
    pause.go.set()
    await applying
    await worker.until(TOPIC_ID, "running")
    await worker.tables.close()
    world.check()


async def test_two_topics_cannot_feed_one_table() -> None:
    world = World()
    worker = Worker(world)
    configs = {**world.configs, "streamlake.table.name": TOPIC}
    second = world.spec(topic="second", topic_id=OTHER_ID, configs=configs)
    await worker.tables.apply([world.spec(), second])
    report = await worker.until(OTHER_ID, "failed")
    assert "topic orders feeds table default.orders already" in report.message
    await worker.tables.apply([second])
    await worker.until(OTHER_ID, "running")
    await worker.tables.close()


@pytest.mark.parametrize("first", ["orders", "orders__dlq"])
async def test_no_topic_feeds_the_dead_letter_table_of_another(first: str) -> None:
    """It would take over an empty one, and mix rows of two kinds."""
    world = World()
    worker = Worker(world)
    specs = [world.spec(), world.spec(topic="orders__dlq", topic_id=OTHER_ID)]
    specs.sort(key=lambda spec: spec.topic != first)
    await worker.tables.apply(specs)
    report = await worker.until(specs[1].topic_id, "failed")
    assert f"topic {first} feeds table default.orders__dlq already" in report.message
    await worker.tables.close()


async def test_topics_whose_names_a_catalog_takes_for_one_cannot_feed_it() -> None:
    world = World()
    worker = Worker(world)
    configs = {**world.configs, "streamlake.table.catalog": "hive"}
    second = world.spec(topic="Orders", topic_id=OTHER_ID, configs=configs)
    await worker.tables.apply([world.spec(configs=configs), second])
    report = await worker.until(OTHER_ID, "failed")
    assert report.message == (
        "topic orders feeds table default.orders already in the catalog hive, which takes capital letters for small "
        "ones: set streamlake.table.name of topic Orders"
    )
    elsewhere = {**configs, "streamlake.table.catalog": "lake"}
    await worker.tables.apply(
        [world.spec(configs=configs), world.spec(topic="Orders", topic_id=OTHER_ID, configs=elsewhere)]
    )
    assert (await worker.until(OTHER_ID, "running")).catalog == "lake"
    await worker.tables.close()


@pytest.mark.parametrize(
    ("configs", "says"),
    [
        ({"catalog": "hive", "name": "orders-eu"}, "'-' is not possible in a name; set streamlake.table.name"),
        ({"catalog": "hiv"}, "there is no catalog 'hiv'; did you mean hive?"),
    ],
)
async def test_what_its_catalog_can_never_have(configs: dict[str, str], says: str) -> None:
    world = World()
    worker = Worker(world)
    given = {f"streamlake.table.{key}": value for key, value in configs.items()}
    other = world.spec(topic="other", topic_id=OTHER_ID, configs={**world.configs, **given})
    await worker.tables.apply([other, world.spec()])
    assert says in (await worker.until(OTHER_ID, "failed")).message
    await worker.until(TOPIC_ID, "running")
    await worker.tables.close()


async def test_a_catalog_that_cannot_be_opened_holds_up_its_own_tables_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables_module, "CATALOG_PAUSE_S", 0.001)
    world = World()
    away = True

    async def opened(name: str, _: CatalogConfig) -> Tools:
        if name == "hive" and away:
            raise Unavailable("no route to the metastore")
        return world.tools()

    worker = Worker(world)
    named = NamedCatalogs("lake", {name: CatalogConfig("sql", name, {}) for name in ("lake", "hive")})
    worker.tables = Tables(world.work(report=worker._report), Catalogs(named, opened))
    other = world.spec(topic="b", topic_id=OTHER_ID, configs={**world.configs, "streamlake.table.catalog": "hive"})
    await worker.tables.apply([other, world.spec()])
    report = await worker.until(OTHER_ID, "retrying")
    assert report.message == "the catalog hive cannot be opened: no route to the metastore"
    assert (report.table, report.catalog) == ("default.b", "hive")
    await worker.until(TOPIC_ID, "running")
    away = False
    await worker.until(OTHER_ID, "running")
    await worker.tables.close()


async def test_configs_that_are_wrong_fail_only_their_table() -> None:
    world = World()
    worker = Worker(world)
    wrong = world.spec(topic="wrong", topic_id=OTHER_ID, configs={"streamlake.table.partition.by": "day("})
    await worker.tables.apply([wrong, world.spec()])
    assert "partition" in (await worker.until(OTHER_ID, "failed")).message
    await worker.until(TOPIC_ID, "running")
    await worker.tables.close()


async def test_a_sick_table_does_not_slow_another() -> None:
    world = World()
    world.log.produce(0, good([1]))
    original = world.catalog.load_table

    def load(identifier: tuple[str, str]) -> object:
        if identifier[1].startswith("sick"):
            raise ConnectionError("no route")
        return original(identifier)

    world.catalog.load_table = load
    worker = Worker(world)
    await worker.tables.apply([world.spec(topic="sick", topic_id=OTHER_ID), world.spec()])
    await worker.until(OTHER_ID, "retrying")
    await worker.until(TOPIC_ID, "running")
    await worker.tables.close()
    world.check()
