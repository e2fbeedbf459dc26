import asyncio
from dataclasses import replace

import pytest
from support.memory_wal import MemoryWal

from streamlake.core.errors import Corrupt, Fenced
from streamlake.core.ids import Ids
from streamlake.s3stream.drain import Drained, drain
from streamlake.s3stream.wal.port import WalRecord

SIZE = 5000


class Drainable(MemoryWal):
    async def discard(self) -> None:
        raise AssertionError("the caller's business")


def preset(media, count: int, *stream_ids: int) -> None:
    """`count` records of each stream in the WAL; nothing in objects."""
    media.tables.create(*stream_ids)
    for stream_id in stream_ids:
        media.tables.streams[stream_id] = replace(media.tables.streams[stream_id], epoch=1)
        media.tables.owners[stream_id] = 0, 1
    records = [WalRecord(i, 1, n, 1, n, bytes([n]) * SIZE) for n in range(count) for i in stream_ids]
    media.wal_log.records = dict(enumerate(records, 1))
    media.wal_log.last_position = len(records)


async def drained(media, **settings: object) -> Drained:
    broker = media.broker(**settings)  # the settings and the metadata handle of a new life
    return await drain(Drainable(media.wal_log), media.store, broker.metadata, Ids(1), broker.streams._settings)


async def check(media, count: int, *stream_ids: int) -> None:
    assert media.wal_log.records == {}
    broker = media.broker()
    for stream in await broker.start(*stream_ids):
        assert (stream.next_offset, stream.durable_offset) == (count, count)
        data = b"".join(await stream.read(0, count, 1 << 30))
        assert data == b"".join(bytes([n]) * SIZE for n in range(count))


async def test_all_goes_into_objects_in_bounded_memory(media) -> None:
    preset(media, 60, 1, 2, 3)
    done = await drained(media, log_cache_bytes=50_000, object_bytes=1 << 20)
    assert (done.records, done.skipped_records) == (180, 0)
    assert done.objects >= 180 * SIZE // 50_000
    assert media.tables.wal_trim == 180
    await check(media, 60, 1, 2, 3)


async def test_an_empty_wal_is_drained_at_once(media) -> None:
    assert await drained(media) == Drained(0, 0, 0)
    assert media.store.objects == {}


async def test_a_crash_in_between_repeats_only_what_was_not_committed(media) -> None:
    preset(media, 60, 1)
    running = asyncio.create_task(drained(media, log_cache_bytes=50_000))
    while media.tables.wal_trim == 0:  # until the first part is committed
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    done = await drained(media, log_cache_bytes=50_000)
    assert 0 < done.records < 60
    await check(media, 60, 1)


@pytest.mark.parametrize("fault", ["unavailable", "applied_then_unknown", "late"])
async def test_a_store_that_fails_is_tried_again(media, fault: str) -> None:
    preset(media, 20, 1)
    media.store.fail("put", fault, times=3)
    await drained(media)
    await check(media, 20, 1)


@pytest.mark.parametrize("fault", ["unavailable", "unknown", "applied_then_unknown"])
async def test_metadata_that_fail_are_tried_again(media, fault: str) -> None:
    preset(media, 20, 1)
    broker = media.broker()
    broker.metadata.fail("commit_object", fault, times=2)
    await drain(Drainable(media.wal_log), media.store, broker.metadata, Ids(1), broker.streams._settings)
    await check(media, 20, 1)


async def test_deleted_streams_are_skipped_and_trimmed(media) -> None:
    preset(media, 20, 1, 2)
    del media.tables.streams[1]
    done = await drained(media)
    assert (done.records, done.skipped_records) == (40, 20)
    assert media.tables.wal_trim == 40
    await check(media, 20, 2)


async def test_a_stream_that_somebody_opened_meanwhile_ends_it(media) -> None:
    """The opener did not see this tail: to append it now would put it behind what the opener wrote."""
    preset(media, 5, 1)
    broker = media.broker()
    broker.metadata.gate = asyncio.Event()
    drainable = Drainable(media.wal_log)
    running = asyncio.create_task(drain(drainable, media.store, broker.metadata, Ids(1), broker.streams._settings))
    for _ in range(200):
        await asyncio.sleep(0)
    media.tables.streams[1] = replace(media.tables.streams[1], epoch=2)
    broker.metadata.gate.set()
    with pytest.raises(Fenced):
        await running
    assert len(media.wal_log.records) == 5, "nothing is trimmed"


async def test_a_zombie_drains_nothing(media) -> None:
    preset(media, 5, 1)
    broker = media.broker()
    media.tables.register()
    with pytest.raises(Fenced):
        await drain(Drainable(media.wal_log), media.store, broker.metadata, Ids(1), broker.streams._settings)
    assert len(media.wal_log.records) == 5


async def test_a_wal_that_contradicts_the_metadata(media) -> None:
    preset(media, 5, 1)
    del media.wal_log.records[1]
    with pytest.raises(Corrupt, match="continues at offset 1, expected 0"):
        await drained(media)
