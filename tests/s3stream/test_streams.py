import asyncio
from contextlib import suppress
from random import Random

import pytest

from streamlake.core.errors import Closed, Fenced, Invalid, NotFound, StreamLakeError, Unavailable
from streamlake.s3stream.stream import Stream


async def test_open_bumps_epochs_and_keeps_their_history(media) -> None:
    media.tables.create(1, 2)
    broker = media.broker()
    one, two = await broker.start(1, 2)
    assert (one.epoch, one.epochs, two.epoch) == (1, ((1, 0),), 1)
    await broker.append(one, b"a", 7)
    (one,) = await broker.streams.open([1])
    assert one.epochs == ((1, 0), (2, 7))
    (unknown,) = await broker.streams.open([3])
    assert isinstance(unknown, NotFound)


async def test_streams_created_later_are_opened_like_others(media) -> None:
    broker = media.broker()
    await broker.streams.start()
    media.tables.create(5)
    (stream,) = await broker.streams.open([5])
    await broker.append(stream, b"a")
    await broker.streams.flush()
    assert b"".join(await stream.read(0, 1, 9)) == b"a"


async def test_a_stream_that_another_broker_wrote_is_read_from_its_objects(media) -> None:
    media.tables.create(1)
    broker = media.broker()
    await broker.streams.start()
    other = media.broker()  # another node in truth: same metadata, its epoch is set back below
    (stream,) = await other.start(1)
    await other.append(stream, b"theirs", 6)
    await other.streams.flush()
    await other.crash()
    broker.metadata.broker_epoch = media.tables.broker_epochs[0]
    (stream,) = await broker.streams.open([1])
    assert (stream.next_offset, stream.epochs) == (6, ((1, 0), (2, 6)))
    assert b"".join(await stream.read(0, 6, 99)) == b"theirs"


async def test_a_fenced_broker_ends_by_itself(media) -> None:
    media.tables.create(1)
    broker = media.broker()
    (stream,) = await broker.start(1)
    media.tables.register()
    await broker.append(stream, b"a")
    with pytest.raises(Fenced):
        await broker.streams.flush()
    assert isinstance(broker.fatal[0], Fenced) and len(broker.fatal) == 1
    with pytest.raises(Fenced):
        broker.streams.try_reserve(1)


async def test_close_acks_what_became_durable_and_gives_memory_back(media) -> None:
    media.tables.create(1)
    broker = media.broker(manual=True)
    (stream,) = await broker.start(1)
    acked = broker.append(stream, b"a")
    assert broker.budget.used_bytes > 0
    await broker.streams.close()
    assert acked.result() is None
    assert broker.budget.used_bytes == 0
    with pytest.raises(Closed):
        broker.streams.try_reserve(1)
    (stream,) = await media.broker().start(1)
    assert b"".join(await stream.read(0, 1, 9)) == b"a"


async def test_a_budget_too_small_for_the_caches_is_refused_at_start(media) -> None:
    broker = media.broker()
    broker.budget.total_bytes = 1 << 20
    with pytest.raises(Invalid, match=r"raise memory\.total"):
        await broker.streams.start()


async def test_deleting_streams_frees_their_memory(media) -> None:
    media.tables.create(1)
    broker = media.broker()
    (stream,) = await broker.start(1)
    await broker.append(stream, bytes(5000))
    broker.streams.delete([1, 99])
    assert broker.streams.cache.capacity.used_bytes == 0
    assert broker.streams.appender.unuploaded_bytes == 0
    with pytest.raises(NotFound):
        await stream.read(0, 1, 1)
    await broker.streams.flush()


# -- closing ---------------------------------------------------------------------------------------------------------


async def settle(task: "asyncio.Task[None]") -> None:
    for _ in range(200):
        await asyncio.sleep(0)
    assert not task.done()


async def test_a_closed_stream_is_whole_in_objects_and_another_broker_opens_it(media) -> None:
    media.tables.create(1, 2)
    broker = media.broker()
    one, two = await broker.start(1, 2)
    one.set_checkpointer(lambda: b"at %d" % one.next_offset)
    await asyncio.gather(broker.append(one, b"a", 7), broker.append(one, b"b", 3), broker.append(two, b"c"))
    await broker.streams.close_streams([1, 99])
    assert 1 not in media.tables.owners
    assert broker.streams.appender.dirty.keys() == {2}, "only what is closed is uploaded"
    broker.streams.try_reserve(1)
    with pytest.raises(Closed):
        one.append(10, 1, 0, b"d")
    with pytest.raises(Closed):
        await one.read(0, 10, 99)
    assert (await two.read(0, 1, 99)) == [b"c"]
    other = media.broker()  # a node of its own
    other.metadata.node, other.metadata.broker_epoch = 5, 1
    media.tables.broker_epochs[5] = 1
    objects = await other.metadata.objects()
    other.streams._objects.load(objects, {s.stream_id: s for s in await other.metadata.stream_states()})
    (moved,) = await other.streams.open([1])
    assert (moved.next_offset, moved.checkpoint, moved.checkpoint_offset) == (10, b"at 10", 10)
    assert b"".join(await moved.read(0, 10, 99)) == b"ab"


