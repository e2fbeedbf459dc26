from dataclasses import replace

import pytest

from streamlake.core.errors import Corrupt, Full
from streamlake.s3stream.wal.port import WalRecord


def record(stream_id: int, base: int, count: int = 1, epoch: int = 1, data: bytes = b"x") -> WalRecord:
    return WalRecord(stream_id, epoch, base, count, base, data)


def preset(media, *records: WalRecord) -> None:
    media.wal_log.records = dict(enumerate(records, 1))
    media.wal_log.last_position = len(records)


async def test_the_tail_beyond_the_committed_end_comes_back(media) -> None:
    media.tables.create(1, 2)
    broker = media.broker()
    one, two = await broker.start(1, 2)
    await broker.append(one, b"aa", 10, timestamp=5)
    await broker.streams.flush()
    await broker.append(one, b"bb", 10, timestamp=6)
    await broker.append(two, b"cc", 3)
    await broker.crash()

    again = media.broker()
    await again.streams.start()
    assert again.streams.recovered_streams == 2
    one, two = await again.streams.open([1, 2])
    assert (one.next_offset, one.durable_offset, two.next_offset) == (20, 20, 3)
    assert one.epochs == ((1, 0), (2, 20))
    assert b"".join(await one.read(0, 20, 100)) == b"aabb"
    assert b"".join(await two.read(0, 20, 100)) == b"cc"
    assert not again.streams.cache.capacity.try_take("x", again.streams.cache.capacity.total_bytes), (
        "the tail is counted"
    )


async def test_a_tail_larger_than_memory_stays_in_the_wal(media) -> None:
    media.tables.create(1)
    media.tables.streams[1] = replace(media.tables.streams[1], epoch=1)
    preset(media, *(record(1, n, data=bytes([n]) * 5000) for n in range(20)))
    broker = media.broker(log_cache_bytes=30_000)
    (stream,) = await broker.start(1)
    assert broker.streams.cache.capacity.used_bytes <= 30_000
    assert b"".join(await stream.read(0, 20, 1 << 20)) == b"".join(bytes([n]) * 5000 for n in range(20))
    assert broker.wal.reads > 10
    await broker.streams.flush()
    assert media.wal_log.records == {}
    assert b"".join(await stream.read(0, 20, 1 << 20)) == b"".join(bytes([n]) * 5000 for n in range(20))


async def test_each_record_must_fit(media) -> None:
    media.tables.create(1)
    media.tables.streams[1] = replace(media.tables.streams[1], epoch=1)
    preset(media, *(record(1, n, data=bytes(5000)) for n in range(3)))
    with pytest.raises(Full, match="log cache of 4000"):
        await media.broker(log_cache_bytes=4000).streams.start()


async def test_records_of_deleted_streams_are_skipped(media) -> None:
    preset(media, record(9, 0), record(9, 1))
    broker = media.broker()
    await broker.streams.start()
    assert (broker.streams.skipped_records, broker.streams.recovered_streams) == (2, 0)


@pytest.mark.parametrize(
    ("records", "text"),
    [
        ([record(1, 1)], "expected 0"),
        ([record(1, 0), record(1, 2)], "expected 1"),
        ([record(1, 0, 3), record(1, 2)], "expected 3"),
        ([record(1, 0, epoch=4)], "older than the WAL"),
    ],
)
async def test_a_gap_a_repeat_or_an_unknown_epoch_stops_the_start(media, records: list[WalRecord], text: str) -> None:
    media.tables.create(1)
    media.tables.streams[1] = replace(media.tables.streams[1], epoch=3)
    preset(media, *records)
    with pytest.raises(Corrupt, match=text):
        await media.broker().streams.start()


async def test_a_record_across_the_committed_end_stops_the_start(media) -> None:
    media.tables.create(1)
    broker = media.broker()
    (stream,) = await broker.start(1)
    await broker.append(stream, b"a", 10)
    await broker.streams.flush()
    await broker.crash()
    media.wal_log.records[2] = record(1, 5, 10)
    with pytest.raises(Corrupt, match="expected 10"):
        await media.broker().streams.start()
