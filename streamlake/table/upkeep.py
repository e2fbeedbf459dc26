"""When a table gets which maintenance: between rounds, never in one. Errors are logged and forgotten: nothing depends
on it, and the next time does what this one left."""

import asyncio

import structlog

from streamlake.table.committer import Committer, describe
from streamlake.table.maintenance import Maintenance
from streamlake.table.topic_table import Tools

SWEEP_S = 60.0
ORPHANS_S = 24 * 3600.0
ORPHANS_FIRST_S = 600.0  # not at the start, when a thousand tables open at once

logger = structlog.get_logger(__name__)


class Upkeep:
    def __init__(self, committer: Committer, tools: Tools) -> None:
        self.maintenance = Maintenance(committer.door, tools.clock)
        self._committer = committer
        now = asyncio.get_running_loop().time()
        self._next_sweep = now + SWEEP_S
        self._next_orphans = now + ORPHANS_FIRST_S * tools.ids.random.uniform(1, 2)
        self._merged_at: int | None = None  # the snapshot that was looked at last

    async def run(self) -> None:
        committer = self._committer
        if committer.table is None:
            return
        try:
            await self._merge()
            self.maintenance.observe(committer.table)
            now = asyncio.get_running_loop().time()
            if now >= self._next_sweep:
                self._next_sweep = now + SWEEP_S
                await self.maintenance.sweep(committer.table)
            if now >= self._next_orphans:
                self._next_orphans = now + ORPHANS_S
                await self.maintenance.remove_orphans(committer.table)
        except Exception as error:
            logger.info("table maintenance failed", table=committer.door.name, reason=describe(error))

    async def _merge(self) -> None:
        table = self._committer.table
        assert table is not None
        head = table.metadata.current_snapshot()
        if head is None or head.snapshot_id == self._merged_at or not self._committer.claimed:
            return
        self._merged_at = head.snapshot_id
        self.maintenance.observe(table)
        if merged := await self.maintenance.merge(table, self._committer.progress):
            self._committer.table = merged
