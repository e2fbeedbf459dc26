import asyncio
from itertools import pairwise
from random import Random

import pytest
from support.wait import DEADLINE_S, turns, until

from streamlake.core.errors import Corrupt, Fenced, Unavailable
from streamlake.s3stream.metadata import StreamRange
from streamlake.s3stream.objects.format import object_key


async def one_stream(media, **settings: object):  # type: ignore[no-untyped-def]
    media.tables.create(1)
    broker = media.broker(**settings)
    (stream,) = await broker.start(1)
    return broker, stream


async def reopened(media, *stream_ids: int):  # type: ignore[no-untyped-def]
    broker = media.broker()
    return broker, *(await broker.start(*stream_ids))


async def test_enough_bytes_start_an_upload(media) -> None:
    broker, stream = await one_stream(media, upload_bytes=1000)
    await broker.append(stream, bytes(999))
    await turns()
    assert broker.streams.uploader.uploads == 0
    await broker.append(stream, b"x")
    await until(lambda: media.wal_log.records == {})
    assert broker.streams.uploader.uploads == 1
    assert media.tables.wal_trim == 2


async def test_age_starts_an_upload(media) -> None:
    broker, stream = await one_stream(media, upload_interval_ms=5)
    await broker.append(stream, b"x")
    await until(lambda: media.tables.streams[1].end_offset == 1)
    uploads = broker.streams.uploader.uploads
    await asyncio.sleep(0.02)
    assert broker.streams.uploader.uploads == uploads, "an idle broker uploads nothing"


async def test_a_full_wal_starts_an_upload(media) -> None:
    media.tables.create(1)
    broker = media.broker(wal_bytes=1000)
    (stream,) = await broker.start(1)
    await broker.append(stream, bytes(900))
    assert not broker.streams.try_reserve(200)
    await broker.streams.reserve(200, DEADLINE_S)
    assert media.tables.streams[1].end_offset == 1


async def test_nothing_is_uploaded_before_it_is_durable(media) -> None:
    media.tables.create(1)
    broker = media.broker(manual=True)
    (stream,) = await broker.start(1)
    broker.append(stream, b"a")
    flush = asyncio.create_task(broker.streams.flush())
    await turns()
    assert media.store.calls == []
    broker.wal.sync()
    await flush
    assert media.tables.streams[1].end_offset == 1


async def test_put_then_commit_then_trim(media) -> None:
    broker, stream = await one_stream(media)
    await broker.append(stream, b"a")
    broker.metadata.gate = asyncio.Event()
    flush = asyncio.create_task(broker.streams.flush())
    await until(lambda: object_key(1) in media.store.objects)
    await turns()
    assert media.tables.objects[1].state == "prepared"
    assert broker.wal.trims == [] and list(media.wal_log.records) == [1], "the WAL may go only after the commit"
    broker.metadata.gate.set()
    await flush
    assert broker.wal.trims == [1] and media.wal_log.records == {}


async def test_records_appended_while_cutting_are_uploaded_but_not_trimmed(media) -> None:
    media.tables.create(1, 2)
    broker = media.broker()
    one, two = await broker.start(1, 2)
    futures = []

    def late() -> bytes:
        """Called while the round is cutting: stream 2 grows, its cut comes later."""
        futures.append(broker.append(two, b"late"))
        return b""

    one.set_checkpointer(late)
    await broker.append(one, b"a")
    await broker.append(two, b"b")
    await broker.streams.flush()
    assert media.tables.streams[2].end_offset == 2
    assert media.tables.wal_trim == 2 and list(media.wal_log.records) == [3]
    await broker.crash()
    again, two = await reopened(media, 2)
    assert (again.streams.skipped_records, two.next_offset) == (1, 2)


async def test_big_rounds_become_several_objects_and_the_trim_comes_last(media) -> None:
    media.tables.create(1, 2, 3)
    broker = media.broker(object_bytes=3000)
    streams = await broker.start(1, 2, 3)
    for n in range(30):
        await broker.append(streams[n % 3], bytes([n]) * 400)
    trims: list[int] = []
    commit = broker.metadata.commit_object

    async def watch(*args) -> None:  # type: ignore[no-untyped-def]
        trims.append(args[-1])
        await commit(*args)

    broker.metadata.commit_object = watch
    await broker.streams.flush()
    assert len(trims) > 3 and trims == [0] * (len(trims) - 1) + [30]
    assert max(map(len, media.store.objects.values())) < 3000 + 1500
    await broker.crash()
    _, *streams = await reopened(media, 1, 2, 3)
    for s, stream in enumerate(streams):
        assert b"".join(await stream.read(0, 99, 1 << 20)) == b"".join(
            bytes([n]) * 400 for n in range(30) if n % 3 == s
        )


