import asyncio

import pytest
from support.wait import DEADLINE_S, turns

from streamlake.core.errors import Closed, Fenced, Full, Invalid, Unavailable


async def test_futures_resolve_in_order_and_readers_see_only_what_is_durable(media) -> None:
    broker = media.broker(manual=True)
    media.tables.create(1, 2)
    one, two = await broker.start(1, 2)
    seen: list[tuple[int, int]] = []
    one.on_durable = lambda: seen.append((1, one.durable_offset))
    two.on_durable = lambda: seen.append((2, two.durable_offset))
    futures = [broker.append(one, b"a", 10), broker.append(two, b"b"), broker.append(one, b"c", 5)]
    assert (one.next_offset, one.durable_offset) == (15, 0)
    assert await one.read(0, 15, 100) == []
    broker.wal.sync(2)
    assert [f.done() for f in futures] == [True, True, False]
    assert seen == [(1, 10), (2, 1)]
    assert b"".join(await one.read(0, 15, 100)) == b"a"
    broker.wal.sync()
    await asyncio.gather(*futures)
    assert seen == [(1, 10), (2, 1), (1, 15)]
    assert b"".join(await one.read(0, 15, 100)) == b"ac"


async def test_a_failed_wal_fails_all_pending_appends_of_all_streams_together(media) -> None:
    """Hazard C6: an error for one append and an ack for a later one would lose the first for ever."""
    broker = media.broker(manual=True)
    media.tables.create(1, 2)
    one, two = await broker.start(1, 2)
    futures = [broker.append(one, b"a"), broker.append(one, b"b"), broker.append(two, b"c")]
    broker.wal.fail(OSError("disk"))
    broker.wal.dead = False
    broker.wal.sync()  # a sync that returns after the failure was told must ack nothing
    for future in futures:
        assert isinstance(future.exception(), Closed)
    assert (one.durable_offset, two.durable_offset) == (0, 0)
    assert len(broker.fatal) == 1
    with pytest.raises(Closed, match="disk"):
        broker.streams.try_reserve(1)
    with pytest.raises(Closed):
        one.append(one.next_offset, 1, 0, b"x")


async def test_a_fenced_wal_says_fenced(media) -> None:
    broker = media.broker(manual=True)
    media.tables.create(1)
    (stream,) = await broker.start(1)
    future = broker.append(stream, b"a")
    broker.wal.fail(Fenced("a newer broker"))
    with pytest.raises(Fenced):
        await future


async def test_a_cancelled_producer_disturbs_nobody(media) -> None:
    broker = media.broker(manual=True)
    media.tables.create(1)
    (stream,) = await broker.start(1)
    gone, stays = broker.append(stream, b"a"), broker.append(stream, b"b")
    gone.cancel()
    broker.wal.sync()
    await stays
    assert b"".join(await stream.read(0, 9, 100)) == b"ab"


async def test_room_is_wal_and_memory_together(media) -> None:
    broker = media.broker(wal_bytes=1000, log_cache_bytes=600, manual=True)
    media.tables.create(1)
    (stream,) = await broker.start(1)
    reserve = broker.streams.try_reserve
    assert reserve(600) and not reserve(1)
    assert broker.wal.capacity.used_bytes == 600, "the WAL's room is given back when memory lacks"
    broker.streams.release(600)
    assert broker.wal.capacity.used_bytes == broker.streams.cache.capacity.used_bytes == 0
    with pytest.raises(Unavailable):
        broker.append(stream, bytes(500))
        await broker.streams.reserve(200, 0.01)
    with pytest.raises(Full):
        await broker.streams.reserve(501, 0.01)
    assert broker.wal.capacity.used_bytes == broker.streams.cache.capacity.used_bytes == 500
    with pytest.raises(Invalid):
        await broker.streams.reserve(601, 0.01)


async def test_waiting_for_memory_ends_when_data_is_durable(media) -> None:
    broker = media.broker(log_cache_bytes=1000, upload_bytes=1 << 30, manual=True)
    media.tables.create(1)
    (stream,) = await broker.start(1)
    broker.append(stream, bytes(400))
    waiting = asyncio.create_task(broker.streams.reserve(700, DEADLINE_S))
    await turns()
    assert not waiting.done()
    broker.wal.sync()
    await waiting


async def test_appends_to_a_deleted_stream_are_refused(media) -> None:
    broker = media.broker()
    media.tables.create(1)
    (stream,) = await broker.start(1)
    await broker.append(stream, b"a")
    broker.streams.delete([1])
    with pytest.raises(Closed, match="deleted"):
        broker.append(stream, b"b")


async def test_a_chunk_that_the_wal_refuses_leaves_no_trace(media, monkeypatch) -> None:
    """Its bytes were in the stream's slab already: they must not become a part of the next chunk."""
    broker = media.broker()
    media.tables.create(1)
    (stream,) = await broker.start(1)
    await broker.append(stream, b"before")

    def refuse(record: object) -> int:
        raise Full("more was appended than had been reserved")

    with monkeypatch.context() as patched:
        patched.setattr(broker.wal, "append", refuse)
        with pytest.raises(Full):
            broker.append(stream, b"refused")
    broker.streams.release(len(b"refused"))
    await broker.append(stream, b"after")
    assert (stream.next_offset, b"".join(await stream.read(0, 2, 100))) == (2, b"beforeafter")
    await broker.streams.flush()
    await broker.crash()
    broker = media.broker()
    (stream,) = await broker.start(1)
    assert await stream.read(0, 2, 100) == [b"beforeafter"]