async def test_what_is_in_flight_is_acknowledged_before_the_stream_is_given_up(media) -> None:
    """Its offsets are given: a next owner that began at the durable end would give them again."""
    media.tables.create(1)
    broker = media.broker(manual=True)
    (stream,) = await broker.start(1)
    in_flight = broker.append(stream, b"a", 3)
    closing = asyncio.create_task(broker.streams.close_streams([1]))
    await settle(closing)
    assert 1 in media.tables.owners and not in_flight.done()
    broker.wal.sync()
    await closing
    assert in_flight.done() and in_flight.exception() is None
    assert (media.tables.streams[1].end_offset, media.tables.owners) == (3, {})


@pytest.mark.parametrize("fault", ["unavailable", "unknown", "applied_then_unknown"])
async def test_a_lost_answer_to_a_close(media, fault: str) -> None:
    media.tables.create(1)
    broker = media.broker()
    (stream,) = await broker.start(1)
    await broker.append(stream, b"a", 3)
    broker.metadata.fail("close_streams", fault)
    await broker.streams.close_streams([1])
    assert media.tables.owners == {} and not broker.fatal
    (stream,) = await broker.streams.open([1])
    await broker.append(stream, b"b", 2)
    assert b"".join(await stream.read(0, 5, 99)) == b"ab"


async def test_a_close_that_is_given_up_leaves_the_stream_to_be_opened_again(media) -> None:
    media.tables.create(1)
    broker = media.broker()
    (stream,) = await broker.start(1)
    await broker.append(stream, b"a", 3)
    media.store.fail("put", "unavailable", times=1000)
    closing = asyncio.create_task(broker.streams.close_streams([1]))
    await settle(closing)
    (again,) = await broker.streams.open([1])
    await broker.append(again, b"b", 2)
    media.store.heal()
    await closing
    assert media.tables.owners == {1: (0, broker.metadata.broker_epoch)}, "the open came later, and counts"
    await broker.append(again, b"c", 1)
    assert b"".join(await again.read(0, 6, 99)) == b"abc"


async def test_an_open_between_two_closes_counts(media) -> None:
    media.tables.create(1)
    broker = media.broker()
    (stream,) = await broker.start(1)
    await broker.append(stream, b"a", 3)
    broker.metadata.fail("close_streams", "unavailable")
    first = asyncio.create_task(broker.streams.close_streams([1]))
    while broker.metadata._planned:  # until it is under way
        await asyncio.sleep(0)
    opening = asyncio.create_task(broker.streams.open([1]))
    await asyncio.sleep(0)
    await asyncio.gather(first, broker.streams.close_streams([1]))
    (again,) = await opening
    await broker.append(again, b"b", 2)
    await broker.streams.flush()
    assert (media.tables.streams[1].end_offset, media.tables.owners) == (5, {1: (0, broker.metadata.broker_epoch)})
    assert b"".join(await again.read(0, 5, 99)) == b"ab"


async def test_after_a_crash_the_wal_gives_back_nothing_of_a_stream_that_moved_away(media) -> None:
    media.tables.create(1)
    broker = media.broker()
    (stream,) = await broker.start(1)
    await broker.append(stream, b"a", 3)
    await broker.streams.close_streams([1])
    await broker.crash()
    heir = media.broker()
    (stream,) = await heir.start(1)
    assert (heir.streams.recovered_streams, heir.streams.skipped_records) == (0, 1)
    await heir.append(stream, b"b", 2)
    assert b"".join(await stream.read(0, 5, 99)) == b"ab"


# -- random lives against a list ---------------------------------------------------------------------------------------

STREAMS = (1, 2, 3)
FAULTS = [
    ("put", "unavailable"), ("put", "late"), ("put", "applied_then_unknown"), ("put", "unknown"), ("put", "full"),
    ("delete", "unavailable"),
]  # fmt: skip
METADATA_FAULTS = [
    ("commit_object", "unavailable"), ("commit_object", "unknown"), ("commit_object", "applied_then_unknown"),
    ("prepare_object", "unknown"), ("objects", "unavailable"), ("stream_states", "unavailable"),
]  # fmt: skip


