"""FileWal: the WAL contract on both disks, what it does when the disk fails, and random lives with power cuts."""

import asyncio
import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import pytest
from contracts.wal_contract import Replayed, WalContract, Watcher, append, record, started
from simulation.world.disk import SimDisk
from support.wal_lives import Life, Violation

from streamlake.core.clock import SystemClock
from streamlake.core.disk import Disk, RealDisk
from streamlake.core.errors import Closed, Corrupt, Full, NotFound, OutcomeUnknown, Unavailable
from streamlake.core.ids import Ids
from streamlake.core.tasks import Executor, InlineExecutor, ThreadExecutor
from streamlake.s3stream.wal.file import directory as directory_module
from streamlake.s3stream.wal.file import wal as wal_module
from streamlake.s3stream.wal.file.flusher import Flusher
from streamlake.s3stream.wal.file.format import RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES
from streamlake.s3stream.wal.file.settings import FileWalSettings
from streamlake.s3stream.wal.file.wal import FileWal

T = TypeVar("T")

SEGMENT_BYTES = 32768
SETTINGS = FileWalSettings(capacity_bytes=4 * SEGMENT_BYTES, segment_bytes=SEGMENT_BYTES, group_bytes=4096)


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of planned failures need no traceback each."""
    monkeypatch.setattr("streamlake.core.tasks.log.error", lambda *args, **kwargs: None, raising=False)


class Place:
    record_bytes_max = SEGMENT_BYTES - SEGMENT_HEADER_BYTES - RECORD_HEADER_BYTES

    def __init__(self, directory: str, disk: Disk, executor: Executor, flush_executor: Executor) -> None:
        self.directory = directory
        self.disk = disk
        self.executor = executor
        self.flush_executor = flush_executor

    def make(self, settings: FileWalSettings = SETTINGS) -> FileWal:
        flusher = Flusher(self.flush_executor, SystemClock())
        return FileWal(
            self.directory,
            self.disk,
            executor=self.executor,
            flusher=flusher,
            ids=Ids(1),
            broker_epoch=1,
            settings=settings,
        )

    async def reopen(self, trim_position: int) -> tuple[Replayed, FileWal, Watcher]:
        wal = self.make()
        replayed, watcher = await started(wal, trim_position)
        return replayed, wal, watcher


class Gated(InlineExecutor):
    """Runs nothing, or not this function, before the gate is open."""

    def __init__(self, gate: asyncio.Event, only: str = "") -> None:
        self._gate = gate
        self._only = only

    async def run(self, fn: Callable[..., T], *args: Any) -> T:
        if self._only in ("", fn.__name__):
            await self._gate.wait()
        return fn(*args)


class TestOnRealDisk(WalContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Iterator[Place]:
        executors = ThreadExecutor("wal", 2), ThreadExecutor("flusher")
        yield Place(str(tmp_path / "wal"), RealDisk(), *executors)
        for executor in executors:
            executor.close()


class TestOnSimDisk(WalContract):
    @pytest.fixture
    def place(self) -> Place:
        return sim_place()


def sim_place() -> Place:
    return Place("/wal", SimDisk(), InlineExecutor(), InlineExecutor())


@pytest.fixture
def place() -> Place:
    return sim_place()


@pytest.fixture
def disk(place: Place) -> SimDisk:
    assert isinstance(place.disk, SimDisk)
    return place.disk


def fail_at(disk: SimDisk, operation: str, error: BaseException, *, suffix: str = ".wal") -> list[str]:
    """Every such operation fails from now on; the list tells how often it was tried."""
    tried: list[str] = []

    def before(name: str, path: str) -> None:
        if name == operation and path.endswith(suffix):
            tried.append(path)
            raise error

    disk.before = before
    return tried


async def write(wal: FileWal, watcher: Watcher, first: int, last: int, size_bytes: int = 9000) -> None:
    for n in range(first, last + 1):
        await wal.reserve(size_bytes, 60)
        assert wal.append(record(n, size_bytes)) == n
    await watcher.until(last)


async def turns(n: int = 20) -> None:
    for _ in range(n):
        await asyncio.sleep(0)


# -- one life after the other ------------------------------------------------------------------------------------------


async def test_positions_number_records_and_go_on_in_the_next_life(place: Place) -> None:
    wal = place.make()
    _, watcher = await started(wal)
    assert append(wal, *(record(n) for n in range(1, 11))) == list(range(1, 11))
    await watcher.until(10)
    await wal.close()

    replayed, wal, watcher = await place.reopen(4)
    assert [position for position, _ in replayed] == [5, 6, 7, 8, 9, 10]
    assert wal.durable_position == 10
    assert await wal.read(7) == record(7), "what was replayed can be read"
    await wal.trim(10)
    await wal.close()

    replayed, wal, watcher = await place.reopen(10)
    assert replayed == []
    assert append(wal, record(11)) == [11]
    await watcher.until(11)
    await wal.close()


# -- groups and acks ---------------------------------------------------------------------------------------------------


async def test_what_is_appended_during_a_flush_is_one_group(place: Place) -> None:
    gate = asyncio.Event()
    place.flush_executor = Gated(gate)
    wal = place.make()
    _, watcher = await started(wal)
    append(wal, record(1))
    await turns()
    append(wal, *(record(n) for n in range(2, 10)))
    await turns()
    assert watcher.durable == [], "nothing is acked before its sync has returned"
    assert wal.durable_position == 0
    with pytest.raises(NotFound):
        await wal.read(1)
    gate.set()
    await watcher.until(9)
    assert watcher.durable == [1, 9]
    assert (wal.appended_records, wal.appended_bytes) == (9, 900)
    await wal.close()


async def test_a_group_is_bounded(place: Place) -> None:
    wal = place.make()
    _, watcher = await started(wal)
    append(wal, *(record(n, size_bytes=1500) for n in range(1, 9)))
    await watcher.until(8)
    assert watcher.durable == [3, 6, 8]
    await wal.close()


@pytest.mark.parametrize("operation", ["pwrite", "sync"])
async def test_a_failed_flush_is_the_end(place: Place, disk: SimDisk, operation: str) -> None:
    wal = place.make()
    _, watcher = await started(wal)
    append(wal, record(1))
    await watcher.until(1)
    tried = fail_at(disk, operation, OSError(errno.EIO, "planned"))
    append(wal, record(2))
    await watcher.until_failed()
    append_error = pytest.raises(Closed, match="planned")
    with append_error:
        wal.append(record(3))
    with append_error:
        wal.try_reserve(1)
    with append_error:
        await wal.reserve(1, 60)
    disk.before = None
    await turns()
    assert watcher.durable == [1]
    assert [type(error) for error in watcher.failed] == [OutcomeUnknown]
    assert len(tried) == 1, "a failed sync is not repeated: after it, success would mean nothing"
    assert await wal.read(1) == record(1)
    await wal.close()
    assert len(watcher.failed) == 1


async def test_all_that_waits_fails_with_it(place: Place, disk: SimDisk) -> None:
    wal = place.make()
    _, watcher = await started(wal)
    with pytest.raises(Full):
        while True:
            await wal.reserve(5000, 0.05)
    waiter = asyncio.create_task(wal.reserve(5000, 60))
    await turns(2)
    fail_at(disk, "sync", OSError(errno.EIO, "planned"))
    wal.append(record(1))
    wal.append(record(2))
    await watcher.until_failed()
    with pytest.raises(Closed):
        await waiter
    assert watcher.durable == []
    await wal.close()


# -- segments ----------------------------------------------------------------------------------------------------------


async def test_segments_are_made_ahead_and_then_recycled(place: Place, disk: SimDisk) -> None:
    wal = place.make()
    _, watcher = await started(wal)
    files = None
    for n in range(1, 60):
        await write(wal, watcher, n, n)
        await wal.trim(n - 1)
        await turns(2)
        if n == 20:
            files = disk.listdir("/wal")
    assert disk.listdir("/wal") == files, "no file is made or removed once there are enough"
    assert wal.total_bytes <= SETTINGS.capacity_bytes
    assert wal.used_bytes <= 2 * SEGMENT_BYTES
    await wal.close()


async def test_acks_never_wait_for_the_making_of_a_segment(place: Place) -> None:
    wal = place.make()
    _, watcher = await started(wal)
    await turns()
    gate = asyncio.Event()
    wal._executor = Gated(gate)
    append(wal, *(record(n, size_bytes=9000) for n in range(1, 6)))
    await watcher.until(5)
    assert wal.used_bytes == 2 * SEGMENT_BYTES
    gate.set()
    await wal.close()


async def test_a_full_disk_is_said_and_the_wal_lives_on(
    place: Place, disk: SimDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wal_module, "PREPARE_RETRY_S", 0.01)
    disk.capacity_bytes = 3 * SEGMENT_BYTES + 100
    wal = place.make()
    _, watcher = await started(wal)
    n = 0
    with pytest.raises(Full, match="no space left"):
        while True:
            await wal.reserve(9000, 0.05)
            n += 1
            wal.append(record(n, size_bytes=9000))
            await watcher.until(n)
    assert n == 6, "two segments are filled, the third is the slack"
    await wal.trim(n)
    await write(wal, watcher, n + 1, n + 1)
    assert watcher.failed == []
    await wal.close()


async def test_a_wal_that_is_full_at_start_can_be_recovered_and_emptied(place: Place, disk: SimDisk) -> None:
    wal = place.make()
    _, watcher = await started(wal)
    n = 0
    while wal.try_reserve(9000):
        n += 1
        wal.append(record(n, size_bytes=9000))
        await watcher.until(n)
        await turns()
    disk = disk.kill()
    await wal.close()
    disk.capacity_bytes = disk.used_bytes
    place.disk = disk
    wal = place.make()
    replayed, watcher = await started(wal)
    assert len(replayed) == n
    assert not wal.try_reserve(9000)
    await wal.trim(n)
    await write(wal, watcher, n + 1, n + 1)
    await wal.close()


async def test_a_new_segment_size_takes_over_as_old_segments_are_trimmed(place: Place, disk: SimDisk) -> None:
    wal = place.make()
    _, watcher = await started(wal)
    await write(wal, watcher, 1, 4)
    await wal.close()
    wal = place.make(FileWalSettings(capacity_bytes=3 * 65536, segment_bytes=65536, group_bytes=4096))
    replayed, watcher = await started(wal)
    assert len(replayed) == 4
    for n in range(5, 40):
        await write(wal, watcher, n, n, 20000)
        await wal.trim(n)
        await turns(2)
    assert {disk.size(f"/wal/{name}") for name in disk.listdir("/wal") if name != "lock"} == {65536}
    await wal.close()


# -- reading and recovering --------------------------------------------------------------------------------------------


async def test_damage_is_named_when_read(place: Place, disk: SimDisk) -> None:
    wal = place.make()
    _, watcher = await started(wal)
    append(wal, record(1), record(2))
    await watcher.until(2)
    disk.flip("/wal/000000000001.wal", SEGMENT_HEADER_BYTES + RECORD_HEADER_BYTES + 5)
    with pytest.raises(Corrupt, match=rf"/wal/000000000001.wal: record 1 at offset {SEGMENT_HEADER_BYTES}"):
        await wal.read(1)
    assert await wal.read(2) == record(2)
    await wal.close()


async def test_a_record_trimmed_while_it_is_read_is_not_found(place: Place, disk: SimDisk) -> None:
    gate = asyncio.Event()
    wal = place.make()
    _, watcher = await started(wal)
    wal._executor = Gated(gate, only="pread")
    await write(wal, watcher, 1, 6)
    reading = asyncio.create_task(wal.read(1))
    await turns(2)
    for n in range(7, 16):  # until the segment of record 1 has been written over
        await wal.trim(n - 1)
        await write(wal, watcher, n, n)
    gate.set()
    with pytest.raises(NotFound, match="trimmed"):
        await reading
    await wal.close()


async def test_a_second_server_on_the_directory_is_refused(place: Place) -> None:
    first = place.make()
    await started(first)
    second = place.make()
    with pytest.raises(Unavailable, match="/wal is in use by another server"):
        await started(second)
    await second.close()
    append(first, record(1))
    await first.close()
    third = place.make()
    replayed, _ = await started(third)
    assert len(replayed) == 1
    await third.close()


async def test_a_failing_disk_at_recovery_is_unavailable_and_leaves_the_directory_free(
    place: Place, disk: SimDisk
) -> None:
    wal = place.make()
    await started(wal)
    append(wal, record(1))
    await wal.close()
    fail_at(disk, "pread", OSError(errno.EIO, "planned"))
    wal = place.make()
    with pytest.raises(Unavailable, match="planned"):
        await started(wal)
    await wal.close()
    disk.before = None
    wal = place.make()
    assert len((await started(wal))[0]) == 1
    await wal.close()


async def test_acked_records_survive_a_power_cut_and_unacked_ones_may_not(place: Place, disk: SimDisk) -> None:
    outcomes = set()
    for seed in range(30):
        place = sim_place()
        wal = place.make()
        _, watcher = await started(wal)
        append(wal, record(1))
        await watcher.until(1)
        assert isinstance(place.disk, SimDisk)
        fail_at(place.disk, "sync", RuntimeError("power"))
        append(wal, record(2))
        await watcher.until_failed()
        place.disk = place.disk.crash(Random(seed))
        await wal.close()
        again = place.make()
        replayed, _ = await started(again)
        outcomes.add(tuple(position for position, _ in replayed))
        assert replayed[0] == (1, record(1))
        await again.close()
    assert outcomes == {(1,), (1, 2)}


# -- lives -------------------------------------------------------------------------------------------------------------


async def live(seeds: range, *, lives: int = 12, syncs: bool = True) -> tuple[int, int]:
    recoveries = replayed = 0
    for seed in seeds:
        life = Life(seed, syncs=syncs)
        try:
            await life.run(lives)
        except Violation as violation:
            raise Violation(f"seed {seed}: {violation}") from violation
        recoveries += life.recoveries
        replayed += life.replayed
    return recoveries, replayed


async def test_random_lives_lose_nothing_and_resurrect_nothing() -> None:
    recoveries, replayed = await live(range(200))
    assert recoveries > 1500
    assert replayed > 5000


async def test_without_sync_records_are_lost_and_it_is_noticed() -> None:
    with pytest.raises(Violation):
        await live(range(20), syncs=False)


async def test_without_hardening_the_end_it_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory_module, "harden_segment", lambda segment, tail: None)
    with pytest.raises(Violation):
        await live(range(400))


async def test_without_syncing_the_directory_it_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SimDisk, "sync_dir", lambda self, path: None)
    with pytest.raises(Violation, match="lost"):
        await live(range(400))


async def test_acking_before_the_sync_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def write_only(self: Flusher, file, buffers, offset) -> None:  # type: ignore[no-untyped-def]
        file.pwrite(buffers, offset)

    monkeypatch.setattr(Flusher, "flush", write_only)
    with pytest.raises(Violation):
        await live(range(20))
