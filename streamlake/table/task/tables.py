"""The tables of a worker: one supervised task for each topic that is a table.

`apply` takes the whole wanted set, as the server sends it. A table whose spec changed is stopped, which waits for a
commit in flight, and started anew, so one topic never has two committers here. Two topics cannot feed one table, not
even if it is the dead-letter table of one: the second is refused with an error.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from streamlake.cluster.config.table import TableSettings
from streamlake.core.errors import Invalid
from streamlake.core.tasks import Supervisor
from streamlake.table.task import dead_letters
from streamlake.table.task.control import TableReport, TableSpec
from streamlake.table.task.task import TableTask, Work


@dataclass(frozen=True, slots=True)
class Running:
    spec: TableSpec
    settings: TableSettings
    supervisor: Supervisor


class Tables:
    """`on_failure` is called with (name, error) when a task dies of a bug: the composition root stops the process."""

    def __init__(self, work: Work, on_failure: Callable[[str, BaseException], None] | None = None) -> None:
        self.tasks: dict[UUID, TableTask] = {}
        self._running: dict[UUID, Running] = {}
        self._work = work
        self._on_failure = on_failure
        self._lock = asyncio.Lock()

    async def apply(self, specs: Sequence[TableSpec]) -> None:
        """Run these tables and no others. Returns when the tables that must stop have stopped."""
        async with self._lock:
            wanted = {spec.topic_id: spec for spec in specs}
            settings = {id: found for id, spec in wanted.items() if (found := self._settings(spec))}
            stale = [id for id, r in self._running.items() if not _same(r, wanted.get(id), settings.get(id))]
            await asyncio.gather(*(self._stop(id) for id in stale))
            taken = {name: r.spec.topic for r in self._running.values() for name in _names(r.spec, r.settings)}
            for id, found in settings.items():
                if id in self._running:
                    continue
                spec, names = wanted[id], _names(wanted[id], found)
                if name := next((name for name in names if name in taken), None):
                    fed = f"topic {taken[name]} feeds table {'.'.join(name)} already"
                    message = f"{fed}: set streamlake.table.name of one of them"
                    self._refuse(spec, ".".join(names[0]), message)
                    continue
                taken.update(dict.fromkeys(names, spec.topic))
                self._start(spec, found)

    async def close(self) -> None:
        """Stop all, after their commits in flight."""
        async with self._lock:
            await asyncio.gather(*(self._stop(id) for id in list(self._running)))

    def feeding(self) -> dict[tuple[str, str], TableTask]:
        """The tasks by the (namespace, name) of both their tables."""
        running = self._running.items()
        return {name: self.tasks[id] for id, r in running for name in _names(r.spec, r.settings)}

    def _settings(self, spec: TableSpec) -> TableSettings | None:
        try:
            return TableSettings.from_configs(spec.configs)
        except Invalid as error:
            self._refuse(spec, spec.topic, str(error))
            return None

    def _refuse(self, spec: TableSpec, table: str, message: str) -> None:
        self._work.report(TableReport(spec.topic, spec.topic_id, table, "failed", message))

    def _start(self, spec: TableSpec, settings: TableSettings) -> None:
        task = TableTask(spec, settings, self._work)
        supervisor = Supervisor(self._on_failure)
        supervisor.start(f"table {spec.topic}", task.run())
        self.tasks[spec.topic_id] = task
        self._running[spec.topic_id] = Running(spec, settings, supervisor)

    async def _stop(self, topic_id: UUID) -> None:
        await self._running[topic_id].supervisor.stop()
        del self._running[topic_id], self.tasks[topic_id]


def _names(spec: TableSpec, settings: TableSettings) -> list[tuple[str, str]]:
    """Its table and its dead-letter table."""
    name = settings.name or spec.topic
    return [(settings.namespace, name), (settings.namespace, name + dead_letters.SUFFIX)]


def _same(running: Running, spec: TableSpec | None, settings: TableSettings | None) -> bool:
    """Whether a running table may go on as it is; that it has committed meanwhile is no change."""
    return (
        spec is not None
        and settings == running.settings
        and (spec.topic, spec.partitions, spec.committer_epoch)
        == (running.spec.topic, running.spec.partitions, running.spec.committer_epoch)
    )
