import asyncio
from random import Random

import pytest
from contracts.log_stream_contract import LogStreamContract, chunk

from streamlake.core.errors import Invalid, NotFound, Unavailable


class TestLogStreamContract(LogStreamContract):
    @pytest.fixture
    async def stream(self, media):
        media.tables.create(1)
        self.media, self.broker = media, media.broker(manual=True)
        (stream,) = await self.broker.start(1)
        assert self.broker.streams.try_reserve(100_000)
        return stream

    async def settle(self, stream) -> None:
        self.broker.wal.sync()

    async def upload(self, stream) -> None:
        await self.broker.streams.flush()

    async def reopened(self, stream):
        self.broker.wal.manual = False
        await self.broker.crash()
        self.broker = self.media.broker()
        (again,) = await self.broker.start(1)
        return again

    # A buffer holds all chunks that lie together (hazard P6), so the joined bytes are what counts.

    async def test_reads_whole_chunks(self, filled) -> None:
        async def read(*arguments):
            return b"".join(await filled.read(*arguments))

        for start, end, limit, chunks in [
            (0, 60, 10_000, range(6)), (25, 60, 10_000, (2, 3, 4, 5)), (20, 41, 10_000, (2, 3, 4)),
            (20, 40, 10_000, (2, 3)), (0, 60, 1, (0,)), (0, 60, 250, (0, 1)), (60, 60, 10_000, ()),
        ]:  # fmt: skip
            assert await read(start, end, limit) == b"".join(map(chunk, chunks))

    async def test_reads_the_same_from_objects(self, filled) -> None:
        await self.upload(filled)
        assert b"".join(await filled.read(25, 60, 10_000)) == b"".join(map(chunk, (2, 3, 4, 5)))


CHUNKS = 24
TIMES = [100, 50, 120, 120, 90, 300, 10, 10, 10, 40, 500, 499, 498, 500, 2, 3, 4, 5, 6, 700, 8, 9, 1, 2]


async def spread(media):  # type: ignore[no-untyped-def]
    """Stream 1 with 24 chunks of 300 bytes and 10 offsets: two objects, the WAL only, and memory."""
    media.tables.create(1, 2)
    broker = media.broker(log_cache_bytes=20_000, object_bytes=2500)
    stream, other = await broker.start(1, 2)
    for n in range(CHUNKS):
        await broker.append(stream, bytes([n]) * 300, 10, TIMES[n])
        if n == 13:
            await broker.streams.flush()
        if n == 18:
            broker.streams.cache.evict(20_000, broker.streams.appender.durable_position)
    await broker.append(other, b"x")
    assert len(media.store.objects) == 2
    assert 0 < stream._log.first_offset < stream._log.bases[-1]
    return broker, stream


def chunks_of(start: int, end: int) -> bytes:
    return b"".join(bytes([n]) * 300 for n in range(CHUNKS) if n * 10 < end and (n + 1) * 10 > start)