async def test_a_commit_names_few_streams_and_a_crash_between_two_loses_nothing(media) -> None:
    """A transaction of thousands of streams would hold locks that all brokers need."""
    ids = range(1, 8)
    media.tables.create(*ids)
    broker = media.broker(streams_per_commit=3, block_bytes=300)
    streams = await broker.start(*ids)
    for n in range(21):
        await broker.append(streams[n % 7], bytes([n]) * 400)
    commits: list[tuple[set[int], int]] = []
    commit, second = broker.metadata.commit_object, asyncio.Event()

    async def watch(object_id, size, ranges, checkpoints, wal_trim) -> None:  # type: ignore[no-untyped-def]
        commits.append(({r.stream_id for r in ranges}, wal_trim))
        if len(commits) == 2:
            second.set()
            await asyncio.Event().wait()
        await commit(object_id, size, ranges, checkpoints, wal_trim)

    broker.metadata.commit_object = watch
    flushing = asyncio.create_task(broker.streams.flush())
    await second.wait()
    assert commits == [({1, 2, 3}, 0), ({4, 5, 6}, 0)]
    flushing.cancel()
    await broker.crash()
    again = media.broker(streams_per_commit=3)
    reopened = await again.start(*ids)
    assert [stream.next_offset for stream in reopened] == [3] * 7
    await again.streams.flush()
    assert media.tables.wal_trim == 21
    assert sorted(len(o.ranges) for o in await again.metadata.objects()) == [1, 3, 3]


async def test_a_store_outage_is_waited_out_while_appends_go_on(media) -> None:
    broker, stream = await one_stream(media)
    media.store.fail("put", "unavailable", times=3)
    media.store.fail("put", "full")
    media.store.fail("put", "late")
    broker.metadata.fail("prepare_object", "unavailable", times=2)
    await broker.append(stream, b"a")
    flush = asyncio.create_task(broker.streams.flush())
    await asyncio.sleep(0)
    await broker.append(stream, b"b")
    await flush
    assert broker.streams.uploader.retries >= 7
    media.store.land()
    assert b"".join(await stream.read(0, 9, 9)) == b"ab"
    await broker.crash()
    _, stream = await reopened(media, 1)
    assert b"".join(await stream.read(0, 9, 9)) == b"ab"
    assert broker.fatal == []


@pytest.mark.parametrize("fault", ["unavailable", "unknown", "applied_then_unknown"])
async def test_a_commit_without_an_answer_is_looked_up(media, fault) -> None:
    broker, stream = await one_stream(media)
    await broker.append(stream, b"a")
    broker.metadata.fail("commit_object", fault)
    broker.metadata.fail("objects", "unavailable")
    await broker.streams.flush()
    assert len(media.tables.objects) == 1, "the same object, whichever way it went"
    assert media.tables.objects[1].state == "committed"
    await broker.append(stream, b"b")
    await broker.streams.flush()
    assert b"".join(await stream.read(0, 9, 9)) == b"ab"
    assert broker.fatal == []


async def test_an_upload_destroyed_before_its_commit_is_made_again(media) -> None:
    """Hazard C5: gc came at the deadline, the slow upload went on."""
    broker, stream = await one_stream(media)
    await broker.append(stream, b"a")
    media.store.fail("put", "slow")
    flush = asyncio.create_task(broker.streams.flush())
    await until(lambda: ("put", object_key(1)) in media.store.calls)
    media.clock.ms += 3_600_001
    await broker.streams.gc.collect()
    assert 1 not in media.tables.objects
    media.store.gate.set()
    await flush
    assert list(media.store.objects) == [object_key(2)], "the late bytes are no litter"
    assert broker.streams.uploader.abandoned_uploads == 1
    await broker.crash()
    _, stream = await reopened(media, 1)
    assert b"".join(await stream.read(0, 9, 9)) == b"a"


