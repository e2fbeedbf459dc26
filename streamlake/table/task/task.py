"""One topic → one table, round by round, until stopped.

    open → gather (fetch, decode) → commit (translate, dead letters, main table) → report → gather → …

A round ends one commit interval after the last one that committed began, or earlier when enough is pending: the first
records after an idle time are committed at once, during a backlog rounds follow each other, and a reader of the table
may ask for a round at once (flush.py). Nothing of a round
outlives an error: the task drops it, opens the tables again and reads from their positions, so a retry and a restart
are the same thing. Errors of a dependency are retried (`retrying`); an error that needs a person stops this table alone
(`failed`) and is looked at again every minute, files of the table that are gone (`unreadable`) twice a minute; a newer
committer ends it (`fenced`).
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog

from streamlake.cluster.config.table import TableSettings
from streamlake.core.budget import Budget
from streamlake.core.errors import Conflict, Fenced, Invalid, Unavailable, describe
from streamlake.core.retry import TRANSIENT
from streamlake.table.commit.health import Unreadable
from streamlake.table.commit.machine import Owner, table_backoff
from streamlake.table.commit.progress import DEAD_LETTER
from streamlake.table.commit.tools import Tools
from streamlake.table.formats.converted import MESSAGE_CHARS_MAX
from streamlake.table.task.control import TableReport, TableSpec
from streamlake.table.task.dead_letter_summary import dead_letter_summary
from streamlake.table.task.gather import Gatherer
from streamlake.table.task.log_reader import LogReader
from streamlake.table.task.redrive import Order
from streamlake.table.task.redriving import Redriving
from streamlake.table.task.topic_table import TopicTable
from streamlake.table.upkeep.schedule import Upkeep

FAILED_RETRY_S = 60.0
ROUND_S_MIN = 0.1  # an interval of 1 ms must not become a busy loop

logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Work:
    """What all tasks of a worker share, and where their reports go."""

    cluster_id: str
    reader: LogReader
    budget: Budget
    report: Callable[[TableReport], None]
    round_bytes: int  # a round with so much pending is committed early


class TableTask:
    def __init__(self, spec: TableSpec, settings: TableSettings, work: Work, catalog: str, tools: Tools) -> None:
        """`tools` are those of the catalog of this name."""
        owner = Owner(work.cluster_id, spec.topic, str(spec.topic_id), spec.committer_epoch)
        self.spec = spec
        self.catalog = catalog
        self.state = "starting"
        self.message = ""
        self.table = TopicTable(settings, owner, spec.committed_once, tools)
        self._gatherer = Gatherer(spec, work.reader, tools.executor, work.budget, work.round_bytes)
        self._redriving = Redriving(self.table, tools.executor, work.budget)
        self._upkeep = [Upkeep(c, tools) for c in (self.table.main, self.table.dead_letters)]
        self._interval_s = max(settings.commit_interval_ms / 1000, ROUND_S_MIN)
        self._backoff = table_backoff(tools.ids)
        self._executor = tools.executor
        self._clock = tools.clock
        self._schemas = tools.schemas
        self._duration_ms: int | None = None
        self._report = work.report

    async def run(self) -> None:
        """Until cancelled, or fenced."""
        while True:
            try:
                try:
                    await self._live()
                finally:
                    self._gatherer.flush.done()  # readers go on with what there is
            except Conflict as error:
                logger.info("table changed, reloading", table=self.table.main.handle.name, reason=str(error))
                await self._backoff.pause()
            except Fenced as error:
                self._set("fenced", str(error))
                return
            except Unreadable as error:
                self._set("unreadable", str(error))
                await self._backoff.pause()
            except Invalid as error:
                self._set("failed", str(error))
                await asyncio.sleep(FAILED_RETRY_S)
            except TRANSIENT as error:  # a partition that has moved, a store that is away
                self._set("retrying", str(error))
                await self._backoff.pause()
            except Exception as error:  # whatever a catalog, store or registry raises: wait and start over
                self._set("retrying", describe(error), error)
                await self._backoff.pause()

    async def refresh(self) -> None:
        """For a reader of the table: commit what is durable now. Returns soon, whatever comes of it.

        Not if that would create the table: DuckDB 1.5 ends in an internal error if a table that it loads is younger
        than its transaction. The first record makes the table soon, whether somebody reads or not."""
        if self.state in ("starting", "running") and self.table.main.table is not None:
            await self._gatherer.flush.ask()

    async def redrive(self, order: Order) -> None:
        """Returns when the order is durable. Raises Conflict, Unavailable (try again later), OutcomeUnknown."""
        opened = self.table.dead_letters.table is not None
        if self.state not in ("running", "starting") or (self.state == "starting" and not opened):
            raise Unavailable(
                f"table {self.table.main.handle.name} is {self.state}: {self.message or 'try again soon'}"
            )
        if not opened:
            raise Conflict("there is no dead-letter table, as streamlake.table.errors.tolerance is none")
        dated = msgspec.structs.replace(order, asked_ms=self._clock.now_ms())
        asking = asyncio.ensure_future(self._redriving.ask(dated))
        await self._gatherer.flush.ask()  # an idle table would look at the order only after its commit interval
        await asking

    async def dead_letters(self, examples: int) -> dict[str, Any]:
        """What the dead-letter table has, by reason, JSON-ready; so many `examples` of each reason. Raises Unavailable,
        and whatever a store raises."""
        committer = self.table.dead_letters
        if committer.table is None:
            raise Unavailable(f"there is no table {committer.handle.name}: the table is {self.state}, {self.message}")
        return await self._executor.run(dead_letter_summary, committer.table, self._schemas, examples)

    def pause_refresh(self) -> None:
        """Somebody else commits to the table: leave it time."""
        self._gatherer.flush.pause()

    async def _live(self) -> None:
        """Open the tables and run rounds until the first error, which is raised."""
        now = asyncio.get_running_loop().time
        await self.table.open()
        self._redriving.opened()
        due = now()
        while True:
            if self._redriving.is_active and now() < due:
                await self._redrive_step()
                continue
            idle_until = now() if self._redriving.is_active else now() + self._interval_s
            gathered = await self._gatherer.gather(self.table.reached, due, idle_until)
            began = now()
            try:
                for committer in (self.table.main, self.table.dead_letters):
                    await committer.look()
                committed = await self.table.commit(gathered) if gathered.has_progress else False
            finally:
                self._gatherer.release(gathered)
            if committed:
                self._gatherer.flush.committed()
                self._duration_ms = round((now() - began) * 1000)
                due = began + self._interval_s
            else:
                await self.table.confirm()
            self._backoff.reset()
            self._set("running", self.table.note)
            if gathered.caught_up:
                self._gatherer.flush.done()
            failing = self._maintenance()
            for upkeep in self._upkeep:
                await upkeep.run()
            if self._maintenance() != failing:
                self._report(self.report())
            await self._redrive_step()

    async def _redrive_step(self) -> None:
        if self._redriving.is_active:
            await self._redriving.step()
            self._report(self.report())

    def _set(self, state: str, message: str, error: BaseException | None = None) -> None:
        message = message[:MESSAGE_CHARS_MAX]  # a report is one line of limited length
        if (state, message) != (self.state, self.message) and message:
            logger.warning("table " + state, table=self.table.main.handle.name, reason=message, exc_info=error)
        self.state, self.message = state, message
        self._report(self.report())

    def _maintenance(self) -> str:
        return "; ".join(upkeep.failing for upkeep in self._upkeep if upkeep.failing)

    def report(self) -> TableReport:
        main, dead_letters = self.table.main, self.table.dead_letters
        held = self.table.held
        return TableReport(
            topic=self.spec.topic,
            topic_id=self.spec.topic_id,
            table=main.handle.name,
            state=self.state,
            message=self.message,
            catalog=self.catalog,
            incarnation=self.spec.incarnation,
            positions=held.next,
            hold=self.table.seen.next,
            committed_once=main.committed_once,
            rows=held.rows,
            skipped=held.skipped,
            dead_letters=held.skipped.get(DEAD_LETTER, 0),
            rest_rows=self.table.rest_rows,
            lag=self._gatherer.lag(held),
            commits=main.commits,
            conflicts=main.conflicts + dead_letters.conflicts,
            maintenance=self._maintenance(),
            maintenance_failures=sum(upkeep.failures for upkeep in self._upkeep),
            last_commit_ms=self.table.last_commit_ms,
            last_commit_duration_ms=self._duration_ms,
            metadata_location=main.table.metadata_location if main.table else None,
            dead_letter_table=dead_letters.handle.name if dead_letters.table else None,
            dead_letter_metadata_location=dead_letters.table.metadata_location if dead_letters.table else None,
            dead_letter_reasons=dict(self.table.dead_reasons),
            waiting_for=self.table.waiting_for if self.state == "running" else "",
            redrive=self._redriving.report,
        )
