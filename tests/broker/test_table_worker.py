"""The server's side of the table worker, against a worker that the test plays itself over the real socket pair."""

import asyncio
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest
from structlog.testing import capture_logs
from support.fake_worker import FakeWorkers, Process
from support.wait import DEADLINE_S

from streamlake.broker import table_worker as module
from streamlake.broker.table_worker import TableWorker
from streamlake.broker.worker_process import launch
from streamlake.catalogs.config import CatalogConfig
from streamlake.catalogs.named import NamedCatalogs
from streamlake.core.errors import Unavailable
from streamlake.core.ids import Ids
from streamlake.core.retry import Backoff
from streamlake.table.task.control import TableReport, WorkerSettings

LAKE = CatalogConfig("sql", "lake", {"secret": "x"})
CATALOGS = NamedCatalogs("lake", {"lake": LAKE, "other": CatalogConfig("sql", "other", {})})
SETTINGS = WorkerSettings("127.0.0.1", 1, 0, "http://127.0.0.1:2", "c", 1, 1, "info", False, {"lake": LAKE}, "lake")


class Bench:
    def __init__(self, life: Any) -> None:
        self.life = life
        self.workers = FakeWorkers()
        self.worker = TableWorker(
            SETTINGS, life.topics, life.configs, life.progress, life.logs, life.clock, Ids(5), launch
        )
        life.tasks.start("table worker", self.worker.run())

    async def process(self) -> Process:
        """The next one that is started, its settings read."""
        process, settings = await self.workers.next()
        assert settings == SETTINGS
        return process

    async def reported(self, process: Process, report: TableReport) -> None:
        """Until the server has kept it."""
        process.report(report)
        async with asyncio.timeout(DEADLINE_S):
            while report not in self.worker.reports:
                await asyncio.sleep(0)
            for _ in range(20):
                await asyncio.sleep(0)