async def test_a_zombie_commits_nothing_and_ends(media) -> None:
    """Hazard C5: A uploads and pauses; B recovers and uploads the same and more; A goes on."""
    zombie, stream = await one_stream(media)
    await zombie.append(stream, b"a", 10)
    zombie.metadata.gate = asyncio.Event()
    flush = asyncio.create_task(zombie.streams.flush())
    await until(lambda: object_key(1) in media.store.objects)
    heir, stream = await reopened(media, 1)
    await heir.append(stream, b"b", 10)
    await heir.streams.flush()
    before = dict(media.tables.objects), dict(media.tables.streams)
    zombie.metadata.gate.set()
    with pytest.raises(Fenced):
        await flush
    assert (dict(media.tables.objects), dict(media.tables.streams)) == before
    assert isinstance(zombie.fatal[0], Fenced)
    assert zombie.wal.trims == []
    assert b"".join(await stream.read(0, 20, 9)) == b"ab"


async def test_a_metadata_store_that_disagrees_stops_the_broker(media) -> None:
    broker, stream = await one_stream(media)
    await broker.append(stream, b"a", 10)
    meddler = await broker.metadata.prepare_object(1 << 60)
    await broker.metadata.commit_object(meddler, 1, [StreamRange(1, stream.epoch, 0, 5)], [], 0)
    with pytest.raises(Exception, match="somebody else wrote"):
        await broker.streams.flush()
    assert isinstance(broker.fatal[0], Corrupt)
    assert list(media.wal_log.records) == [1]


async def test_opening_a_stream_again_during_its_upload_does_not_fence_ourselves(media) -> None:
    broker, stream = await one_stream(media)
    await broker.append(stream, b"a")
    media.store.fail("put", "slow")
    flush = asyncio.create_task(broker.streams.flush())
    await until(lambda: media.store.calls)
    (stream,) = await broker.streams.open([1])
    assert stream.epoch == 2
    media.store.gate.set()
    await flush
    assert broker.fatal == [] and media.tables.streams[1].end_offset == 1


async def test_opening_waits_for_a_commit_that_is_under_way(media) -> None:
    """It carries the old epoch: taking the new one now would fence ourselves."""
    broker, stream = await one_stream(media)
    await broker.append(stream, b"a")
    broker.metadata.gate = asyncio.Event()
    flush = asyncio.create_task(broker.streams.flush())
    await until(lambda: object_key(1) in media.store.objects)
    opening = asyncio.create_task(broker.streams.open([1]))
    for _ in range(20):
        await asyncio.sleep(0)
    broker.metadata.gate.set()
    await flush
    (stream,) = await opening
    assert broker.fatal == [] and stream.epoch == 2


async def delete_while_an_object_is_stored(media, broker, stream_id: int) -> None:  # type: ignore[no-untyped-def]
    """Flushes; the stream goes while the first object is on its way."""
    media.store.fail("put", "slow")
    flush = asyncio.create_task(broker.streams.flush())
    await until(lambda: media.store.calls)
    del media.tables.streams[stream_id]
    broker.streams.delete([stream_id])
    media.store.gate.set()
    await flush


async def test_a_stream_deleted_during_its_upload_leaves_the_others_alone(media) -> None:
    media.tables.create(1, 2)
    broker = media.broker()
    one, two = await broker.start(1, 2)
    await broker.append(one, bytes(5000))
    await broker.append(two, b"b")
    await delete_while_an_object_is_stored(media, broker, 1)
    assert media.tables.objects[1].ranges == (StreamRange(2, 1, 0, 1),)
    assert b"".join(await two.read(0, 1, 9)) == b"b"
    assert broker.streams.appender.unuploaded_bytes == 0 and broker.streams.appender.dirty == {}


async def test_a_stream_deleted_between_two_objects_of_its_upload_ends_it(media) -> None:
    """Benchmarks found it: a topic was deleted while its records were on their way to objects, and the server ended."""
    media.tables.create(1, 2)
    broker = media.broker(object_bytes=1000, block_bytes=500)
    one, two = await broker.start(1, 2)
    for _ in range(10):
        await broker.append(one, bytes(400))
    await broker.append(two, b"b")
    await delete_while_an_object_is_stored(media, broker, 1)
    assert broker.fatal == []
    assert b"".join(await two.read(0, 1, 9)) == b"b"


