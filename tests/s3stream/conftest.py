"""A broker's streams over media that survive it: open it, crash it, open it again."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from random import Random

import pytest
from support.memory_metadata import MemoryMetadata, MetadataTables
from support.memory_store import MemoryStore
from support.memory_wal import MemoryWal, WalLog

from streamlake.core.budget import Budget
from streamlake.core.ids import Ids
from streamlake.s3stream.settings import StreamsSettings
from streamlake.s3stream.stream import Stream
from streamlake.s3stream.streams import Streams

SETTINGS = StreamsSettings(
    log_cache_bytes=1 << 20,
    block_cache_bytes=1 << 18,
    read_ahead_bytes=4096,
    upload_bytes=1 << 19,
    upload_interval_ms=3_600_000,
    object_bytes=1 << 18,
    block_bytes=1024,
    gc_interval_ms=3_600_000,
    gc_grace_ms=0,
    compaction_interval_ms=3_600_000,
    compaction_bytes_per_s=1 << 40,
    retry_first_ms=1,
    retry_max_ms=4,
)


class FakeClock:
    def __init__(self) -> None:
        self.ms = 1_000_000

    def now_ms(self) -> int:
        return self.ms

    def boottime(self) -> float:
        return self.ms / 1000


class Broker:
    """One life of a broker: its streams, the WAL and metadata handles under them, what went wrong."""

    def __init__(self, media: "Media", settings: StreamsSettings, wal_bytes: int, manual: bool) -> None:
        self.media = media
        self.metadata: MemoryMetadata = media.tables.register()
        self.wal = MemoryWal(media.wal_log, wal_bytes, manual=manual)
        self.fatal: list[BaseException] = []
        self.budget = Budget(1 << 30)
        self.streams = Streams(media.store, self.wal, self.metadata, Ids(7), settings, self.budget, self.fatal.append)

    async def start(self, *stream_ids: int) -> list[Stream]:
        await self.streams.start()
        return await self.streams.open(stream_ids)

    def append(self, stream: Stream, data: bytes, count: int = 1, timestamp: int = 0) -> "asyncio.Future[None]":
        assert self.streams.try_reserve(len(data)), "no capacity"
        return stream.append(stream.next_offset, count, timestamp, data)

    async def crash(self, random: Random | None = None) -> None:
        """The process is gone: nothing it does from here on may matter."""
        self.wal.crash(random or Random(1))
        self.streams.appender.close()
        await self.streams._tasks.stop()
        await self.streams.blocks.close()


class Media:
    """What survives a broker."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.tables = MetadataTables()
        self.wal_log = WalLog()
        self.clock = FakeClock()
        self.tables.now_ms = self.clock.now_ms
        self.brokers: list[Broker] = []

    def broker(self, *, wal_bytes: int = 1 << 30, manual: bool = False, **settings: object) -> Broker:
        broker = Broker(self, replace(SETTINGS, **settings), wal_bytes, manual)
        self.brokers.append(broker)
        return broker


@pytest.fixture
async def media() -> AsyncIterator[Media]:
    media = Media()
    yield media
    for broker in media.brokers:
        await broker.streams.close()