@pytest.fixture
async def bench(site: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(module, "RESTART_PAUSE_FIRST_S", 0.01)
    monkeypatch.setattr(module, "TELL_AGAIN_S", 0.001)
    life = await site.start(CATALOGS)
    bench = Bench(life)
    monkeypatch.setattr(asyncio, "create_subprocess_exec", bench.workers.exec)
    yield bench
    await bench.worker.stop()


def report(topic: Any, **fields: Any) -> TableReport:
    return TableReport(
        topic.name,
        topic.id,
        f"default.{topic.name}",
        **({"state": "running", "catalog": "lake", "incarnation": 1} | fields),
    )


# -- starting and telling --------------------------------------------------------------------------------------------


async def test_a_server_without_tables_starts_no_worker(bench: Bench) -> None:
    await bench.life.create("plain")
    assert (bench.worker.pid, bench.worker.starts, bench.workers.started.empty()) == (None, 0, True)
    assert bench.worker.describe() == []


async def test_the_first_table_starts_it(bench: Bench) -> None:
    topic = await bench.life.create("t", partitions=2, automq_table_topic_enable="true")
    process = await bench.process()
    assert process.command[1:3] == ("-m", "streamlake.worker.process")
    assert "secret" not in " ".join(process.command), "everybody can read a command line"
    (spec,) = (await process.told()).tables
    assert (spec.topic, spec.topic_id, spec.partitions, spec.committed_once) == ("t", topic.id, 2, False)
    assert spec.configs["streamlake.table.commit.interval.ms"] == "10000"
    assert spec.committer_epoch > 0
    assert (bench.worker.pid, bench.worker.starts) == (process.pid, 1)


async def test_it_is_told_of_what_concerns_it(bench: Bench) -> None:
    life = bench.life
    await life.create("t", streamlake_table_enable="true")
    process = await bench.process()
    await process.told()
    await life.create("plain")
    await life.topics.alter_configs("t", {"retention.ms": "5"})
    await life.topics.add_partitions("t", 3)
    (spec,) = (await process.told()).tables
    assert spec.partitions == 3, "what changed nothing for tables was not told"
    await life.configs.alter(None, {"streamlake.table.commit.interval.ms": "70"})
    (spec,) = (await process.told()).tables
    assert spec.configs["streamlake.table.commit.interval.ms"] == "70"
    await life.create("u", streamlake_table_enable="true")
    assert [s.topic for s in (await process.told()).tables] == ["t", "u"]
    await life.topics.delete("t")
    await life.topics.alter_configs("u", {"streamlake.table.enable": "false"})
    while (await process.told()).tables:
        pass


async def test_a_store_that_is_away_delays_what_it_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    healthy, failures = bench.life.progress.load, iter(range(3))

    async def away() -> Any:
        if next(failures, None) is not None:
            raise Unavailable("no metadata store")
        return await healthy()

    await bench.life.create("t", streamlake_table_enable="true")
    process = await bench.process()
    await process.told()
    monkeypatch.setattr(bench.life.progress, "load", away)
    await bench.life.topics.add_partitions("t", 2)
    (spec,) = (await process.told()).tables
    assert spec.partitions == 2


# -- tables that move ------------------------------------------------------------------------------------------------


async def test_a_table_is_written_where_its_first_partition_is(bench: Bench, site: Any) -> None:
    life = bench.life
    topic = await life.create("t", partitions=2, streamlake_table_enable="true")
    process = await bench.process()
    (first,) = (await process.told()).tables
    await site.move(topic, 1, 5)  # nothing changes
    await site.move(topic, 0, 5)
    assert (await process.told()).tables == []
    (described,) = bench.worker.describe()
    assert described["state"] == "elsewhere" and "broker 5 writes this table" in described["message"]
    await site.move(topic, 0, 0)
    (again,) = (await process.told()).tables
    assert again.committer_epoch > first.committer_epoch, "the other one may have committed since"


async def test_a_table_that_another_broker_took_is_taken_back_if_it_is_ours(bench: Bench, monkeypatch) -> None:
    monkeypatch.setattr(module, "FENCED_PAUSE_S", 0.001)
    topic = await bench.life.create("t", streamlake_table_enable="true")
    process = await bench.process()
    (first,) = (await process.told()).tables
    process.report(report(topic, state="fenced"))
    (again,) = (await process.told()).tables
    assert again.committer_epoch > first.committer_epoch
    assert bench.worker.starts == 1, "other tables go on"


# -- reports ---------------------------------------------------------------------------------------------------------


async def test_a_report_moves_the_holds_durably(bench: Bench) -> None:
    life = bench.life
    topic = await life.create("t", partitions=2, streamlake_table_enable="true")
    for index in (0, 1):
        await life.append(life.logs.get(topic.id, index), count=10)
    process = await bench.process()
    await bench.reported(process, report(topic, positions=(8, 5), hold=(4, 5), committed_once=True, rows=13))
    assert [life.logs.get(topic.id, index).deletable_offset for index in (0, 1)] == [4, 5]
    stored = {p.partition: p for p in await life.progress.load()}
    assert [(p.committed_offset, p.hold_offset, p.committed_once) for p in stored.values()] == [
        (8, 4, True),
        (5, 5, True),
    ]


async def test_the_last_word_of_a_table_in_the_catalog_that_was_left_moves_no_hold(bench: Bench) -> None:
    """The table in the next catalog begins anew: what the former one holds must not be lost to it."""
    life = bench.life
    topic = await life.create("t", streamlake_table_enable="true")
    await life.append(life.logs.get(topic.id, 0), count=10)
    process = await bench.process()
    await life.topics.alter_configs("t", {"streamlake.table.catalog": "other"})
    await bench.reported(process, report(topic, positions=(8,), hold=(8,), committed_once=True))
    assert life.logs.get(topic.id, 0).deletable_offset == 0
    assert [(p.hold_offset, p.committed_once) for p in await life.progress.load()] == [(0, False)]
    assert [(t["catalog"], t["state"]) for t in bench.worker.describe()] == [("other", "starting")]
    next_table = {"catalog": "other", "incarnation": 2}
    await bench.reported(process, report(topic, positions=(5,), hold=(5,), committed_once=True, **next_table))
    assert life.logs.get(topic.id, 0).deletable_offset == 5


async def test_a_partition_that_no_load_of_the_table_has_shown_yet_keeps_its_hold(bench: Bench) -> None:
    """The hold lags a round behind, so in the round of a partition's first rows it has an entry fewer."""
    life = bench.life
    topic = await life.create("t", partitions=2, streamlake_table_enable="true")
    for index in (0, 1):
        await life.append(life.logs.get(topic.id, index), count=10)
    process = await bench.process()
    await bench.reported(process, report(topic, positions=(8, 5), hold=(4,), committed_once=True))
    assert [life.logs.get(topic.id, index).deletable_offset for index in (0, 1)] == [4, 0]
    assert [(p.committed_offset, p.hold_offset) for p in await life.progress.load()] == [(8, 4), (5, 0)]


async def test_a_hold_that_is_not_durable_is_not_moved(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a crash the stored hold counts: retention must not have passed it."""
    life = bench.life
    topic = await life.create("t", streamlake_table_enable="true")
    partition = life.logs.get(topic.id, 0)
    await life.append(partition, count=10)
    process = await bench.process()

    async def away(*_: Any) -> None:
        raise Unavailable("no metadata store")

    with monkeypatch.context() as sick:
        sick.setattr(life.progress, "advance", away)
        await bench.reported(process, report(topic, positions=(8,), hold=(8,)))
        assert partition.deletable_offset == 0
    await bench.reported(process, report(topic, positions=(9,), hold=(9,)))
    assert partition.deletable_offset == 9


async def test_progress_that_is_stored_already_is_not_stored_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An idle table reports at every commit interval, and each time to store is a transaction."""
    life = bench.life
    topic = await life.create("t", partitions=2, streamlake_table_enable="true")
    process = await bench.process()
    advance, stores, fails = life.progress.advance, 0, True

    async def counted(*arguments: Any) -> bool:
        nonlocal stores
        stores += 1
        if fails:
            raise Unavailable("no metadata store")
        return await advance(*arguments)

    monkeypatch.setattr(life.progress, "advance", counted)
    same = {"positions": (8, 5), "hold": (4, 5)}
    await bench.reported(process, report(topic, **same))
    fails = False
    await bench.reported(process, report(topic, **same, rows=1))
    assert stores == 2, "what could not be stored is stored later"
    await bench.reported(process, report(topic, **same, rows=2))
    assert stores == 2
    changes = [{"positions": (9, 5), "hold": (4, 5)}, {"positions": (9, 5), "hold": (9, 5)}]
    for number, fields in enumerate((*changes, {**changes[1], "committed_once": True})):
        await bench.reported(process, report(topic, **fields))
        assert stores == 3 + number
    assert [p.hold_offset for p in await life.progress.load()] == [9, 5]


async def test_progress_of_a_table_that_was_switched_off_and_on_again_is_stored_again(bench: Bench) -> None:
    """The store has forgotten it meanwhile, and the topic looks as it did before."""
    life = bench.life
    topic = await life.create("t", streamlake_table_enable="true")
    await life.append(life.logs.get(topic.id, 0), count=10)
    process = await bench.process()
    await bench.reported(process, report(topic, positions=(8,), hold=(8,)))
    for enable in ("false", "true"):
        await life.topics.alter_configs("t", {"streamlake.table.enable": enable})
    assert [p.hold_offset for p in await life.progress.load()] == [0]
    await bench.reported(process, report(topic, positions=(8,), hold=(8,), rows=1))
    assert [p.hold_offset for p in await life.progress.load()] == [0], "of the table as it was before"
    await bench.reported(process, report(topic, positions=(8,), hold=(8,), rows=2, incarnation=2))
    assert [p.hold_offset for p in await life.progress.load()] == [8]
    assert life.logs.get(topic.id, 0).deletable_offset == 8


OFF_AND_ON = [{"streamlake.table.enable": "false"}, {"streamlake.table.enable": "true"}]


@pytest.mark.parametrize(
    ("when", "changes"),
    [
        ("before", OFF_AND_ON),
        ("after", OFF_AND_ON),
        ("before", [{"streamlake.table.catalog": "other"}]),  # refused after it
    ],
)
async def test_a_change_beside_a_report_that_is_being_stored(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, when: str, changes: list[dict[str, str]]
) -> None:
    """A report of the table before must not say of the next one that it has committed, nor let retention go on: the
    worker would take that it finds no progress in the new table for a loss, and stop it."""
    life = bench.life
    topic = await life.create("t", streamlake_table_enable="true")
    await life.append(life.logs.get(topic.id, 0), count=10)
    process = await bench.process()
    advance = life.progress.advance

    async def change() -> None:
        for configs in changes:
            await life.topics.alter_configs("t", configs)
        await life.partitions.settled()

    async def overtaken(*arguments: Any) -> bool:
        monkeypatch.setattr(life.progress, "advance", advance)
        if when == "before":
            await change()
        is_stored: bool = await advance(*arguments)
        if when == "after":
            await change()
        return is_stored

    monkeypatch.setattr(life.progress, "advance", overtaken)
    await bench.reported(process, report(topic, positions=(8,), hold=(8,), committed_once=True))
    assert [(p.hold_offset, p.committed_once) for p in await life.progress.load()] == [(0, False)]
    assert life.logs.get(topic.id, 0).deletable_offset == 0
    while (specs := (await process.told()).tables)[0].incarnation < 2:
        pass
    assert [spec.committed_once for spec in specs] == [False]


async def test_a_late_report_of_a_table_that_was_switched_off_holds_nothing(bench: Bench) -> None:
    life = bench.life
    topic = await life.create("t", streamlake_table_enable="true")
    partition = life.logs.get(topic.id, 0)
    await life.append(partition, count=10)
    process = await bench.process()
    await life.topics.alter_configs("t", {"streamlake.table.enable": "false"})
    await life.partitions.settled()
    await bench.reported(process, report(topic, positions=(3,), hold=(3,)))
    assert partition.deletable_offset == 10


async def test_a_report_of_a_topic_that_is_gone(bench: Bench) -> None:
    topic = await bench.life.create("t", streamlake_table_enable="true")
    other = await bench.life.create("u", streamlake_table_enable="true")
    process = await bench.process()
    await bench.life.topics.delete("t")
    process.report(report(topic, positions=(3,), hold=(3,)))
    await bench.reported(process, report(other))
    assert [r.topic for r in bench.worker.reports] == ["u"]


async def test_describe_before_and_after_the_first_report(bench: Bench) -> None:
    life = bench.life
    topic = await life.create("t", partitions=2, streamlake_table_enable="true", streamlake_table_name="orders")
    await life.append(life.logs.get(topic.id, 0), count=10)
    process = await bench.process()
    (before,) = bench.worker.describe()
    assert (before["table"], before["state"], before["lag"], before["rows"]) == ("default.orders", "starting", 10, 0)
    assert before["partitions"][0] == {"partition": 0, "log_start": 0, "log_end": 10, "in_table": None, "lag": 10}
    await bench.reported(
        process,
        report(
            topic, positions=(7,), hold=(7,), rows=6, dead_letters=1, last_commit_ms=0, dead_letter_table="default.d"
        ),
    )
    (after,) = bench.worker.describe()
    assert (after["state"], after["lag"], after["rows"], after["dead_letters"]) == ("running", 3, 6, 1)
    assert after["last_commit"] == "1970-01-01T00:00:00+00:00"
    assert after["dead_letter_table"]["table"] == "default.d"
    assert after["partitions"][1]["in_table"] is None, "a partition that is new to the worker"


# -- its end ---------------------------------------------------------------------------------------------------------


async def test_one_that_dies_is_started_again_with_a_newer_epoch(bench: Bench) -> None:
    await bench.life.create("t", streamlake_table_enable="true")
    epochs = []
    for code in (1, -9, 0):
        process = await bench.process()
        (spec,) = (await process.told()).tables
        epochs.append(spec.committer_epoch)
        process.end(code)
    assert epochs == sorted(set(epochs))
    assert (await bench.process()).pid == bench.worker.pid
    assert bench.worker.starts == 4


async def test_one_that_cannot_be_started_is_tried_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = iter(range(3))

    async def exec(*command: str, **fields: Any) -> Process:
        if next(failures, None) is not None:
            raise OSError("no such program")
        return await bench.workers.exec(*command, **fields)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", exec)
    await bench.life.create("t", streamlake_table_enable="true")
    await bench.process()
    assert bench.worker.starts == 1


@pytest.mark.parametrize("healthy_after_s", [3600.0, -1.0])
async def test_the_pauses_grow_until_a_worker_was_healthy(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, healthy_after_s: float
) -> None:
    monkeypatch.setattr(module, "HEALTHY_AFTER_S", healthy_after_s)
    expected = Backoff(Ids(5), module.RESTART_PAUSE_FIRST_S, module.RESTART_PAUSE_MAX_S)
    pauses_s = []
    for _ in range(4):
        if healthy_after_s < 0:
            expected.reset()
        pauses_s.append(round(expected.next_delay_s(), 3))
    with capture_logs() as logs:
        await bench.life.create("t", streamlake_table_enable="true")
        for _ in pauses_s:
            (await bench.process()).end(1)
        await bench.process()
    assert [entry["in_s"] for entry in logs if "restarting" in entry["event"]] == pauses_s


async def test_one_that_talks_nonsense_is_killed_and_started_again(bench: Bench) -> None:
    await bench.life.create("t", streamlake_table_enable="true")
    process = await bench.process()
    process.writer.write(b"hello\n")
    again = await bench.process()
    assert process.signals == [signal.SIGKILL]
    assert again.pid != process.pid


async def test_stop_lets_it_finish(bench: Bench) -> None:
    await bench.life.create("t", streamlake_table_enable="true")
    process = await bench.process()
    await bench.worker.stop()
    assert (process.signals, process.returncode, bench.worker.pid) == ([signal.SIGTERM], 0, None)
    assert bench.workers.started.empty()


async def test_stop_does_not_wait_for_ever(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STOP_TIMEOUT_S", 0.01)
    await bench.life.create("t", streamlake_table_enable="true")
    process = await bench.process()
    process.heeds_sigterm = False
    await bench.worker.stop()
    assert process.signals == [signal.SIGTERM, signal.SIGKILL]


async def test_stop_without_a_worker(bench: Bench) -> None:
    await bench.worker.stop()
    assert bench.worker.starts == 0