class Life:
    """A broker that dies and comes back, next to what its streams must hold."""

    def __init__(self, media, seed: int) -> None:
        self.media = media
        self.random = Random(seed)
        self.together = (0, 1, 4)[seed % 3]  # records of the WAL that are read together
        self.chunks: dict[int, list[tuple[int, int, bytes]]] = {s: [] for s in STREAMS}  # (start, end, data)
        self.acked = dict.fromkeys(STREAMS, 0)
        self.starts = dict.fromkeys(STREAMS, 0)
        self.flushes: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        self.broker = self.media.broker(
            manual=True,
            log_cache_bytes=30_000,
            object_bytes=self.random.choice((2000, 20_000)),
            wal_bytes=60_000,
            block_cache_bytes=self.random.choice((0, 5000, 100_000)),
        )
        self.broker.wal.together = self.together
        self.streams: dict[int, Stream] = {}
        self._opened(await self.broker.start(*STREAMS))

    def _opened(self, opened: list[Stream]) -> None:
        for stream in opened:
            self.streams[stream.stream_id] = stream
            chunks = self.chunks[stream.stream_id]
            end = stream.next_offset
            assert end >= self.acked[stream.stream_id], "an acked chunk was lost"
            assert end in {0, *(c[1] for c in chunks)}, "half a chunk came back"
            assert stream.start_offset == self.starts[stream.stream_id]
            assert stream.checkpoint in (b"", b"at %d" % stream.checkpoint_offset)
            assert stream.checkpoint_offset <= end
            del chunks[sum(c[1] <= end for c in chunks) :]
            self.acked[stream.stream_id] = stream.durable_offset  # it may be read from now on
            stream.set_checkpointer(lambda s=stream: b"at %d" % s.next_offset)

    def append(self, stream: Stream) -> None:
        data = self.random.randbytes(self.random.choice((1, 30, 200, 1500, 6000)))
        if not self.broker.streams.try_reserve(len(data)):
            return
        start, count = stream.next_offset, self.random.randint(1, 9)
        self.chunks[stream.stream_id].append((start, start + count, data))

        def acked(future: asyncio.Future[None], stream_id: int = stream.stream_id) -> None:
            if future.exception() is None:
                assert self.acked[stream_id] <= start, "acked in order"
                self.acked[stream_id] = start + count

        stream.append(start, count, self.random.randint(0, 100), data).add_done_callback(acked)

    async def read(self, stream: Stream) -> None:
        stream_id = stream.stream_id
        durable = stream.durable_offset
        start = self.random.randint(self.starts[stream_id], durable)
        end = self.random.randint(start, durable + 5)
        limit = self.random.choice((0, 100, 3000, 100_000))
        got = b"".join(await stream.read(start, end, limit))
        whole = (
            [c[2] for c in self.chunks[stream_id] if c[1] > start and c[0] < min(end, durable)] if start < end else []
        )
        expected = b""
        for data in whole:
            if expected and len(expected) + len(data) > limit:
                break
            expected += data
        assert got == expected

    async def trim(self, stream: Stream) -> None:
        stream_id, to = stream.stream_id, self.random.randint(stream.start_offset, stream.durable_offset)
        if self.random.random() < 0.5:
            to, _ = await stream.retention_point(
                self.random.choice((None, 0, 5000)), self.random.choice((None, 50, 99)), to
            )
        self.broker.wal.sync()  # a trim waits until all that was appended before it is durable
        await stream.trim(to)
        self.starts[stream_id] = max(self.starts[stream_id], to)

    async def give_up(self) -> None:
        """Close streams, and open them again when that is done, or before."""
        ids = self.random.sample(STREAMS, self.random.randint(1, len(STREAMS)))
        closing = asyncio.create_task(self.broker.streams.close_streams(ids))
        await self.pause()
        if self.random.random() < 0.3:
            closing.cancel()
        elif self.random.random() < 0.7:
            self.broker.wal.sync()
            self.media.store.heal()
            self.broker.metadata._planned.clear()
            await closing
            assert not any(stream_id in self.media.tables.owners for stream_id in ids)
        self.flushes.append(closing)
        self.broker.metadata._planned.clear()  # an open that fails is tried again by the layer above
        self._opened(await self.broker.streams.open(ids))

    def flush(self) -> None:
        task = asyncio.create_task(self.broker.streams.flush())
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # a dead broker's flush fails
        self.flushes.append(task)

    async def die(self) -> None:
        """A power cut; or the machine only seems dead, and its uploads go on while the heir works."""
        zombie = self.random.random() < 0.4
        old = self.broker
        if zombie:
            old.metadata.gate = asyncio.Event()
            self.flush()
            await self.pause()
            old.wal.crash(self.random)
        else:
            await old.crash(self.random)
        await self.open()
        if zombie:
            old.metadata.gate.set()
            await self.pause()
            await old.crash(self.random)

    async def pause(self) -> None:
        for _ in range(self.random.choice((1, 5, 30))):
            await asyncio.sleep(0)

    async def step(self) -> None:
        random, stream = self.random, self.random.choice(list(self.streams.values()))
        dice = random.random()
        if dice < 0.35:
            self.append(stream)
        elif dice < 0.55:
            self.broker.wal.sync(random.choice((None, 1, 3)))
        elif dice < 0.75:
            await self.read(stream)
        elif dice < 0.80:
            await self.trim(stream)
        elif dice < 0.87:
            self.flush()
        elif dice < 0.92:
            await self.pause()
        elif dice < 0.93:
            await self.give_up()
        elif dice < 0.94:
            self.media.store.fail(*random.choice(FAULTS), times=random.randint(1, 2))
        elif dice < 0.96:
            self.broker.metadata.fail(*random.choice(METADATA_FAULTS))
        elif dice < 0.98:
            self.media.clock.ms += random.choice((1, 4_000_000))
            with suppress(StreamLakeError):
                await self.broker.streams.gc.collect()
        else:
            self.media.store.land()
            self.broker.metadata._planned.clear()
            await self.die()
        assert self.broker.fatal == []

    async def end(self) -> None:
        """Everything that was acked is there, in the objects alone, with nothing left over."""
        self.media.store.heal()
        self.broker.metadata._planned.clear()
        self.broker.wal.manual = False
        self.broker.wal.sync()
        await self.broker.streams.flush()
        self.media.store.land()
        await self.broker.crash(self.random)
        await self.open()
        assert self.broker.streams.recovered_streams == 0, "the flush left nothing to recover"
        for stream_id, stream in self.streams.items():
            want = b"".join(c[2] for c in self.chunks[stream_id] if c[1] > self.starts[stream_id])
            assert b"".join(await stream.read(self.starts[stream_id], 1 << 60, 1 << 60)) == want
        for task in self.flushes:
            task.cancel()
        await asyncio.gather(*self.flushes, return_exceptions=True)