async def test_the_loop_is_given_back_between_blocks(media) -> None:
    broker, stream = await one_stream(media, log_cache_bytes=1 << 22, upload_bytes=1 << 30)
    for _ in range(300):
        await broker.append(stream, bytes(1000))
    turns = 0
    flush = asyncio.create_task(broker.streams.flush())
    while not flush.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns > 300, "a block of 1 KiB at a time"


@pytest.mark.parametrize("point", ["before put", "after put", "after commit"])
async def test_power_cuts_around_the_commit(media, point: str) -> None:
    broker, stream = await one_stream(media)
    stream.set_checkpointer(lambda: b"at %d" % stream.next_offset)
    for n in range(5):
        await broker.append(stream, bytes([n]) * 10, 10)
    flush = asyncio.create_task(broker.streams.flush())
    if point == "before put":
        media.store.fail("put", "slow")
        await until(lambda: media.store.calls)
    elif point == "after put":
        broker.metadata.gate = asyncio.Event()
        await until(lambda: media.store.objects)
    else:
        broker.wal.trim = lambda position: asyncio.Event().wait()
        await until(lambda: media.tables.streams[1].end_offset == 50)
    await broker.crash(Random(3))
    flush.cancel()
    again, stream = await reopened(media, 1)
    assert stream.next_offset == 50
    assert b"".join(await stream.read(0, 50, 999)) == b"".join(bytes([n]) * 10 for n in range(5))
    assert stream.checkpoint == (b"at 50" if point == "after commit" else b"")
    assert again.streams.recovered_streams == (0 if point == "after commit" else 1)
    await again.append(stream, b"more")
    await again.streams.flush()
    assert b"".join(await stream.read(0, 51, 999)).endswith(b"more")


async def test_a_wal_full_of_deleted_streams_makes_room(media) -> None:
    """Nothing is left to upload, so no upload moves the trim: without one of its own the WAL would stay full."""
    media.tables.create(1, 2)
    broker = media.broker(wal_bytes=1000)
    stream, other = await broker.start(1, 2)
    await broker.append(stream, bytes(900))
    del media.tables.streams[1]
    broker.streams.delete([1])
    broker.metadata.fail("trim_wal", "unavailable")
    await broker.streams.reserve(200, DEADLINE_S)
    assert (media.tables.wal_trim, broker.streams.uploader.uploads) == (1, 0)
    await other.append(0, 1, 0, bytes(200))
    broker, other = await reopened(media, 2)
    assert await other.read(0, 1, 1000) == [bytes(200)]


async def test_a_wal_full_of_deleted_streams_makes_room_after_a_restart(media) -> None:
    media.tables.create(1, 2)
    broker = media.broker(wal_bytes=1000)
    stream, _ = await broker.start(1, 2)
    await broker.append(stream, bytes(900))
    del media.tables.streams[1]
    await broker.crash()
    broker = media.broker(wal_bytes=1000)
    await broker.start(2)
    await broker.streams.reserve(200, DEADLINE_S)
    assert media.tables.wal_trim == 1


async def test_the_trim_passes_a_stream_that_is_deleted_while_it_is_cut(media) -> None:
    broker, stream = await one_stream(media, manual=True)
    broker.append(stream, b"x")
    flush = asyncio.create_task(broker.streams.flush())
    await turns()
    del media.tables.streams[1]
    broker.streams.delete([1])
    broker.wal.sync()
    await until(lambda: media.tables.wal_trim == 1)
    assert media.wal_log.records == {}
    await flush


async def test_a_commit_whose_answer_was_lost_and_whose_object_gc_took_is_no_damage(media) -> None:
    """It landed; before that is looked up, all that it held was deleted, and the object with it."""
    broker = media.broker()
    media.tables.create(1)
    (stream,) = await broker.start(1)
    await broker.append(stream, b"x" * 100)
    broker.metadata.fail("commit_object", "applied_then_unknown")
    objects = broker.metadata.objects

    async def slow_lookup():
        broker.metadata.objects = objects
        await stream.trim(1)
        await broker.streams.gc.collect()
        return await objects()

    broker.metadata.objects = slow_lookup
    await broker.streams.flush()
    assert broker.fatal == []
    await broker.append(stream, b"y" * 100)
    await broker.streams.flush()
    assert b"".join(await stream.read(1, 2, 1000)) == b"y" * 100


