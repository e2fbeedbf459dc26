"""Objects are replaced by fewer ones, and nobody but the bill notices."""

import asyncio
from dataclasses import replace
from random import Random

import pytest
from support.wait import until

from streamlake.core.errors import Closed, Corrupt, Fenced, NotFound, Unavailable
from streamlake.s3stream.objects.format import object_key

FAN_IN = 16  # of uploads: enough for two merges of small ranges


async def uploads(broker, streams, count: int = FAN_IN, size: int = 200) -> None:
    """Objects that each hold one chunk of two offsets of each stream."""
    for _ in range(count):
        for stream in streams:
            data = b"%d:%d " % (stream.stream_id, stream.next_offset)
            await broker.append(stream, data.ljust(size, b"."), 2, timestamp=stream.next_offset)
        await broker.streams.flush()


async def started(media, *stream_ids: int, count: int = FAN_IN, **settings):
    media.tables.create(*stream_ids)
    broker = media.broker(**settings)
    streams = await broker.start(*stream_ids)
    await uploads(broker, streams, count)
    return broker, streams


async def content(stream) -> bytes:
    """All of a stream; from objects, as nothing is in memory here."""
    parts, offset = [], stream.start_offset
    for _ in range(10_000):
        if offset == stream.durable_offset:
            return b"".join(parts)
        entry = stream._reads.objects.find(stream.stream_id, offset)
        end = stream.durable_offset if entry is None else entry.end_offset
        parts += await stream.read(offset, end, 1 << 30)
        offset = end
    raise AssertionError("no progress")


def evict(broker) -> None:
    """Everything that is in objects leaves memory."""
    broker.streams.cache.evict(broker.streams.cache.capacity.total_bytes, 0)
    broker.streams.blocks.limit_bytes, limit = 0, broker.streams.blocks.limit_bytes
    while broker.streams.blocks.used_bytes:
        broker.streams.blocks._drop_one()
    broker.streams.blocks.limit_bytes = limit


def committed(media) -> list[int]:
    return [i for i, row in media.tables.objects.items() if row.state == "committed"]


async def reads_after_a_restart(media, broker, *stream_ids: int) -> list[bytes]:
    await broker.crash()
    again = media.broker()
    return [await content(stream) for stream in await again.start(*stream_ids)]


async def test_many_small_objects_become_one(media) -> None:
    broker, streams = await started(media, 1, 2, 3)
    evict(broker)
    before = [await content(stream) for stream in streams]
    states, trim = list(media.tables.streams.values()), media.tables.wal_trim
    await broker.streams.compactor.compact()
    (new,) = committed(media)
    assert [(r.stream_id, r.start_offset, r.end_offset) for r in media.tables.objects[new].ranges] == [
        (stream_id, 0, 2 * FAN_IN) for stream_id in (1, 2, 3)
    ]
    assert (list(media.tables.streams.values()), media.tables.wal_trim) == (states, trim)
    await broker.streams.gc.collect()
    assert list(media.store.objects) == [object_key(new)]
    evict(broker)
    assert [await content(stream) for stream in streams] == before
    assert broker.streams.compactor.compactions == 1
    assert broker.streams.compactor.compacted_bytes == len(media.store.objects[object_key(new)])
    await uploads(broker, streams, 1)
    before = [await content(stream) for stream in streams]
    assert await reads_after_a_restart(media, broker, 1, 2, 3) == before


async def test_sizes_and_times_are_exact_afterwards(media) -> None:
    broker, (one, two) = await started(media, 1, 2)
    await broker.streams.compactor.compact()
    evict(broker)
    assert one.size_bytes == two.size_bytes == FAN_IN * 200
    assert await one.find_timestamp(11, 2 * FAN_IN) == (12, 14)
    assert await two.max_timestamp(2 * FAN_IN) == (2 * FAN_IN - 2, 2 * FAN_IN - 2, 2 * FAN_IN)
    await one.trim(7)
    assert one.size_bytes == pytest.approx((FAN_IN * 2 - 7) * 100)


async def test_sources_that_others_still_need_stay(media) -> None:
    """Here of a stream with too few ranges."""
    media.tables.create(1, 2)
    broker = media.broker()
    one, two = await broker.start(1, 2)
    await uploads(broker, [one, two], 1)
    await uploads(broker, [one], FAN_IN - 1)
    before = [await content(one), await content(two)]
    await broker.streams.compactor.compact()
    await broker.streams.gc.collect()
    assert sorted(media.tables.objects) == [1, FAN_IN + 1]
    assert [r.stream_id for r in media.tables.objects[1].ranges] == [2]
    evict(broker)
    assert [await content(one), await content(two)] == before


