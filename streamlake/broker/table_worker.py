"""The parent's side of the table worker: starts it, tells it the tables, keeps what it reports.

A table is written where the first partition of its topic is. When that moves both workers may write for a moment: the
one that was told later has the higher committer epoch, and the other one is fenced by the table itself.

The worker is a process of its own (worker_process.py). They talk over a socket pair (table/task/control.py); when the
server dies the pair closes and the worker exits. One that dies is started again, with a growing pause. What it reports
as covered moves the retention holds, durably first. It also answers requests to the Iceberg REST catalog.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime
from itertools import zip_longest
from typing import Any
from uuid import UUID

import msgspec
import structlog
from msgspec.structs import asdict, replace

from streamlake.broker.ownership import TABLE_HOLD
from streamlake.broker.worker_process import WorkerProcess
from streamlake.broker.worker_requests import WorkerRequests
from streamlake.cluster.broker_configs import BrokerConfigs
from streamlake.cluster.config.table import PREFIX
from streamlake.cluster.config.topic import TOPIC_CONFIGS, check_topic_configs
from streamlake.cluster.store.table_progress import Reported, TableProgress
from streamlake.cluster.store.topic_rows import TopicInfo
from streamlake.cluster.topics import Topics
from streamlake.core.clock import Clock
from streamlake.core.errors import Conflict, NotFound, StreamLakeError
from streamlake.core.ids import Ids
from streamlake.core.retry import Backoff
from streamlake.log.manager import LogManager
from streamlake.table.task.control import (
    CatalogAnswer,
    CatalogCall,
    FromServer,
    FromWorker,
    TableCall,
    TableReport,
    TableSpec,
    WorkerSettings,
    encode,
    read_message,
)
from streamlake.telemetry.metric import Metric, Sample, counter

log = structlog.get_logger(__name__)

RESTART_PAUSE_FIRST_S = 0.5
RESTART_PAUSE_MAX_S = 30.0
HEALTHY_AFTER_S = 60.0
STOP_TIMEOUT_S = 10.0
TELL_AGAIN_S = 1.0
FENCED_PAUSE_S = 1.0
TRIAL_TIMEOUT_S = 5.0
TRIAL_RECORDS = 100
OK = 200


class TableWorker:
    def __init__(
        self,
        settings: WorkerSettings,
        topics: Topics,
        configs: BrokerConfigs,
        progress: TableProgress,
        logs: LogManager,
        clock: Clock,
        ids: Ids,
        launch: Callable[[], Awaitable[WorkerProcess]],
    ) -> None:
        self._node = settings.node_id
        self._launch = launch
        self._settings = settings
        self._topics = topics
        self._configs = configs
        self._progress = progress
        self._logs = logs
        self._clock = clock
        self._ids = ids
        self._reports: dict[UUID, TableReport] = {}
        self._stored: dict[UUID, tuple[TopicInfo | None, TableReport]] = {}  # progress that the metadata store has
        self._epochs: dict[UUID, int] = {}  # committer epochs of the tables that are written here
        self._changed = asyncio.Event()
        self._process: WorkerProcess | None = None
        self._stopping = False
        self.requests = WorkerRequests(self._changed.set)
        self.starts = 0
        topics.listeners.append(lambda _change: self._changed.set())
        configs.listeners.append(lambda _keys: self._changed.set())

    def metrics(self) -> Iterable[Metric]:
        def of_each(value: Callable[[TableReport], float]) -> Callable[[], Iterable[Sample]]:
            return lambda: [(value(report), {"topic": report.topic, "table": report.table}) for report in self.reports]

        return (
            counter("streamlake_worker_starts", "Starts of the table worker.", lambda: self.starts),
            Metric("counter", "streamlake_table_rows", "Rows committed to the table since it was created.",
                of_each(lambda r: r.rows)),
            Metric("counter", "streamlake_table_dead_letters",
                "Records written to the dead-letter table since the table was created.",
                of_each(lambda r: r.dead_letters)),
            Metric("counter", "streamlake_table_rest_rows",
                "Rows of plain JSON with values that no column holds, committed by this worker with the column _rest.",
                of_each(lambda r: r.rest_rows)),
            Metric("counter", "streamlake_table_commits", "Snapshots committed to the table by this worker.",
                of_each(lambda r: r.commits)),
            Metric("counter", "streamlake_table_conflicts", "Commits lost to a concurrent writer, and retried.",
                of_each(lambda r: r.conflicts)),
            Metric("gauge", "streamlake_table_lag", "Records of the topic not yet in the table.",
                of_each(lambda r: r.lag)),
            Metric("gauge", "streamlake_table_running", "1 if the table is being written, 0 if it waits or has failed.",
                of_each(lambda r: float(r.state == "running"))),
            Metric("gauge", "streamlake_table_unreadable",
                "1 if files of the current snapshot cannot be read, so that nothing is committed; else 0.",
                of_each(lambda r: float(r.state == "unreadable"))),
            Metric("counter", "streamlake_table_maintenance_failures",
                "Failed runs of table maintenance (merging manifests, deleting unreferenced files).",
                of_each(lambda r: r.maintenance_failures)),
            *self.requests.metrics(),
        )  # fmt: skip

    @property
    def pid(self) -> int | None:
        return None if self._process is None or self._process.returncode is not None else self._process.pid

    @property
    def reports(self) -> list[TableReport]:
        """The latest report of every table that is written here."""
        found = [(self._topics.by_id(r.topic_id), r) for r in self._reports.values()]
        return [report for topic, report in found if topic is not None and self._is_here(topic)]

    async def run(self) -> None:
        """Keep a worker running until `stop`."""
        backoff = Backoff(self._ids, RESTART_PAUSE_FIRST_S, RESTART_PAUSE_MAX_S)
        loop = asyncio.get_running_loop()
        while not self._stopping:
            await self._wait_for_tables()
            started = loop.time()
            try:
                code = await self._run_once()
            except Exception as error:  # whatever is wrong with tables, topics go on
                code = None
                known = isinstance(error, OSError | StreamLakeError)
                log.error("the table worker could not be run", reason=str(error), exc_info=None if known else error)
            if self._stopping:
                return
            if loop.time() - started > HEALTHY_AFTER_S:
                backoff.reset()
            delay_s = backoff.next_delay_s()
            log.warning("the table worker ended; restarting it", exit_code=code, in_s=round(delay_s, 3))
            await asyncio.sleep(delay_s)

    async def stop(self) -> None:
        """End the worker: it finishes the commit that is under way, if that is quick."""
        self._stopping = True
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            process.kill()  # safe: what it has not committed is translated again from the log
            await process.wait()

    async def _wait_for_tables(self) -> None:
        """A server without tables, and whose catalog nobody asks for, needs no worker: its libraries take 166 MB."""
        while not any(map(self._is_ours, self._topics.all())) and not self.requests.waiting:
            self._changed.clear()
            await self._changed.wait()

    def _is_ours(self, topic: TopicInfo) -> bool:
        return topic.is_table and self._is_here(topic)

    def _is_here(self, topic: TopicInfo) -> bool:
        return topic.table_node == self._node

    async def _run_once(self) -> int:
        self._epochs.clear()  # a worker that was killed may have sent a commit that still lands
        process = self._process = await self._launch()
        self.starts += 1
        reader, writer = process.reader, process.writer
        writer.write(encode(self._settings))
        telling = asyncio.get_running_loop().create_task(self._tell(writer))
        self.requests.connected(lambda call: writer.write(encode(_message(call))))
        try:
            while (message := await read_message(reader, FromWorker)) is not None:
                if message.answer is not None:
                    self.requests.answered(message.answer)
                if message.report is not None:
                    await self._keep(message.report)
        finally:
            self.requests.disconnected()
            telling.cancel()
            writer.close()
            if process.returncode is None and not self._stopping:
                process.kill()
            code = await process.wait()
        return code

    async def _tell(self, writer: asyncio.StreamWriter) -> None:
        """The whole set of tables that are written here, now and whenever it may have changed."""
        told: list[TableSpec] | None = None
        while True:
            self._changed.clear()
            try:
                await self._take_epochs()
                progress = await self._progress.load()
            except StreamLakeError as error:
                log.warning("the table worker is not told of a change yet, trying again", reason=str(error))
                await asyncio.sleep(TELL_AGAIN_S)
                continue
            ours = [topic for topic in self._topics.all() if self._is_ours(topic)]
            if any(topic.id not in self._epochs for topic in ours):
                continue  # it has come since
            committed = {p.topic_id for p in progress if p.committed_once}
            # An incarnation that is not the latest does no harm: nothing is stored for it, and the change that began
            # the next one is on its way here.
            incarnations = {p.topic_id: p.incarnation for p in progress}
            tables = [self._spec(t, t.id in committed, self._epochs[t.id], incarnations.get(t.id, 0)) for t in ours]
            if tables != told:
                told = tables
                writer.write(encode(FromServer(tables=tables)))
                try:
                    await writer.drain()
                except ConnectionError:
                    return  # the worker has ended: whoever reads its reports sees that too
            await self._changed.wait()

    async def _take_epochs(self) -> None:
        """Each table that has come here, or come back, is committed to under an epoch above all before."""
        ours = {topic.id for topic in self._topics.all() if self._is_ours(topic)}
        self._epochs = {topic_id: epoch for topic_id, epoch in self._epochs.items() if topic_id in ours}
        if missing := ours - self._epochs.keys():
            epoch = await self._progress.next_committer_epoch()
            self._epochs |= dict.fromkeys(missing, epoch)

    def _spec(self, topic: TopicInfo, committed_once: bool, epoch: int, incarnation: int) -> TableSpec:
        effective = TOPIC_CONFIGS.effective(self._configs.topic_layers(topic.configs))
        configs = {key: value for key, value in effective.items() if key.startswith(PREFIX)}
        return TableSpec(topic.name, topic.id, len(topic.partitions), configs, committed_once, epoch, incarnation)

    def _catalog(self, topic: TopicInfo) -> str:
        return topic.configs.get(PREFIX + "catalog", "") or self._settings.default_catalog

    async def _keep(self, report: TableReport) -> None:
        before = self._reports.get(report.topic_id)
        if before is None or (before.state, before.message) != (report.state, report.message):
            told = log.info if report.state in ("starting", "running") else log.warning
            why = {"reason": report.message} if report.message else {}
            told("table", topic=report.topic, table=report.table, state=report.state, **why)
        if report.state == "fenced":
            # Another broker was told to write this table. If it is ours after all, our image was behind, or its: then
            # we go on under a new epoch.
            self._epochs.pop(report.topic_id, None)
            asyncio.get_running_loop().call_later(FENCED_PAUSE_S, self._changed.set)
        topic = self._topics.by_id(report.topic_id)
        has_progress = bool(report.hold or any(report.positions))
        is_stored = has_progress and (self._is_stored(report) or await self._store(report))
        # Shown only now: a config that a table with rows may not have is refused as soon as its rows are seen.
        if self._topics.by_id(report.topic_id) is not None:
            self._reports[report.topic_id] = report
        if not is_stored or topic is None or not topic.is_table:
            return
        # A change of the topic while the progress was stored may have begun another incarnation, whose holds are lower.
        # The next report moves the holds if it has not.
        if topic is not self._topics.by_id(report.topic_id):
            return
        for index, hold in enumerate(report.hold):
            partition = self._logs.get(report.topic_id, index)
            if partition is not None:
                partition.hold(TABLE_HOLD, hold)

    def _has_left(self, report: TableReport) -> bool:
        """The report is of a table in a catalog that its topic has left."""
        topic = self._topics.by_id(report.topic_id)
        return topic is not None and report.catalog != self._catalog(topic)

    async def _store(self, report: TableReport) -> bool:
        topic = self._topics.by_id(report.topic_id)
        # A partition that no load of the table has shown yet has no hold in the report: 0 moves nothing.
        pairs = zip_longest(report.positions, report.hold, fillvalue=0)
        moved = {index: Reported(committed, hold) for index, (committed, hold) in enumerate(pairs)}
        try:
            # Durable before retention may pass: after a crash the old hold, which is lower, is in force again.
            is_stored = await self._progress.advance(
                report.topic_id, report.incarnation, moved, report.committed_once, self._clock.now_ms()
            )
        except StreamLakeError as error:
            log.warning("a table's progress was not stored; the next report has it too", reason=str(error))
            return False
        if is_stored:
            self._stored[report.topic_id] = topic, report
        return is_stored

    def _is_stored(self, report: TableReport) -> bool:
        """A table without new records reports the same progress several times a second: to store it once is enough.

        Not across a change of the topic: another incarnation of its table begins without progress. So the very object
        counts that the topic was before its progress was stored, not one that looks like it."""
        topic, stored = self._stored.get(report.topic_id, (None, report))
        return (
            topic is not None
            and topic is self._topics.by_id(report.topic_id)
            and (report.incarnation, report.positions, report.hold, report.committed_once)
            == (stored.incarnation, stored.positions, stored.hold, stored.committed_once)
        )

    async def ask(self, topic: str, action: str, arguments: Mapping[str, str]) -> CatalogAnswer:
        """About the table of a topic: `action` is one of TableCall. Raises NotFound, Conflict (another broker writes
        it), Unavailable, Full and OutcomeUnknown."""
        found = self._topics.get(topic)
        if found is None:
            raise NotFound(f"there is no topic {topic}")
        if not found.is_table:
            raise NotFound(f"topic {topic} is no table topic: set its config {PREFIX}enable=true")
        if not self._is_here(found):
            raise Conflict(f"broker {found.table_node} writes the table of {topic}: ask that one")
        call = TableCall(0, self._spec(found, False, 0, 0), action, dict(arguments))  # type: ignore[arg-type]
        return await self.requests.ask(call)

    async def plan(self, topic: str, configs: Mapping[str, str], sample: int) -> CatalogAnswer:
        """What the table of a topic would be, table topic or not, if it had these configs too. Raises NotFound, Invalid
        for configs that cannot be, and what `ask` raises."""
        found = self._topics.get(topic)
        if found is None:
            raise NotFound(f"there is no topic {topic}")
        if not self._is_here(found):
            raise Conflict(f"broker {found.table_node} would write the table of {topic}: ask that one")
        changed = check_topic_configs({**found.configs, PREFIX + "enable": "true", **configs})
        spec = self._spec(TopicInfo(found.name, found.id, changed, found.partitions), False, 0, 0)
        return await self.requests.ask(TableCall(0, spec, "plan", {"sample": str(sample)}))

    async def problems(self, topic: str, configs: Mapping[str, str]) -> list[str]:
        """What would keep the table of a topic from being with these configs, if that can be told quickly: the worker
        runs, and answers. If not, the status of the table will tell it."""
        if not self.requests.is_connected:
            return []
        try:
            async with asyncio.timeout(TRIAL_TIMEOUT_S):
                answer = await self.plan(topic, configs, TRIAL_RECORDS)
        except (StreamLakeError, TimeoutError):
            return []
        return list(msgspec.json.decode(answer.body)["problems"]) if answer.status == OK else []

    def describe(self) -> list[dict[str, Any]]:
        """All table topics for `/v1/tables`, JSON-ready, whether their worker has spoken yet or not."""
        return [self._describe(topic) for topic in self._topics.all() if topic.is_table]

    def _describe(self, topic: TopicInfo) -> dict[str, Any]:
        report, spec = self._reports.get(topic.id), self._spec(topic, False, 0, 0)
        namespace = spec.configs[PREFIX + "namespace"]
        if report is None or self._has_left(report):
            table = f"{namespace}.{spec.configs[PREFIX + 'name'] or topic.name}"
            report = TableReport(topic.name, topic.id, table, "starting")
        if not self._is_here(topic):
            message = f"broker {topic.table_node} writes this table: ask that one"
            report = replace(report, state="elsewhere", message=message)
        partitions = []
        for info in topic.partitions:
            partition = self._logs.get(topic.id, info.index)
            start, end = (partition.log_start_offset, partition.last_stable_offset) if partition else (0, 0)
            done = report.positions[info.index] if info.index < len(report.positions) else None
            partitions.append(
                {
                    "partition": info.index,
                    "log_start": start,
                    "log_end": end,
                    "in_table": done,
                    "lag": end - max(done or 0, start),
                }
            )
        commit = report.last_commit_ms
        dead = {"table": report.dead_letter_table, "metadata_location": report.dead_letter_metadata_location}
        return {
            "topic": topic.name,
            "topic_id": str(topic.id),
            "catalog": self._catalog(topic),
            "table": report.table,
            "namespace": namespace,  # where to cut `table`: both parts may hold dots
            "state": report.state,
            "message": report.message,
            "rows": report.rows,
            "dead_letters": report.dead_letters,
            "dead_letter_reasons": report.dead_letter_reasons,
            "waiting_for": report.waiting_for,
            "redrive": None if report.redrive is None else asdict(report.redrive),
            "skipped": report.skipped,
            "rest_rows": report.rest_rows,
            "lag": sum(int(p["lag"] or 0) for p in partitions),
            "maintenance": report.maintenance,
            "commits": report.commits,
            "last_commit": None if commit is None else datetime.fromtimestamp(commit / 1000, UTC).isoformat(),
            "metadata_location": report.metadata_location,
            "dead_letter_table": dead if report.dead_letter_table else None,
            "partitions": partitions,
        }


def _message(call: CatalogCall | TableCall) -> FromServer:
    return FromServer(call=call) if isinstance(call, CatalogCall) else FromServer(table_call=call)
