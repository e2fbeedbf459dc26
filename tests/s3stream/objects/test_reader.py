import asyncio

import pytest
from support.wait import turns, until

from streamlake.core.errors import Corrupt, NotFound, Unavailable
from streamlake.s3stream import settings as settings_module
from streamlake.s3stream import stream as stream_module
from streamlake.s3stream.objects import reader as reader_module
from streamlake.s3stream.objects.read_throttle import RATE_INITIAL, STEP_BYTES


async def uploaded(media, chunks: int = 20, **settings: object):  # type: ignore[no-untyped-def]
    """A fresh broker whose stream 1 lies in one object: chunks of 300 bytes, three to a block."""
    media.tables.create(1)
    writer = media.broker()
    (stream,) = await writer.start(1)
    for n in range(chunks):
        await writer.append(stream, bytes([n]) * 300, timestamp=n)
    await writer.streams.flush()
    await writer.crash()
    broker = media.broker(**settings)
    (stream,) = await broker.start(1)
    media.store.calls.clear()
    return broker, stream


def ranges(media) -> int:
    return sum(operation == "get_range" for operation, _ in media.store.calls)


async def test_one_request_for_the_index_and_adjacent_blocks_together(media) -> None:
    broker, stream = await uploaded(media, read_ahead_bytes=1 << 20)
    assert b"".join(await stream.read(0, 20, 1 << 20)) == b"".join(bytes([n]) * 300 for n in range(20))
    assert ranges(media) == 2
    await stream.read(7, 20, 1)
    assert ranges(media) == 2, "all of it is cached"
    assert broker.streams.blocks.hits > 0


async def test_a_sequential_reader_finds_the_next_blocks_on_their_way(media) -> None:
    _, stream = await uploaded(media)
    offset, requests = 0, []
    while offset < 20:
        assert len(await stream.read(offset, 20, 300)) == 1
        offset += 1
        await turns()
        requests.append(ranges(media))
    assert requests[0] == 2, "index and one block: a first read is no sequential reader yet"
    assert requests[1] == 3, "read ahead of need"
    assert requests[-1] < 8


async def test_many_readers_of_one_block_make_one_request(media) -> None:
    _, stream = await uploaded(media)
    got = await asyncio.gather(*(stream.read(0, 3, 300) for _ in range(50)))
    assert all(b"".join(g) == bytes(300) for g in got)
    assert ranges(media) == 2


async def test_a_failure_is_told_and_not_cached(media) -> None:
    _, stream = await uploaded(media)
    media.store.fail("get_range", "unavailable")
    with pytest.raises(Unavailable):
        await stream.read(0, 3, 300)
    assert b"".join(await stream.read(0, 3, 300)) == bytes(300)


async def test_damage_names_the_object_and_spares_the_other_blocks(media) -> None:
    _, stream = await uploaded(media, read_ahead_bytes=1 << 20)
    ((key, data),) = media.store.objects.items()
    bad = bytearray(data)
    bad[1000] ^= 1  # in the second block
    media.store.objects[key] = bytes(bad)
    assert b"".join(await stream.read(0, 3, 1 << 20)) == b"".join(bytes([n]) * 300 for n in range(3))
    with pytest.raises(Corrupt, match=key):
        await stream.read(3, 6, 1 << 20)
    assert b"".join(await stream.read(6, 7, 1 << 20)) == bytes([6]) * 300


async def test_a_damaged_footer_is_corrupt(media) -> None:
    _, stream = await uploaded(media)
    ((key, data),) = media.store.objects.items()
    media.store.objects[key] = data[:-1] + b"?"
    with pytest.raises(Corrupt, match=key):
        await stream.read(0, 3, 300)


