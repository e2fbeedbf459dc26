"""Streams on the real local store and the real file WAL, over a disk that loses what was not synced (hazard C1)."""

import asyncio
from random import Random

import pytest
from simulation.world.disk import SimDisk
from support.memory_metadata import MetadataTables

from streamlake.core.budget import Budget
from streamlake.core.clock import SystemClock
from streamlake.core.errors import Corrupt
from streamlake.core.ids import Ids
from streamlake.core.tasks import InlineExecutor
from streamlake.s3stream.settings import StreamsSettings
from streamlake.s3stream.store.local import LocalStore
from streamlake.s3stream.stream import Stream
from streamlake.s3stream.streams import Streams
from streamlake.s3stream.wal.file.flusher import Flusher
from streamlake.s3stream.wal.file.settings import FileWalSettings
from streamlake.s3stream.wal.file.wal import FileWal

SETTINGS = StreamsSettings(
    log_cache_bytes=40_000,
    block_cache_bytes=10_000,
    upload_bytes=15_000,
    object_bytes=10_000,
    block_bytes=1000,
    gc_grace_ms=0,
    retry_first_ms=1,
    retry_max_ms=2,
)
WAL = FileWalSettings(capacity_bytes=128 << 10, segment_bytes=16 << 10)


class Lost(AssertionError):
    pass


class Machine:
    """A broker on one disk, and what it has promised."""

    def __init__(self, seed: int, *, syncs: bool = True) -> None:
        self.random = Random(seed)
        self.disk = SimDisk(syncs=syncs)
        self.tables = MetadataTables()
        self.tables.create(1, 2)
        self.chunks: dict[int, list[bytes]] = {1: [], 2: []}  # chunk n has offset n
        self.acked = {1: 0, 2: 0}
        self.streams: Streams | None = None
        self.uploads = 0

    async def boot(self) -> None:
        """Start after whatever happened; all that was acked must be there."""
        executor, ids = InlineExecutor(), Ids(self.random.randint(0, 1 << 30))
        metadata = self.tables.register()
        store = await LocalStore.open("/data/objects", self.disk, executor, ids)
        wal = FileWal(
            "/data/wal",
            self.disk,
            executor=executor,
            flusher=Flusher(executor, SystemClock()),
            ids=ids,
            broker_epoch=metadata.broker_epoch,
            settings=WAL,
        )
        self.streams = Streams(store, wal, metadata, ids, SETTINGS, Budget(1 << 30), lambda error: None)
        await self.streams.start()
        self.open: dict[int, Stream] = {s.stream_id: s for s in await self.streams.open([1, 2])}
        for stream_id, stream in self.open.items():
            if stream.next_offset < self.acked[stream_id]:
                raise Lost(f"stream {stream_id} was acked to {self.acked[stream_id]}, ends at {stream.next_offset}")
            del self.chunks[stream_id][stream.next_offset :]
            self.acked[stream_id] = stream.next_offset
            got = b"".join(await stream.read(0, 1 << 60, 1 << 60))
            if got != b"".join(self.chunks[stream_id]):
                raise Lost(f"stream {stream_id} reads back wrong")

    def append(self, stream_id: int) -> None:
        assert self.streams is not None
        data = self.random.randbytes(self.random.choice((10, 300, 2500)))
        if self.streams.try_reserve(len(data)):
            stream = self.open[stream_id]
            offset = stream.next_offset
            future = stream.append(offset, 1, 0, data)
            self.chunks[stream_id].append(data)
            future.add_done_callback(lambda done: done.exception() or self._ack(stream_id, offset))

    def _ack(self, stream_id: int, offset: int) -> None:
        self.acked[stream_id] = offset + 1

    async def work(self, steps: int) -> None:
        assert self.streams is not None
        for _ in range(steps):
            if self.streams.appender.failure is not None or self.disk.dead:
                return
            if self.random.random() < 0.7:
                self.append(self.random.choice((1, 2)))
            elif self.random.random() < 0.3:
                self.streams.uploader.wake()
            for _ in range(self.random.choice((0, 1, 5, 40))):
                await asyncio.sleep(0)

    async def power_cut(self) -> None:
        """Now, unless it came before. Promises made so far stand; this process's tasks are buried without a word."""
        self.disk = self.after_cut if self.disk.dead else self.disk.crash(self.random)
        await self.bury()

    async def bury(self) -> None:
        assert self.streams is not None
        self.uploads += self.streams.uploader.uploads
        self.streams.appender.close()
        await self.streams._tasks.stop()
        await self.streams.blocks.close()
        await self.streams._wal.close()
        await asyncio.sleep(0)

    def cut_at(self, operations: int) -> None:
        """Let the power fail just before the disk operation that comes so many operations from now."""
        disk, left = self.disk, operations

        def before(operation: str, path: str) -> None:
            nonlocal left
            left -= 1
            if left == 0 and not disk.dead:
                disk.before = None
                self.after_cut = disk.crash(self.random)
                raise OSError("the power failed")

        disk.before = before


async def live(seed: int, *, syncs: bool = True, cuts: int = 5) -> Machine:
    machine = Machine(seed, syncs=syncs)
    for _ in range(cuts):
        await machine.boot()
        if machine.random.random() < 0.8:
            machine.cut_at(machine.random.randint(1, 120))
        await machine.work(60)
        await machine.power_cut()
    await machine.boot()
    await machine.bury()
    return machine


@pytest.mark.parametrize("seed", range(10))
async def test_nothing_acked_is_lost_whenever_the_power_fails(seed: int) -> None:
    machine = await live(seed)
    assert machine.uploads > 0
    assert sum(machine.acked.values()) > 20


async def test_the_judge_notices_a_disk_that_does_not_sync() -> None:
    lost = 0
    for seed in range(10):
        try:
            await live(seed, syncs=False, cuts=2)
        except (Lost, Corrupt):
            lost += 1
    assert lost > 5


async def test_committed_trimmed_and_cut_is_all_there() -> None:
    """C1 step by step: the object holds what the WAL no longer has."""
    machine = Machine(1)
    await machine.boot()
    assert machine.streams is not None
    for _ in range(5):
        machine.append(1)
    await machine.streams.flush()
    assert machine.tables.wal_trim == 5 and machine.acked[1] == 5
    await machine.power_cut()
    await machine.boot()
    assert machine.streams.recovered_streams == 0
    assert machine.open[1].next_offset == 5
    await machine.bury()