@pytest.mark.parametrize(
    ("operation", "fault"),
    [
        ("prepare_object", "unavailable"),
        ("replace_ranges", "unavailable"),
        ("replace_ranges", "unknown"),
        ("replace_ranges", "applied_then_unknown"),
    ],
)
async def test_a_crash_at_the_metadata_store_loses_and_leaks_nothing(media, operation, fault) -> None:
    broker, streams = await started(media, 1, 2)
    before = [await content(stream) for stream in streams]
    broker.metadata.fail(operation, fault, times=1 if fault == "applied_then_unknown" else 3)
    compacting = asyncio.create_task(broker.streams.compactor.compact())
    await until(lambda: not any(name == operation for name, _ in broker.metadata._planned) or compacting.done())
    compacting.cancel()  # the process dies while it waits to ask again
    await asyncio.gather(compacting, return_exceptions=True)
    assert await reads_after_a_restart(media, broker, 1, 2) == before
    again = media.brokers[-1]
    await again.streams.compactor.compact()
    media.clock.ms += 3_600_001  # what was prepared is not committed any more
    await again.streams.gc.collect()
    assert len(committed(media)) == len(media.tables.objects) == len(media.store.objects) == 1
    evict(again)
    assert [await content(stream) for stream in await again.streams.open([1, 2])] == before


@pytest.mark.parametrize("fault", ["unavailable", "unknown", "applied_then_unknown", "late"])
async def test_a_put_that_fails_leaves_all_as_it_was(media, fault) -> None:
    broker, streams = await started(media, 1, 2)
    before, objects = [await content(stream) for stream in streams], committed(media)
    media.store.fail("put", fault)
    with pytest.raises(Exception, match=r"planned|late|put"):
        await broker.streams.compactor.compact()
    assert committed(media) == objects
    media.store.land()
    await broker.streams.compactor.compact()
    assert len(committed(media)) == 1
    media.clock.ms += 3_600_001
    await broker.streams.gc.collect()
    assert len(media.store.objects) == 1
    evict(broker)
    assert [await content(stream) for stream in streams] == before


async def test_an_answer_that_was_lost_is_looked_up(media) -> None:
    """If the map did not follow, readers would look in objects that gc deletes."""
    broker, streams = await started(media, 1, 2)
    before = [await content(stream) for stream in streams]
    broker.metadata.fail("replace_ranges", "applied_then_unknown")
    broker.metadata.fail("objects", "unavailable")
    await broker.streams.compactor.compact()
    assert broker.streams.compactor.compactions == 1
    await broker.streams.gc.collect()
    evict(broker)
    assert [await content(stream) for stream in streams] == before


async def test_a_zombie_compacts_nothing_while_the_next_owner_uploads_and_trims(media) -> None:
    zombie, _ = await started(media, 1, 2)
    zombie.metadata.gate = asyncio.Event()
    compacting = asyncio.create_task(zombie.streams.compactor.compact())
    await until(lambda: len(media.store.objects) == FAN_IN + 1)  # the new object is stored
    owner = media.broker()
    one, two = await owner.start(1, 2)
    await uploads(owner, [one, two], 2)
    await one.trim(9)
    evict(owner)
    before, objects = [await content(one), await content(two)], committed(media)
    zombie.metadata.gate.set()
    with pytest.raises(Fenced):
        await compacting
    assert committed(media) == objects
    media.clock.ms += 3_600_001
    await owner.streams.gc.collect()
    evict(owner)
    assert [await content(one), await content(two)] == before
    await owner.streams.compactor.compact()
    await owner.streams.gc.collect()
    evict(owner)
    assert [await content(one), await content(two)] == before


async def test_a_zombie_whose_objects_are_gone_says_that_it_is_not_the_owner(media) -> None:
    """And not that they are damaged: its reader looks for the owner."""
    zombie, (stream,) = await started(media, 1)
    owner = media.broker()
    (mine,) = await owner.start(1)
    await owner.streams.compactor.compact()
    media.clock.ms += 3_600_001
    await owner.streams.gc.collect()
    evict(zombie)
    with pytest.raises(Closed, match="another owner"):
        await content(stream)
    zombie.metadata.fail("stream_states", "unavailable")
    with pytest.raises(Unavailable):
        await content(stream)
    assert await content(mine)
    del media.tables.streams[1]
    with pytest.raises(NotFound, match="deleted"):
        await content(stream)


async def test_an_owner_whose_objects_are_gone_says_so(media) -> None:
    broker, (stream,) = await started(media, 1)
    media.store.objects.clear()
    evict(broker)
    with pytest.raises(Corrupt, match="is gone"):
        await content(stream)