async def test_what_left_memory_during_an_outage_is_read_from_the_wal_once_and_in_its_order(media) -> None:
    """A round that went stream by stream would fetch each part of an object WAL once for each stream."""
    media.tables.create(1, 2, 3)
    broker = media.broker(log_cache_bytes=12_000, upload_bytes=2000, object_bytes=4000)
    broker.wal.together = 5
    streams = await broker.start(1, 2, 3)
    for stream in streams:
        stream.set_checkpointer(lambda s=stream: b"%d" % s.next_offset)
    broker.metadata.gate = asyncio.Event()  # a commit takes as long as the outage
    for n in range(90):
        await broker.append(streams[n % 3], bytes([n]) * 1000)
    assert broker.streams.cache.capacity.used_bytes <= 12_000, "Produce went on, in bounded memory"
    read: list[int] = []
    fetch = broker.wal.read

    async def watch(position: int):  # type: ignore[no-untyped-def]
        read.append(position)
        return await fetch(position)

    broker.wal.read = watch
    broker.metadata.gate.set()
    await broker.streams.flush()
    assert len(read) > 60 and len(set(read)) == len(read)
    groups = [position // 5 for position in read]
    assert max(abs(one - after) for one, after in pairwise(groups)) <= 2, read
    assert broker.wal.trims == sorted(broker.wal.trims) and len(broker.wal.trims) > 10, "the WAL is freed all along"
    assert media.wal_log.records == {}
    await broker.crash()
    _, *streams = await reopened(media, 1, 2, 3)
    assert [s.checkpoint for s in streams] == [b"30"] * 3
    for at, stream in enumerate(streams):
        assert b"".join(await stream.read(0, 30, 1 << 20)) == b"".join(bytes([n]) * 1000 for n in range(at, 90, 3))


@pytest.mark.parametrize("commits", range(1, 12))
async def test_a_crash_while_the_uploader_catches_up_loses_nothing(media, commits: int) -> None:
    """The trim goes with the last object of what was read together, never ahead of what is in objects."""
    media.tables.create(1, 2, 3)
    broker = media.broker(log_cache_bytes=12_000, upload_bytes=2000, object_bytes=2000)
    broker.wal.together = 4
    streams = await broker.start(1, 2, 3)
    broker.metadata.gate = asyncio.Event()
    for n in range(60):
        await broker.append(streams[n % 3], bytes([n]) * 1000)
    commit, done = broker.metadata.commit_object, 0

    async def few(*args) -> None:  # type: ignore[no-untyped-def]
        nonlocal done
        if done == commits:
            await asyncio.Event().wait()
        await commit(*args)
        done += 1

    broker.metadata.commit_object = few
    broker.metadata.gate.set()
    await until(lambda: done == commits)
    await broker.crash()
    _, *streams = await reopened(media, 1, 2, 3)
    for at, stream in enumerate(streams):
        assert stream.next_offset == 20
        assert b"".join(await stream.read(0, 20, 1 << 20)) == b"".join(bytes([n]) * 1000 for n in range(at, 60, 3))


async def test_a_store_that_is_away_while_the_wal_is_read_is_waited_for(media) -> None:
    broker, stream = await one_stream(media, log_cache_bytes=4000, upload_bytes=1000)
    broker.metadata.gate = asyncio.Event()
    for n in range(20):
        await broker.append(stream, bytes([n]) * 1000)
    fetch, failures = broker.wal.read, 3

    async def fail(position: int):  # type: ignore[no-untyped-def]
        nonlocal failures
        if failures:
            failures -= 1
            raise Unavailable("the store is away")
        return await fetch(position)

    broker.wal.read = fail
    broker.metadata.gate.set()
    await broker.streams.flush()
    assert (failures, broker.fatal, media.tables.streams[1].end_offset) == (0, [], 20)


async def test_streams_are_closed_with_what_left_memory(media) -> None:
    media.tables.create(1, 2)
    broker = media.broker(log_cache_bytes=4000, upload_bytes=1000)
    broker.wal.together = 3
    one, two = await broker.start(1, 2)
    broker.metadata.gate = asyncio.Event()
    for n in range(20):
        await broker.append((one, two)[n % 2], bytes([n]) * 1000)
    broker.metadata.gate.set()
    await broker.streams.close_streams([1])
    assert media.tables.streams[1].end_offset == 10 and 1 not in media.tables.owners
    await broker.append(two, b"goes on")