@pytest.mark.parametrize("seed", range(16))
async def test_random_lives(media, seed: int) -> None:
    media.tables.create(*STREAMS)
    life = Life(media, seed)
    await life.open()
    for _ in range(250):
        await life.step()
    await life.end()


@pytest.mark.parametrize("fault", ["unknown", "applied_then_unknown"])
async def test_a_lost_answer_to_an_open_does_not_fence_us_ourselves(media, fault: str) -> None:
    """Found by simulation: the epoch was raised, nobody told, and the next upload was fenced by our own epoch."""
    media.tables.create(1)
    first = media.broker()
    (stream,) = await first.start(1)
    await first.append(stream, b"tail", 10)
    await first.crash()
    broker = media.broker()
    await broker.streams.start()
    broker.metadata.fail("open_streams", fault)
    broker.metadata.fail("open_streams", "unavailable")
    (stream,) = await broker.streams.open([1])
    await broker.append(stream, b"more", 5)
    await broker.streams.flush()
    assert not broker.fatal
    assert media.tables.streams[1].epoch == stream.epoch


async def test_an_open_that_fails_when_it_has_raised_the_epochs(media, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was opened is uploaded under its new epoch, and can be given up, whether or not it is asked for again."""
    media.tables.create(1, 2)
    first = media.broker()
    (stream,) = await first.start(1)
    await first.append(stream, b"tail", 10)
    await first.crash()
    broker = media.broker()
    await broker.streams.start()

    async def away(states: object) -> None:
        raise Unavailable("the metadata store is away: the objects of a stream that came from elsewhere are not known")

    with monkeypatch.context() as patch:
        patch.setattr(broker.streams, "_refresh", away)
        with pytest.raises(Unavailable):
            await broker.streams.open([1, 2])
    await broker.streams.flush()
    assert not broker.fatal
    await broker.streams.close_streams()
    assert media.tables.owners == {}