async def test_a_fenced_compaction_ends_the_broker(media) -> None:
    broker, _ = await started(media, 1, 2)
    media.tables.register()
    compactor = broker.streams.compactor
    compactor._settings = replace(compactor._settings, compaction_interval_ms=1)
    broker.streams._tasks.start("compaction at once", compactor.run())
    await until(lambda: broker.fatal)
    assert isinstance(broker.fatal[0], Fenced)


async def test_uploads_trims_and_deletions_go_on_during_a_compaction(media) -> None:
    broker, (one, two, three) = await started(media, 1, 2, 3)
    broker.metadata.gate = asyncio.Event()
    compacting = asyncio.create_task(broker.streams.compactor.compact())
    await until(lambda: len(media.store.objects) == FAN_IN + 1)
    await one.trim(9)
    await two.trim(2 * FAN_IN)
    await broker.append(one, b"new", 1)
    kept = await content(one)
    broker.metadata.gate.set()
    await compacting
    await broker.streams.flush()
    assert len(broker.streams._objects.ranges(2)) == 0
    await broker.streams.gc.collect()
    evict(broker)
    assert await content(one) == kept and kept.endswith(b"new")
    assert len(await content(three)) == FAN_IN * 200
    assert await reads_after_a_restart(media, broker, 1) == [kept]


@pytest.mark.parametrize("closing", [True, False], ids=["closed", "deleted"])
async def test_a_stream_that_goes_meanwhile_is_left_alone(media, closing) -> None:
    broker, (one, two) = await started(media, 1, 2)
    before, objects = [await content(one), await content(two)], committed(media)
    media.store.fail("put", "slow")
    compacting = asyncio.create_task(broker.streams.compactor.compact())
    await until(lambda: ("put", object_key(FAN_IN + 1)) in media.store.calls)
    if closing:
        await broker.streams.close_streams([1])
    else:
        del media.tables.streams[1]
        broker.streams.delete([1])
    media.store.heal()
    await compacting
    assert committed(media) == objects and broker.streams.compactor.compactions == 0
    await broker.streams.compactor.compact()
    await broker.streams.gc.collect()
    evict(broker)
    assert await content(two) == before[1]
    if closing:
        (one,) = await broker.streams.open([1])
        assert await content(one) == before[0]


async def test_a_stream_that_comes_back_is_read_where_its_other_owner_put_it(media) -> None:
    broker, (one, two) = await started(media, 1, 2)
    before = await content(one)
    await broker.streams.close_streams([1])
    evict(broker)
    other = media.broker()
    media.tables.broker_epochs[0] = media.tables.wals[0, "memory:"].epoch = broker.metadata.broker_epoch
    vars(other.metadata).update(vars(media.tables.register(5)))  # a node of its own
    await other.streams.open([1])
    await other.streams.compactor.compact()
    assert other.streams.compactor.compactions == 1
    await other.streams.close_streams([1])
    await other.streams.gc.collect()
    (one,) = await broker.streams.open([1])
    evict(broker)
    assert await content(one) == before
    assert len(await content(two)) == FAN_IN * 200


async def test_a_reader_with_an_old_range_finds_the_new_one(media) -> None:
    """Its object is deleted while its request is on the way: grace or not, it is not an error."""
    broker, (one, _) = await started(media, 1, 2)
    expected = (await one.read(0, 2, 1 << 30))[0]
    evict(broker)
    media.store.fail("get_range", "slow", key=object_key(1))
    reading = asyncio.create_task(one.read(0, 2, 1 << 30))
    await until(lambda: ("get_range", object_key(1)) in media.store.calls)
    other = media.broker()  # it stands for the compactor of this broker, which would wait for the same request
    await other.start(1, 2)
    await other.streams.compactor.compact()
    await other.streams.gc.collect()
    for stream_id in (1, 2):
        broker.streams._objects.replace(stream_id, other.streams._objects.ranges(stream_id)[0])
    media.store.heal()
    assert b"".join(await reading) == expected
    evict(broker)
    entry = broker.streams._objects.find(1, 0)
    assert entry is not None and entry.object_id > FAN_IN
    with pytest.raises(NotFound):
        await media.store.get_range(object_key(1), 0, 1)
    assert b"".join(await one.read(0, 2, 1 << 30)) == expected