@pytest.mark.parametrize("seed", range(3))
async def test_reads_join_objects_wal_and_memory(media, seed: int) -> None:
    _, stream = await spread(media)
    random = Random(seed)
    for _ in range(100):
        start, end = random.randint(0, 240), random.randint(0, 250)
        whole = chunks_of(start, end) if start < end else b""
        limit = random.choice((0, 1, 300, 2000, 10_000))
        buffers = await stream.read(start, end, limit)
        assert b"".join(buffers) == whole[: max(limit // 300 * 300, 300)]
        assert all(len(b) % 300 == 0 for b in buffers), "whole chunks"
    assert min(stream._reads.cache_bytes, stream._reads.wal_bytes, stream._reads.object_bytes) > 0


async def test_first_chunk_at_or_after_a_time(media) -> None:
    _, stream = await spread(media)
    await stream.trim(15)
    for timestamp in {*TIMES, 0, 701, 121, 499}:
        for end in (240, 1000, 131, 130, 60, 16, 15):
            expected = next(
                (n for n in range(1, CHUNKS) if TIMES[n] >= timestamp and n * 10 < end and n * 10 + 10 > 15), None
            )
            if end <= 15:
                expected = None
            found = await stream.find_timestamp(timestamp, end)
            assert found == (None if expected is None else (expected * 10, expected * 10 + 10)), (timestamp, end)


async def test_the_first_of_the_greatest_times(media) -> None:
    _, stream = await spread(media)
    for start in (0, 15, 105, 140):
        await stream.trim(start)
        for end in (240, 1000, 195, 190, 138, 101, 60, 16):
            inside = [n for n in range(CHUNKS) if n * 10 < end and n * 10 + 10 > start] if start < end else []
            best = max(inside, key=lambda n: (TIMES[n], -n), default=None)
            assert await stream.max_timestamp(end) == (
                None if best is None else (TIMES[best], best * 10, best * 10 + 10)
            )


async def test_searching_twice_reads_indexes_once(media) -> None:
    _, stream = await spread(media)
    media.store.calls.clear()
    assert await stream.find_timestamp(701, 1000) is None
    assert media.store.calls == [], "ranges that this process committed are known"


async def test_trim_moves_forward_only_and_never_beyond_what_is_durable(media) -> None:
    broker, stream = await spread(media)
    await stream.trim(95)
    await stream.trim(20)
    assert stream.start_offset == 95 == media.tables.streams[1].start_offset
    with pytest.raises(NotFound, match="starts at 95"):
        await stream.read(94, 240, 1)
    assert b"".join(await stream.read(95, 240, 1)) == bytes([9]) * 300
    with pytest.raises(Invalid, match="240"):
        await stream.trim(241)
    await stream.trim(240)
    assert stream.start_offset == 240 and await stream.read(240, 300, 1) == []
    await broker.streams.flush()
    assert stream.size_bytes == 0


async def test_a_start_that_was_not_stored_is_not_shown(media) -> None:
    broker, stream = await spread(media)
    broker.metadata.fail("trim_streams", "unavailable")
    with pytest.raises(Unavailable):
        await stream.trim(95)
    assert stream.start_offset == 0
    assert b"".join(await stream.read(0, 10, 1)) == bytes(300)


async def test_a_start_beyond_the_committed_end_survives(media) -> None:
    broker, stream = await spread(media)
    await stream.trim(225)
    await broker.crash()
    again = media.broker()
    (stream,) = await again.start(1)
    assert (stream.start_offset, stream.next_offset) == (225, 240)
    assert b"".join(await stream.read(225, 240, 1 << 20)) == chunks_of(225, 240)
    await again.streams.flush()
    assert b"".join(await stream.read(225, 240, 1 << 20)) == chunks_of(225, 240)


async def test_retention_by_time_stops_at_the_first_young_block(media) -> None:
    _, stream = await spread(media)
    point = stream.retention_point
    assert await point(None, 1000, 240) == (140, None), "never above the committed end"
    assert await point(None, 1000, 95) == (90, None)
    assert await point(None, 121, 240) == (30, 300), "blocks of three chunks: the second holds 300"
    assert await point(None, 120, 240) == (0, 120)
    assert await point(None, None, 240) == (0, 120)


async def test_retention_by_size_keeps_at_least_that_much(media) -> None:
    """Sizes in the metadata store are shared out by offsets: they must not make retention delete too much."""
    media.tables.create(1, 2)
    broker = media.broker()
    small, big = await broker.start(1, 2)
    for _ in range(30):
        await broker.append(small, bytes(10), 1000)
        await broker.append(big, bytes(3000), 1)
    await broker.streams.flush()
    await broker.crash()
    again = media.broker()
    small, big = await again.start(1, 2)
    assert small.size_bytes > 10_000, "an estimate, far too high"
    assert await small.retention_point(600, None, 1 << 40) == (0, 0)
    assert small.size_bytes == 300, "learnt, and nothing but what was appended counts"
    point, _ = await big.retention_point(30_000, None, 1 << 40)
    await big.trim(point)
    assert 30_000 <= big.size_bytes < 30_000 + 2 * 3100


async def test_size_and_offsets_after_reopening(media) -> None:
    broker, stream = await spread(media)
    size = stream.size_bytes
    assert CHUNKS * 300 <= size < CHUNKS * 300 * 1.3
    await broker.streams.flush()
    await broker.crash()
    (stream,) = await media.broker().start(1)
    assert stream.size_bytes == pytest.approx(size, rel=0.4)
    assert (stream.start_offset, stream.next_offset, stream.durable_offset, stream.epoch) == (0, 240, 240, 2)


async def test_checkpoints_are_taken_exactly_at_the_committed_end(media) -> None:
    media.tables.create(1)
    broker = media.broker(manual=True, object_bytes=500)
    (stream,) = await broker.start(1)
    stream.set_checkpointer(lambda: b"at %d" % stream.next_offset)
    for n in range(9):
        broker.append(stream, bytes([n]) * 300, 10)
    broker.wal.manual = False
    broker.wal.sync()
    await broker.streams.flush()
    broker.append(stream, b"later")
    assert len(media.store.objects) > 1, "only the last object of a stream may carry the checkpoint"
    await broker.crash()
    (stream,) = await media.broker().start(1)
    assert (stream.checkpoint, stream.checkpoint_offset) == (b"at 90", 90)


async def test_a_trim_brings_the_checkpoint_along(media) -> None:
    """What is below the start can never be read again, so the state that was built from it must survive a crash."""
    broker, stream = await spread(media)
    stream.set_checkpointer(lambda: b"state at %d" % stream.next_offset)
    await stream.trim(225)
    await broker.crash()
    (stream,) = await media.broker().start(1)
    assert (stream.start_offset, stream.checkpoint_offset, stream.checkpoint) == (225, 240, b"state at 240")


async def test_the_checkpoint_of_a_trim_waits_for_the_offset_it_is_taken_at(media) -> None:
    """A batch that is appended and then lost must not be in the state that survives."""
    media.tables.create(1)
    broker = media.broker(manual=True)
    (stream,) = await broker.start(1)
    stream.set_checkpointer(lambda: b"state at %d" % stream.next_offset)
    broker.append(stream, b"one", 10)
    broker.wal.sync()
    broker.append(stream, b"two", 10)
    trimming = asyncio.create_task(stream.trim(5))
    for _ in range(10):
        await asyncio.sleep(0)
    assert media.tables.streams[1].checkpoint_offset == 0
    broker.wal.sync()
    await trimming
    assert (media.tables.streams[1].checkpoint_offset, media.tables.streams[1].start_offset) == (20, 5)
