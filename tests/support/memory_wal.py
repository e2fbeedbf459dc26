"""A write-ahead log in memory whose durability the test controls, and which loses what was not durable at a crash.

`WalLog` is what lies on the medium and survives; `MemoryWal` is one process's use of it. With `manual` nothing becomes
durable before `sync()`; otherwise the next tick of the loop does it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from random import Random

from streamlake.core.budget import Budget
from streamlake.core.errors import Closed, Full, NotFound, Unavailable
from streamlake.s3stream.wal.port import WalRecord


class WalLog:
    def __init__(self) -> None:
        self.records: dict[int, WalRecord] = {}
        self.last_position = 0
        self.trimmed = 0


class MemoryWal:
    def __init__(self, log: WalLog, capacity_bytes: int = 1 << 30, *, manual: bool = False) -> None:
        self.log = log
        self.manual = manual
        self.capacity = Budget(capacity_bytes)
        self.durable_position = 0
        self.queued: list[tuple[int, WalRecord]] = []
        self.dead = False
        self.reads = 0
        self.read_cache_bytes = 0
        self.together = 0  # records that are read together; 0: any number
        self.trims: list[int] = []
        self._scheduled = False
        self._next = 0
        self._on_durable: Callable[[int], None] = lambda _: None
        self._on_failed: Callable[[BaseException], None] = lambda _: None

    async def recover(self, trim_position: int) -> AsyncIterator[tuple[int, WalRecord]]:
        self._next = max(trim_position, self.log.last_position)
        self.log.records = {p: r for p, r in self.log.records.items() if p > trim_position}
        for position, record in sorted(self.log.records.items()):
            self.capacity.try_take("wal", len(record.data))
            yield position, record

    async def start(self, on_durable: Callable[[int], None], on_failed: Callable[[BaseException], None]) -> None:
        self._on_durable, self._on_failed = on_durable, on_failed
        self.durable_position = self._next

    def try_reserve(self, size_bytes: int) -> bool:
        return self.capacity.try_take("wal", size_bytes)

    async def reserve(self, size_bytes: int, timeout_s: float) -> None:
        try:
            await self.capacity.take("wal", size_bytes, timeout_s)
        except Unavailable as error:
            raise Full(f"the WAL is full: {error}") from None

    def hurry(self) -> None:
        pass

    def release(self, size_bytes: int) -> None:
        self.capacity.give("wal", size_bytes)

    def append(self, record: WalRecord) -> int:
        if self.dead:
            raise Closed("the WAL is dead")
        assert memoryview(record.data).readonly
        self._next += 1
        self.queued.append((self._next, record))
        if not self.manual and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._tick)
        return self._next

    def _tick(self) -> None:
        self._scheduled = False
        self.sync()

    def sync(self, count: int | None = None) -> None:
        """The first `count` queued records become durable."""
        if self.dead or not self.queued:
            return
        done, self.queued = self.queued[:count], self.queued[count:] if count is not None else []
        for position, record in done:
            self._store(position, record)
        self.durable_position = done[-1][0]
        self._on_durable(self.durable_position)

    def _store(self, position: int, record: WalRecord) -> None:
        data = bytes(record.data)
        self.log.records[position] = WalRecord(
            record.stream_id, record.stream_epoch, record.base_offset, record.count, record.max_timestamp, data
        )
        self.log.last_position = position

    def fail(self, error: BaseException) -> None:
        self.dead = True
        self._on_failed(error)

    def crash(self, random: Random) -> None:
        """The machine dies: of what was queued a prefix may have reached the medium, unseen by this process."""
        if self.dead:
            return
        self.dead = True
        for position, record in self.queued[: random.randint(0, len(self.queued))]:
            self._store(position, record)

    def readable_together(self, after: int) -> int:
        return min(self.durable_position, after + self.together) if self.together else max(after, self._next)

    async def read(self, position: int) -> WalRecord:
        await asyncio.sleep(0)
        self.reads += 1
        if position not in self.log.records:
            raise NotFound(f"position {position} was trimmed")
        return self.log.records[position]

    async def trim(self, position: int) -> None:
        await asyncio.sleep(0)
        if self.dead:
            return
        self.trims.append(position)
        for known in [p for p in self.log.records if p <= position]:
            self.capacity.give("wal", len(self.log.records.pop(known).data))
        self.log.trimmed = max(self.log.trimmed, position)

    async def close(self) -> None:
        self.sync()
        self.dead = True