async def test_what_deleted_streams_leave_is_given_back(media) -> None:
    """One small stream keeps objects of large ones alive: it leaves them."""
    media.tables.create(1, 2)
    broker = media.broker()
    small, large = await broker.start(1, 2)
    for _ in range(3):
        await broker.append(small, b"s" * 61)  # the smallest batch of Kafka
        await broker.append(large, b"L" * 5000)
        await broker.streams.flush()
    await broker.streams.compactor.compact()
    assert committed(media) == [1, 2, 3], "nothing is worth it"
    await large.trim(2)
    await broker.streams.compactor.compact()
    await broker.streams.gc.collect()
    assert committed(media) == [3, 4]
    assert [r.end_offset for r in media.tables.objects[4].ranges] == [2]
    evict(broker)
    assert await content(small) == b"s" * 183
    assert await content(large) == b"L" * 5000
    await broker.streams.compactor.compact()
    assert committed(media) == [3, 4], "what was just written is not sparse"


async def test_a_damaged_source_is_told_once_and_left_alone(media) -> None:
    broker, (one, _) = await started(media, 1, 2, count=2 * FAN_IN + 1)
    damaged = bytearray(media.store.objects[object_key(5)])
    damaged[30] ^= 1  # in a block
    media.store.objects[object_key(5)] = bytes(damaged)
    compactor = broker.streams.compactor
    for _ in range(3):
        await compactor.compact()
    assert compactor.failures == 1
    assert object_key(5) in media.store.objects and 5 in committed(media)
    assert len(committed(media)) < 2 * FAN_IN + 1, "its neighbours are compacted"
    evict(broker)
    with pytest.raises(Corrupt):
        await content(one)
    assert len(await one.read(10, one.next_offset, 1 << 30)) > 0


async def test_it_waits_for_its_turn(media) -> None:
    broker, _ = await started(media, 1, 2, compaction_bytes_per_s=1 << 30)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await broker.streams.compactor.compact()
    read = sum(len(data) for key, data in media.store.objects.items() if key != object_key(FAN_IN + 1))
    at_least = FAN_IN * 2 * 200 / (1 << 30)
    assert begun + at_least <= broker.streams.compactor._free_at
    assert broker.streams.compactor._free_at <= loop.time() + read / (1 << 30)


async def test_the_loop_survives_passing_errors_and_zero_turns_it_off(media) -> None:
    broker, _ = await started(media, 1, 2, compaction_interval_ms=1, compaction_bytes_per_s=1 << 40)
    broker.metadata.fail("prepare_object", "unavailable", times=2)
    await until(lambda: broker.streams.compactor.compactions)
    assert broker.fatal == []
    idle = media.broker(compaction_bytes_per_s=0)
    await idle.streams.start()
    assert [task.get_name() for task in asyncio.all_tasks() if "compaction" in task.get_name()] == ["compaction"]


@pytest.mark.parametrize("seed", range(25))
async def test_any_life_reads_as_if_nothing_was_compacted(media, seed) -> None:
    """Random appends, uploads, trims, rounds, garbage collections, crashes and lost answers, against a list of chunks."""
    random = Random(seed)
    ids = [1, 2, 3]
    media.tables.create(*ids)
    broker = media.broker()
    streams = dict(zip(ids, await broker.start(*ids), strict=True))
    model: dict[int, list[tuple[int, int, bytes]]] = {i: [] for i in ids}
    for _ in range(150):
        step = random.choice("aaauuuutcccgrfo")
        stream_id = random.choice(ids)
        stream = streams[stream_id]
        if step == "a":
            data = random.randbytes(random.choice([10, 200, 3000]))
            base, count = stream.next_offset, random.randint(1, 3)
            await broker.append(stream, data, count)
            model[stream_id].append((base, base + count, data))
        elif step == "u":
            await broker.append(stream, b"x", 1)
            model[stream_id].append((stream.next_offset - 1, stream.next_offset, b"x"))
            await broker.streams.flush()
        elif step == "t" and model[stream_id]:
            at = random.choice(model[stream_id])[0]
            await stream.trim(at)
            model[stream_id] = [chunk for chunk in model[stream_id] if chunk[0] >= at]
        elif step == "c":
            await broker.streams.compactor.compact()
        elif step == "g":
            await broker.streams.gc.collect()
        elif step == "f":
            broker.metadata.fail("replace_ranges", random.choice(["unknown", "applied_then_unknown"]))
        elif step == "o":
            await broker.streams.close_streams([stream_id])
            (streams[stream_id],) = await broker.streams.open([stream_id])
        elif step == "r":
            await broker.crash()
            broker = media.broker()
            streams = dict(zip(ids, await broker.start(*ids), strict=True))
        evict(broker)
        for i, chunks in model.items():
            assert await content(streams[i]) == b"".join(data for *_, data in chunks)
    assert broker.fatal == []
