"""The tables of a worker: one supervised task for each topic that is a table.

`apply` takes the whole wanted set, as the server sends it. A table whose spec changed is stopped, which waits for a
commit in flight, and started anew, so one topic never has two committers here. Two topics cannot feed one table, not
even if it is the dead-letter table of one: the second is refused with an error.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from streamlake.catalogs.kinds import KINDS
from streamlake.cluster.config.table import TableSettings
from streamlake.core.errors import Invalid, Unavailable
from streamlake.core.tasks import Supervisor
from streamlake.table.commit.tools import Tools
from streamlake.table.formats.converted import MESSAGE_CHARS_MAX
from streamlake.table.task.catalogs import Catalogs
from streamlake.table.task.control import TableReport, TableSpec
from streamlake.table.task.names import TableName, check_apart, check_possible
from streamlake.table.task.plan import plan, read_sample
from streamlake.table.task.task import FAILED_RETRY_S, TableTask, Work

CATALOG_PAUSE_S = 2.0


@dataclass(frozen=True, slots=True)
class Running:
    spec: TableSpec
    settings: TableSettings
    keys: tuple[TableName, ...]
    supervisor: Supervisor


class Fed(NamedTuple):
    """`task`: of the topic's table; None while its catalog is not open."""

    topic: str
    task: TableTask | None


class Tables:
    """`on_failure` is called with (name, error) when a task dies of a bug: the composition root stops the process."""

    def __init__(
        self, work: Work, catalogs: Catalogs, on_failure: Callable[[str, BaseException], None] | None = None
    ) -> None:
        self.tasks: dict[UUID, TableTask] = {}
        self._running: dict[UUID, Running] = {}
        self._work = work
        self._catalogs = catalogs
        self._on_failure = on_failure
        self._lock = asyncio.Lock()

    async def apply(self, specs: Sequence[TableSpec]) -> None:
        """Run these tables and no others. Returns when the tables that must stop have stopped."""
        async with self._lock:
            wanted = {spec.topic_id: spec for spec in specs}
            settings = {id: found for id, spec in wanted.items() if (found := self._settings(spec))}
            stale = [id for id, r in self._running.items() if not _same(r, wanted.get(id), settings.get(id))]
            await asyncio.gather(*(self._stop(id) for id in stale))
            taken = {key: r.spec.topic for r in self._running.values() for key in r.keys}
            for id, found in settings.items():
                if id not in self._running:
                    self._start_unless_refused(wanted[id], found, taken)

    async def close(self) -> None:
        """Stop all, after their commits in flight."""
        async with self._lock:
            await asyncio.gather(*(self._stop(id) for id in list(self._running)))

    async def plan(self, spec: TableSpec, most: int) -> dict[str, Any]:
        """What the table of a topic would be, by the newest `most` records, JSON-ready; see plan.py. Raises
        Unavailable, and whatever a catalog raises that does not answer."""
        settings = TableSettings.from_configs(spec.configs)
        table = TableName(self._catalogs.name(settings.catalog), settings.namespace, settings.name or spec.topic)
        kind = self._catalogs.kind(table.catalog)
        capabilities = KINDS[kind].capabilities
        check_possible(spec.topic, table, kind, capabilities)
        others = (running for id, running in self._running.items() if id != spec.topic_id)
        taken = {key: running.spec.topic for running in others for key in running.keys}
        check_apart(spec.topic, table.keys(capabilities), taken, capabilities.folds_case)
        tools = await self._catalogs.tools(table.catalog)
        sample = await read_sample(spec, self._work.reader, tools.executor, most)
        return await plan(spec, settings, table, kind, tools, sample)

    def feeding(self, catalog: str) -> dict[tuple[str, str], Fed]:
        """Of the tables that topics feed in this catalog: by namespace and name, as the catalog knows them."""
        return {
            (key.namespace, key.name): Fed(running.spec.topic, self.tasks.get(id))
            for id, running in self._running.items()
            for key in running.keys
            if key.catalog == catalog
        }

    def _settings(self, spec: TableSpec) -> TableSettings | None:
        try:
            return TableSettings.from_configs(spec.configs)
        except Invalid as error:
            self._work.report(TableReport(spec.topic, spec.topic_id, spec.topic, "failed", str(error)))
            return None

    def _report(self, spec: TableSpec, table: TableName, state: str, message: str) -> None:
        message = message[:MESSAGE_CHARS_MAX]
        self._work.report(TableReport(spec.topic, spec.topic_id, str(table), state, message, catalog=table.catalog))

    def _start_unless_refused(self, spec: TableSpec, settings: TableSettings, taken: dict[TableName, str]) -> None:
        table = TableName(self._catalogs.name(settings.catalog), settings.namespace, settings.name or spec.topic)
        try:
            kind = self._catalogs.kind(table.catalog)
            capabilities = KINDS[kind].capabilities
            check_possible(spec.topic, table, kind, capabilities)
            keys = table.keys(capabilities)
            check_apart(spec.topic, keys, taken, capabilities.folds_case)
        except Invalid as error:
            self._report(spec, table, "failed", str(error))
            return
        taken.update(dict.fromkeys(keys, spec.topic))
        supervisor = Supervisor(self._on_failure)
        supervisor.start(f"table {spec.topic}", self._run(spec, settings, table))
        self._running[spec.topic_id] = Running(spec, settings, keys, supervisor)

    async def _run(self, spec: TableSpec, settings: TableSettings, table: TableName) -> None:
        """Until cancelled, or fenced."""
        tools = await self._opened(spec, table)
        task = self.tasks[spec.topic_id] = TableTask(spec, settings, self._work, table.catalog, tools)
        await task.run()

    async def _opened(self, spec: TableSpec, table: TableName) -> Tools:
        """While the catalog cannot be reached, its tables report so and wait; topics and other tables go on."""
        while True:
            try:
                return await self._catalogs.tools(table.catalog)
            except Invalid as error:
                self._report(spec, table, "failed", str(error))
                await asyncio.sleep(FAILED_RETRY_S)
            except Unavailable as error:
                self._report(spec, table, "retrying", f"the catalog {table.catalog} cannot be opened: {error}")
                await asyncio.sleep(CATALOG_PAUSE_S)

    async def _stop(self, topic_id: UUID) -> None:
        await self._running[topic_id].supervisor.stop()
        del self._running[topic_id]
        self.tasks.pop(topic_id, None)  # there is none while its catalog is not open


def _same(running: Running, spec: TableSpec | None, settings: TableSettings | None) -> bool:
    """Whether a running table may go on as it is; that it has committed meanwhile is no change."""
    return (
        spec is not None
        and settings == running.settings
        and (spec.topic, spec.partitions, spec.committer_epoch, spec.incarnation)
        == (running.spec.topic, running.spec.partitions, running.spec.committer_epoch, running.spec.incarnation)
    )