async def test_an_index_larger_than_the_tail_takes_a_second_request(media, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamlake.s3stream.objects.reader.TAIL_BYTES", 100)
    _, stream = await uploaded(media)
    assert b"".join(await stream.read(4, 5, 300)) == bytes([4]) * 300
    assert ranges(media) == 3


async def test_a_lost_object_is_corrupt_and_a_trimmed_one_not_found(media) -> None:
    _, stream = await uploaded(media)
    media.store.objects.clear()
    with pytest.raises(Corrupt, match="gone"):
        await stream.read(0, 3, 300)
    media.store.fail("get_range", "slow")
    reading = asyncio.create_task(stream.read(0, 3, 300))
    await turns()
    await stream.trim(20)
    media.store.gate.set()
    with pytest.raises(NotFound, match="deleted"):
        await reading


async def two_objects(media, **settings: int):  # type: ignore[no-untyped-def]
    """A fresh broker whose streams 1 and 2 lie in two objects: seven blocks of each stream in each."""
    media.tables.create(1, 2)
    writer = media.broker()
    streams = await writer.start(1, 2)
    for first in (0, 20):
        for stream in streams:
            for n in range(first, first + 20):
                await writer.append(stream, bytes([n]) * 300, timestamp=n)
        await writer.streams.flush()
    await writer.crash()
    broker = media.broker(**settings)
    streams = await broker.start(1, 2)
    media.store.calls.clear()
    return broker, streams


ROOM_FOR_WHOLE = {"object_bytes": 1 << 14, "block_cache_bytes": 1 << 18}


async def read_on(stream, start: int, end: int) -> bytes:
    data = b""
    for offset in range(start, end):
        data += b"".join(await stream.read(offset, end, 300))
        await turns()
    return data


async def test_who_reads_on_gets_the_next_object_with_one_request(media) -> None:
    _, (stream, _) = await two_objects(media, **ROOM_FOR_WHOLE)
    assert await read_on(stream, 0, 20) == b"".join(bytes([n]) * 300 for n in range(20))
    media.store.calls.clear()
    assert await read_on(stream, 20, 40) == b"".join(bytes([n]) * 300 for n in range(20, 40))
    assert ranges(media) == 0, "it was fetched while the first was read"


async def test_readers_of_other_streams_share_it(media) -> None:
    _, (first, second) = await two_objects(media, **ROOM_FOR_WHOLE)
    await read_on(first, 0, 20)
    media.store.calls.clear()
    await read_on(second, 20, 40)
    assert ranges(media) == 0


async def test_who_reads_little_of_an_object_gets_no_whole_one(media) -> None:
    _, (stream, _) = await two_objects(media, **ROOM_FOR_WHOLE)
    await read_on(stream, 0, 6)  # two of fourteen blocks
    assert len({key for operation, key in media.store.calls if operation == "get_range"}) == 1


async def test_no_whole_object_where_the_cache_would_lose_it(media) -> None:
    _, (stream, _) = await two_objects(media, object_bytes=1 << 14, block_cache_bytes=1 << 15)
    await read_on(stream, 0, 20)
    assert len({key for operation, key in media.store.calls if operation == "get_range"}) == 1


async def test_a_bad_block_of_a_whole_object_harms_only_who_reads_it(media) -> None:
    _, (stream, _) = await two_objects(media, **ROOM_FOR_WHOLE)
    key = max(media.store.objects, key=lambda k: int(k.rpartition("/")[2]))
    bad = bytearray(media.store.objects[key])
    bad[1000] ^= 1  # in the second block
    media.store.objects[key] = bytes(bad)
    await read_on(stream, 0, 20)
    assert await read_on(stream, 20, 23) == b"".join(bytes([n]) * 300 for n in range(20, 23))
    with pytest.raises(Corrupt, match=key):
        await stream.read(23, 26, 300)
    assert await read_on(stream, 26, 40) == b"".join(bytes([n]) * 300 for n in range(26, 40))


async def test_where_requests_cost_nothing_little_is_read_at_once(media, monkeypatch) -> None:
    monkeypatch.setattr(settings_module, "LITTLE_BYTES", 2000)  # two blocks
    media.store.requests_cost = False
    _, (stream, _) = await two_objects(media, **ROOM_FOR_WHOLE)
    assert await read_on(stream, 0, 40) == b"".join(bytes([n]) * 300 for n in range(40))
    assert ranges(media) == 10, "for each object the index, and four times up to two blocks"


async def test_a_slow_client_that_holds_a_block_holds_little_more(media, monkeypatch) -> None:
    async def memory_of_a_block() -> int:
        _, stream = await uploaded(media, read_ahead_bytes=1 << 20)
        (view, *_) = await stream.read(0, 20, 1 << 20)
        return len(view.obj)  # type: ignore[union-attr]

    assert await memory_of_a_block() > 6000, "all that came with one request is one piece of memory"
    monkeypatch.setattr(reader_module, "HELD_BYTES_MAX", 2000)
    assert await memory_of_a_block() < 2000


async def test_who_fails_or_leaves_gives_back_his_part_of_the_pace(media) -> None:
    broker, stream = await uploaded(media)
    throttle, part_s = broker.streams.read_throttle, STEP_BYTES / RATE_INITIAL
    media.store.fail("get_range", "unavailable", times=50)
    for _ in range(50):
        with pytest.raises(Unavailable):
            await stream.read(0, 20, 300)
    assert throttle.wait_s() <= part_s
    leaving = [asyncio.create_task(stream.read(0, 20, 300)) for _ in range(50)]
    await asyncio.sleep(0)
    for task in leaving:
        task.cancel()
    await asyncio.wait(leaving)
    assert throttle.wait_s() <= 3 * part_s


async def test_where_producers_are_spared_a_read_takes_little(media, monkeypatch) -> None:
    monkeypatch.setattr(stream_module, "ENOUGH_BYTES", 700)
    broker, stream = await uploaded(media)
    assert len(b"".join(await stream.read(0, 20, 1 << 20))) == 6000, "nobody produces"
    await broker.append(stream, b"x")
    await until(lambda: broker.streams.read_throttle.limited)
    assert len(b"".join(await stream.read(0, 20, 1 << 20))) == 900, "one block is over the limit"
    await until(lambda: not broker.streams.read_throttle.limited)
    assert len(b"".join(await stream.read(0, 20, 1 << 20))) == 6000
