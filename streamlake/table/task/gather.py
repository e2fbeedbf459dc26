"""Fills a round from the log: all partitions of one topic, in turns, up to their last stable offsets.

A round is full when enough bytes are pending or the memory budget is used up: then it is committed at once, so a
table never waits for memory while it holds some. Partitions take turns, one fetch each, and the next round goes on
with the partition after the last one, so a long backlog in one does not starve the others.
"""

import asyncio

from streamlake.core.budget import Budget
from streamlake.core.tasks import Executor
from streamlake.record.arrow import DecodedRecords, decode_fetched
from streamlake.record.compression import DECOMPRESSED_BYTES_MAX
from streamlake.table.commit.progress import Progress
from streamlake.table.task.control import TableSpec
from streamlake.table.task.log_reader import LogReader
from streamlake.table.task.round import Round

ACCOUNT = "tables"
FETCH_BYTES = 4 << 20
POLL_S = 1.0
MEMORY_TIMEOUT_S = 30.0


class Gatherer:
    def __init__(
        self, spec: TableSpec, reader: LogReader, executor: Executor, budget: Budget, round_bytes: int
    ) -> None:
        self._ends: dict[int, int] = {}
        self._spec = spec
        self._reader = reader
        self._executor = executor
        self._budget = budget
        self._round_bytes = round_bytes
        self._turn = 0

    async def gather(self, start: Progress, due: float, idle_until: float = 0.0) -> Round:
        """Everything from `start` on, until `due` (loop time) or until the round is full. While there are no records,
        until `idle_until`: the first records after an idle time end the round at once. The caller returns its memory
        with `release`. Raises Invalid, NotFound, Unavailable, Corrupt."""
        filling = Round(start)
        loop = asyncio.get_running_loop()
        try:
            while not await self._read(filling):
                left_s = (due if filling.has_progress else max(due, idle_until)) - loop.time()
                if left_s <= 0:
                    break
                await asyncio.sleep(min(POLL_S, left_s))
        except BaseException:
            self.release(filling)
            raise
        return filling

    def lag(self, progress: Progress) -> int:
        """Positions beyond `progress` that could be read at the last look."""
        return sum(max(0, end - progress.position(p)) for p, end in self._ends.items())

    def release(self, done: Round) -> None:
        self._budget.give(ACCOUNT, done.size_bytes)
        done.size_bytes = 0

    async def _read(self, filling: Round) -> bool:
        """Read the available records. True if the round is full."""
        wanted = range(max(self._spec.partitions, len(filling.start.next)))
        found = await self._reader.positions(self._spec.topic, self._spec.topic_id, wanted)
        ends: dict[int, int] = {}
        for partition, log in sorted(found.items()):
            filling.check_log(partition, log.log_start_offset, log.last_stable_offset)
            ends[partition] = log.last_stable_offset
        self._ends = ends
        waiting = [p for p, end in sorted(ends.items()) if filling.position(p) < end]
        while waiting:
            waiting.sort(key=lambda p: (p - self._turn) % len(wanted))
            for partition in list(waiting):
                before = filling.position(partition)
                if not await self._fetch(filling, partition):
                    return True
                self._turn = partition + 1
                now = filling.position(partition)
                if now == before or now >= ends[partition]:
                    waiting.remove(partition)
        return filling.size_bytes >= self._round_bytes

    async def _fetch(self, filling: Round, partition: int) -> bool:
        """Add one fetch. False if the round has no capacity for it."""
        position = filling.position(partition)
        capacity = self._round_bytes - filling.size_bytes
        if capacity <= 0:
            return False
        fetched = await self._reader.fetch(
            self._spec.topic, self._spec.topic_id, partition, position, min(FETCH_BYTES, capacity)
        )
        if not len(fetched.data):
            filling.check_log(partition, fetched.log_start_offset, fetched.last_stable_offset)
            return True
        decoded: DecodedRecords = await self._executor.run(
            decode_fetched, fetched.data, position, fetched.aborted, DECOMPRESSED_BYTES_MAX
        )
        size_bytes = decoded.table.nbytes + sum(len(batch.raw) for batch in decoded.bad_batches)
        # It is in memory already. A fetch larger than the whole budget (a small batch may decode to hundreds of MiB)
        # takes all of the budget, and the table goes on.
        size_bytes = min(size_bytes, self._budget.total_bytes)
        if not await self._take(filling, size_bytes):
            return False
        filling.add(partition, decoded, size_bytes)
        return True

    async def _take(self, filling: Round, size_bytes: int) -> bool:
        """Memory for a fetch. A round that holds some already does not wait for more: it is committed."""
        if self._budget.try_take(ACCOUNT, size_bytes):
            return True
        if filling.size_bytes:
            return False
        await self._budget.take(ACCOUNT, size_bytes, MEMORY_TIMEOUT_S)
        return True
