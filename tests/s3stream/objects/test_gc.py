import asyncio

from support.wait import until

from streamlake.s3stream.objects.format import object_key


async def two_objects(media):  # type: ignore[no-untyped-def]
    media.tables.create(1, 2)
    broker = media.broker()
    one, two = await broker.start(1, 2)
    for _ in range(2):
        await broker.append(one, b"a", 10)
        await broker.append(two, b"b", 10)
        await broker.streams.flush()
    return broker, one, two


async def test_an_object_lives_as_long_as_one_of_its_ranges(media) -> None:
    broker, one, two = await two_objects(media)
    await one.trim(20)
    await two.trim(9)
    await broker.streams.gc.collect()
    assert sorted(media.tables.objects) == [1, 2]
    await two.trim(10)
    await broker.streams.gc.collect()
    assert sorted(media.tables.objects) == [2]
    assert list(media.store.objects) == [object_key(2)]
    assert b"".join(await two.read(10, 20, 9)) == b"b"
    assert broker.streams.gc.deleted_objects == 1


async def test_deleted_streams_free_their_objects(media) -> None:
    broker, *_ = await two_objects(media)
    media.tables.streams.clear()
    broker.streams.delete([1, 2])
    await broker.streams.gc.collect()
    assert media.store.objects == {} and media.tables.objects == {}


async def test_readers_in_flight_have_a_grace_period(media) -> None:
    broker, one, two = await two_objects(media)
    broker.streams.gc._grace_s = 3600
    await one.trim(10)
    await two.trim(10)
    await broker.streams.gc.collect()
    assert media.tables.objects[1].state == "destroyed"
    assert object_key(1) in media.store.objects
    broker.streams.gc._grace_s = 0  # it is over
    await broker.streams.gc.collect()
    assert object_key(1) not in media.store.objects


async def test_an_upload_that_never_was_committed_goes_after_its_deadline(media) -> None:
    broker, *_ = await two_objects(media)
    await media.store.put(object_key(await broker.metadata.prepare_object(1000)), [b"half"])
    await broker.streams.gc.collect()
    assert object_key(3) in media.store.objects
    media.clock.ms += 1001
    await broker.streams.gc.collect()
    assert object_key(3) not in media.store.objects and 3 not in media.tables.objects


async def test_a_crash_between_the_phases_leaks_nothing(media) -> None:
    """Destroyed but not deleted; deleted but not forgotten: the next life ends it."""
    for fault in (
        lambda m, b: m.store.fail("delete", "unavailable"),
        lambda m, b: b.metadata.fail("forget_objects", "unavailable"),
    ):
        media.tables.create(1)
        broker = media.broker()
        (stream,) = await broker.start(1)
        await broker.append(stream, b"a", 10)
        await broker.streams.flush()
        await stream.trim(stream.next_offset)
        fault(media, broker)
        try:
            await broker.streams.gc.collect()
            raise AssertionError("the fault did not show")
        except Exception as error:
            assert "planned" in str(error)
        await broker.crash()
        again = media.broker()
        await again.streams.start()
        await again.streams.gc.collect()
        assert media.store.objects == {} and media.tables.objects == {}
        await again.crash()


async def test_the_loop_survives_passing_errors_and_counts_them(media) -> None:
    media.tables.create(1)
    broker = media.broker(gc_interval_ms=1)
    await broker.start(1)
    broker.metadata.fail("destroyable_objects", "unavailable", times=2)
    while broker.streams.gc.failed_rounds < 2:
        await asyncio.sleep(0.001)
    assert broker.fatal == []


async def test_one_of_several_collects(media) -> None:
    """Who does not, notices when it is its turn."""
    broker, one, two = await two_objects(media)
    await one.trim(20)
    await two.trim(20)
    gc, asked = broker.streams.gc, 0

    def is_ours() -> bool:
        nonlocal asked
        asked += 1
        return asked > 3

    gc._is_ours, gc._interval_s, gc._grace_s = is_ours, 0.0, 0.0
    running = asyncio.create_task(gc.run())
    await until(lambda: gc.deleted_objects)
    assert asked > 3
    running.cancel()
