import asyncio
from collections.abc import AsyncIterator
from random import Random

import pytest
from contracts.log_stream_contract import LogStreamContract
from support.fake_stream import FakeStream
from support.log_bench import append
from support.memory_metadata import MetadataTables
from support.memory_store import MemoryStore
from support.memory_wal import MemoryWal, WalLog

from streamlake.core.budget import Budget
from streamlake.core.ids import Ids
from streamlake.log.errors import OutOfOrderSequence
from streamlake.s3stream.settings import StreamsSettings
from streamlake.s3stream.stream import Stream
from streamlake.s3stream.streams import Streams

MIB = 1024 * 1024


class TestFakeStream(LogStreamContract):
    """The fake that this package is tested on keeps the port's contract."""

    @pytest.fixture
    def stream(self) -> FakeStream:
        return FakeStream()

    async def settle(self, stream: FakeStream) -> None:
        stream.make_durable()

    async def upload(self, stream: FakeStream) -> None:
        stream.upload()

    async def reopened(self, stream: FakeStream) -> FakeStream:
        return stream.reopen()


class Media:
    """S3Stream on a store, a WAL and metadata that outlive it."""

    def __init__(self) -> None:
        self.store, self.tables, self.wal_log = MemoryStore(), MetadataTables(), WalLog()
        self.tables.create(1)

    async def open(self) -> tuple[Stream, Streams]:
        self.wal = MemoryWal(self.wal_log)
        settings = StreamsSettings(log_cache_bytes=4 * MIB, block_cache_bytes=MIB, object_bytes=MIB, block_bytes=200)
        metadata, fatal = self.tables.register(), []
        streams = Streams(self.store, self.wal, metadata, Ids(1), settings, Budget(100 * MIB), fatal.append)
        await streams.start()
        (stream,) = await streams.open([1])
        return stream, streams


class TestS3Stream(LogStreamContract):
    @pytest.fixture
    async def stream(self) -> AsyncIterator[Stream]:
        self.media = Media()
        stream, self.streams = await self.media.open()
        yield stream
        await self.streams.close()

    async def reopened(self, stream: Stream) -> Stream:
        self.media.wal.crash(Random(1))
        await self.streams.close()
        again, self.streams = await self.media.open()
        return again

    def append(self, stream: Stream, count: int, timestamp: int, data: bytes) -> "asyncio.Future[None]":
        assert self.streams.try_reserve(len(data))
        return super().append(stream, count, timestamp, data)

    async def settle(self, stream: Stream) -> None:
        await self.streams.appender.until_durable(self.streams.appender.last_position)

    async def upload(self, stream: Stream) -> None:
        await self.streams.flush()


async def test_nobody_reads_what_is_not_durable():
    stream = FakeStream()
    stream.append(0, 1, 0, b"a")
    stream.append(1, 1, 0, b"b")
    assert await stream.read(0, 2, 100) == []
    stream.make_durable(1)
    assert await stream.read(0, 2, 100) == [b"a"]


@pytest.mark.parametrize("upload_after", [None, 0, 2, 4])
async def test_a_partition_lives_through_a_crash_of_s3stream(bench, upload_after):
    """Produce, upload or not, crash, open again: the same records, and the same idempotent producer."""
    media = Media()
    stream, streams = await media.open()
    partition = await bench.open(stream)
    for i in range(5):
        batch = bench.idempotent(10 * i, 10)
        assert streams.try_reserve(len(batch))
        await append(partition, batch).durable
        if i == upload_after:
            await streams.flush()
    media.wal.crash(Random(1))
    await streams.close()

    stream, streams = await media.open()
    again = await bench.open(stream)
    assert stream.checkpoint_offset == (0 if upload_after is None else 10 * (upload_after + 1))
    assert bench.offsets((await again.read(0, MIB)).chunks) == list(range(50))
    assert bench.offsets((await again.read(25, 1)).chunks) == list(range(20, 30))
    assert append(again, bench.idempotent(0, 10)).base_offset == 0
    assert append(again, bench.idempotent(40, 10)).appended_bytes == 0
    with pytest.raises(OutOfOrderSequence, match="expected 50"):
        append(again, bench.idempotent(60))
    await streams.close()
