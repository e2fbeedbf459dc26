"""The schedule of a table's maintenance, which runs between rounds. Its errors stop no rows: they are reported, and the
job is retried with growing delays."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table

from streamlake.core.errors import describe
from streamlake.table.commit.committer import Committer
from streamlake.table.commit.tools import Tools
from streamlake.table.upkeep.maintenance import Maintenance

SWEEP_S = 60.0
ORPHANS_S = 24 * 3600.0
ORPHANS_FIRST_S = 600.0  # not at the start, when a thousand tables open at once
RETRY_FIRST_S = 10.0
RETRY_MAX_S = 3600.0

logger = structlog.get_logger(__name__)


@dataclass(slots=True)
class Job:
    """One kind of maintenance: how often it is done, when next, how often in a row it failed and since when."""

    name: str
    work: Callable[[], Awaitable[None]]
    interval_s: float
    next_at: float
    failures: int = 0
    since: str = ""
    reason: str = ""


class Upkeep:
    """`failing`: which job fails since when and why; empty if none does."""

    def __init__(self, committer: Committer, tools: Tools) -> None:
        self.maintenance = Maintenance(committer, tools.clock)
        self.failures = 0
        self._committer = committer
        self._clock = tools.clock
        now = asyncio.get_running_loop().time()
        first_orphans = now + ORPHANS_FIRST_S * tools.ids.random.uniform(1, 2)
        self._jobs = (
            Job("merging manifests", self._merge, 0.0, now),
            Job("removing old files", self._sweep, SWEEP_S, now + SWEEP_S),
            Job("removing orphans", self._remove_orphans, ORPHANS_S, first_orphans),
        )
        self._merged_at: int | None = None  # the snapshot that was looked at last

    @property
    def failing(self) -> str:
        table = self._committer.handle.name
        return "; ".join(
            f"{job.name} of {table} fails since {job.since}: {job.reason}" for job in self._jobs if job.failures
        )

    async def run(self) -> None:
        table = self._committer.table
        if table is None:
            return
        self.maintenance.observe(table)
        for job in self._jobs:
            if asyncio.get_running_loop().time() >= job.next_at:
                await self._do(job)

    async def _do(self, job: Job) -> None:
        delay_s = job.interval_s
        try:
            await job.work()
            job.failures = 0
        except CommitFailedException as error:  # another commit was faster: no failure
            logger.info(
                "table maintenance lost to a concurrent commit",
                table=self._committer.handle.name,
                reason=describe(error),
            )
        except Exception as error:  # whatever a catalog or a store raises
            job.reason = describe(error)
            if isinstance(error, FileNotFoundError):
                self._committer.health.doubt()
            if job.failures == 0:
                job.since = datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC).isoformat(timespec="seconds")
                name = self._committer.handle.name
                logger.warning("table maintenance failed", table=name, job=job.name, reason=job.reason)
            delay_s = min(RETRY_FIRST_S * 2.0 ** min(job.failures, 16), RETRY_MAX_S)
            job.failures += 1
            self.failures += 1
        job.next_at = asyncio.get_running_loop().time() + delay_s

    async def _merge(self) -> None:
        table = self._committer.table
        assert table is not None
        head = table.metadata.current_snapshot()
        if head is None or head.snapshot_id == self._merged_at or not self._committer.claimed:
            return
        try:
            merged = await self.maintenance.merge()
        except CommitFailedException:  # each try puts files: wait for another head
            self._merged_at = head.snapshot_id
            raise
        if merged:
            self.maintenance.observe(merged)
        self._merged_at = head.snapshot_id

    async def _sweep(self) -> None:
        if self.maintenance.due and (table := await self._reload()):
            await self.maintenance.sweep(table)

    async def _remove_orphans(self) -> None:
        if table := await self._reload():
            await self.maintenance.remove_orphans(table)

    async def _reload(self) -> Table | None:
        """As the catalog has it now: another engine may have expired snapshots that our copy still retains. Not loaded
        through the committer, whose next round continues from what it has observed."""
        return await self._committer.handle.load()
