"""FileWal and others: acknowledging under a lease (hazard C4), and being drained and discarded as an earlier WAL."""

import asyncio
import errno
from collections.abc import Callable
from random import Random
from typing import Any, TypeVar

import pytest
from contracts.wal_contract import append, record, started
from simulation.world.disk import SimDisk, SimFile

from streamlake.core.clock import SystemClock
from streamlake.core.errors import Full, Invalid, NotFound, OutcomeUnknown, Unavailable
from streamlake.core.ids import Ids
from streamlake.core.tasks import Executor, InlineExecutor
from streamlake.s3stream.wal.file.flusher import Flusher
from streamlake.s3stream.wal.file.settings import FileWalSettings
from streamlake.s3stream.wal.file.wal import FileWal

T = TypeVar("T")

SEGMENT_BYTES = 16384
SETTINGS = FileWalSettings(capacity_bytes=8 * SEGMENT_BYTES, segment_bytes=SEGMENT_BYTES)


class FakeLease:
    def __init__(self) -> None:
        self._held = asyncio.Event()
        self._held.set()

    def held(self) -> bool:
        return self._held.is_set()

    async def until_held(self) -> None:
        await self._held.wait()

    def lose(self) -> None:
        self._held.clear()

    def regain(self) -> None:
        self._held.set()


class Paused(InlineExecutor):
    """The process sleeps just before, or just after, what it writes and syncs, until `wake`."""

    def __init__(self, *, after: bool) -> None:
        self.wake = asyncio.Event()
        self._after = after

    async def run(self, fn: Callable[..., T], *args: Any) -> T:
        if not self._after:
            await self.wake.wait()
        result = fn(*args)
        await self.wake.wait()
        return result


def make(
    disk: SimDisk, lease: FakeLease | None = None, *, flush: Executor | None = None, must_exist: bool = False
) -> FileWal:
    executor = InlineExecutor()
    return FileWal(
        "/wal",
        disk,
        executor=executor,
        flusher=Flusher(flush or executor, SystemClock()),
        ids=Ids(1),
        broker_epoch=1,
        lease=lease,
        must_exist=must_exist,
        settings=SETTINGS,
    )


async def turns(n: int = 20) -> None:
    for _ in range(n):
        await asyncio.sleep(0)


# -- the lease ---------------------------------------------------------------------------------------------------------


async def test_what_is_synced_without_the_lease_is_acknowledged_when_it_is_held_again() -> None:
    lease = FakeLease()
    wal = make(SimDisk(), lease)
    _, watcher = await started(wal)
    append(wal, record(1))
    await watcher.until(1)
    lease.lose()
    for n in range(2, 6):  # groups of their own
        append(wal, record(n))
        await turns()
    assert (watcher.durable, wal.durable_position) == ([1], 1)
    with pytest.raises(NotFound):
        await wal.read(2)
    with pytest.raises(Invalid):
        await wal.trim(2)
    lease.regain()
    await watcher.until(5)
    assert watcher.durable == [1, 5]
    assert await wal.read(5) == record(5)
    lease.lose()
    append(wal, record(6))
    await turns()
    lease.regain()
    lease.lose()  # gone again before anybody could look
    await turns()
    assert watcher.durable == [1, 5]
    lease.regain()
    append(wal, record(7))
    await watcher.until(7)
    assert watcher.failed == []
    await wal.close()


async def test_what_waits_for_the_lease_is_bounded_by_the_room() -> None:
    lease = FakeLease()
    wal = make(SimDisk(), lease)
    _, watcher = await started(wal)
    lease.lose()
    n = 0
    with pytest.raises(Full):
        while True:
            await wal.reserve(5000, 0.02)
            n += 1
            wal.append(record(n, 5000))
            await turns()
    assert wal.total_bytes <= SETTINGS.capacity_bytes
    assert (watcher.durable, watcher.failed) == ([], [])
    lease.regain()
    await watcher.until(n)
    await wal.trim(n)
    await wal.reserve(5000, 60)
    await wal.close()


async def test_after_a_failure_the_lease_acknowledges_nothing_more() -> None:
    """A sync failed after another one had returned: that one is not told either, the whole WAL is recovered."""
    disk, lease = SimDisk(), FakeLease()
    wal = make(disk, lease)
    _, watcher = await started(wal)
    lease.lose()
    append(wal, record(1))
    await turns()

    def fail(operation: str, path: str) -> None:
        if operation == "sync":
            raise OSError(errno.EIO, "planned")

    disk.before = fail
    append(wal, record(2))
    await watcher.until_failed()
    disk.before = None
    lease.regain()
    await turns()
    assert (watcher.durable, [type(e) for e in watcher.failed]) == ([], [OutcomeUnknown])
    await wal.close()


async def test_closing_does_not_wait_for_the_lease() -> None:
    disk, lease = SimDisk(), FakeLease()
    wal = make(disk, lease)
    _, watcher = await started(wal)
    lease.lose()
    append(wal, record(1))
    await turns()
    append(wal, record(2))
    await wal.close()
    lease.regain()
    await turns()
    assert watcher.durable == []
    again = make(disk)
    replayed, _ = await started(again)
    assert [position for position, _ in replayed] == [1, 2], "not acknowledged, but not lost"
    await again.close()


async def take_over(monkeypatch: pytest.MonkeyPatch, lease: FakeLease | None, *, after: bool) -> tuple[bool, bool]:
    """A writes one record and sleeps before or after its sync; its lease ends; B on another machine that mounts the
    same disk recovers; A wakes. Was it acknowledged by A; was it replayed by B?"""
    monkeypatch.setattr(SimFile, "lock", lambda self: True)  # a shared disk that breaks the locks of a silent machine
    disk, process = SimDisk(), Paused(after=after)
    zombie = make(disk, lease, flush=process)
    _, watcher = await started(zombie)
    append(zombie, record(1))
    await turns()
    if lease is not None:
        lease.lose()
    successor = make(disk, must_exist=True)
    replayed = [entry async for entry in successor.recover(0)]
    process.wake.set()
    await turns()
    await zombie.close()
    await successor.close()
    return watcher.durable == [1], replayed == [(1, record(1))]


@pytest.mark.parametrize("after", [False, True])
async def test_a_zombie_acknowledges_nothing_that_its_successor_may_not_have_seen(
    monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    acknowledged, replayed = await take_over(monkeypatch, FakeLease(), after=after)
    assert not acknowledged
    assert replayed is after


async def test_without_the_lease_a_zombie_acknowledges_what_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the test above is worth: the same story without the check ends in a lost record."""
    assert await take_over(monkeypatch, None, after=False) == (True, False)


# -- draining ----------------------------------------------------------------------------------------------------------


async def filled(disk: SimDisk, records: int = 12) -> None:
    """A WAL of several segments whose owner was killed."""
    wal = make(disk)
    _, watcher = await started(wal)
    for n in range(1, records + 1):
        await wal.reserve(3000, 60)
        wal.append(record(n, 3000))
    await watcher.until(records)


def segments(disk: SimDisk) -> list[str]:
    return [name for name in disk.listdir("/wal") if name != "lock"]


async def drained(wal: FileWal, trim_position: int = 0) -> int:
    """Replay and trim all; the last position, which a metadata transaction now knows as the trim."""
    last = trim_position
    async for position, _ in wal.recover(trim_position):
        last = position
    await wal.trim(last)
    return last


async def test_a_drained_wal_is_discarded_and_positions_go_on() -> None:
    disk = SimDisk()
    await filled(disk)
    disk = disk.kill()
    wal = make(disk, must_exist=True)
    assert await drained(wal) == 12
    await wal.discard()
    await wal.discard()
    assert segments(disk) == []
    second = make(disk, must_exist=True)
    with pytest.raises(Unavailable, match="in use by another server"):
        await started(second, 12)
    await second.close()
    await wal.close()
    again = make(disk, must_exist=True)
    replayed, watcher = await started(again, 12)
    assert (replayed, append(again, record(13))) == ([], [13])
    await watcher.until(13)
    await again.close()


async def test_what_is_not_trimmed_is_not_discarded() -> None:
    disk = SimDisk()
    await filled(disk)
    disk = disk.kill()
    wal = make(disk)
    assert len([entry async for entry in wal.recover(3)]) == 9
    await wal.trim(11)
    with pytest.raises(Invalid, match="records 12 to 12 that are not trimmed"):
        await wal.discard()
    await wal.close()
    again = make(disk)
    assert len((await started(again, 3))[0]) == 9
    await again.close()


@pytest.mark.parametrize("knows_trim", [True, False])
async def test_a_power_cut_while_discarding_loses_and_resurrects_nothing(knows_trim: bool) -> None:
    """Drains by several brokers leave the trim where it was: whoever begins anew reads from there, and may find the
    first of the records, but no hole between them."""
    found = set()
    for seed in range(60):
        random = Random(seed)
        disk = SimDisk()
        await filled(disk, random.randint(1, 14))
        disk = disk.kill()
        wal = make(disk)
        trim = await drained(wal)
        left = random.randrange(12)

        def cut(operation: str, path: str) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise OSError(errno.EIO, "the power failed")

        disk.before = cut
        try:
            await wal.discard()
        except Unavailable:
            pass
        disk = disk.crash(random)
        await wal.close()
        found.add(len(segments(disk)))
        again = make(disk, must_exist=True)
        if knows_trim:
            assert await drained(again, trim) == trim, f"seed {seed}: something came back"
        else:
            assert await drained(again) <= trim
        await again.discard()
        await again.close()
        assert segments(disk) == []
        last = make(disk, must_exist=True)
        replayed, watcher = await started(last, trim)
        assert (replayed, append(last, record(1))) == ([], [trim + 1])
        await watcher.until(trim + 1)
        await last.close()
    assert len(found) > 2, "cuts in between were tried"


async def test_a_trim_above_all_that_is_there() -> None:
    disk = SimDisk()
    await filled(disk)
    disk = disk.kill()
    wal = make(disk)
    assert await drained(wal, 100) == 100
    await wal.discard()
    await wal.close()
    assert segments(disk) == []


# -- a directory that must be there ------------------------------------------------------------------------------------


async def test_a_missing_directory_is_no_empty_wal() -> None:
    disk = SimDisk()
    wal = make(disk, must_exist=True)
    with pytest.raises(Unavailable, match=r"the WAL in /wal is not there .* bring it back"):
        await started(wal)
    await wal.close()
    assert not disk.is_dir("/wal"), "an error leaves no trace that could pass for a WAL"


async def test_a_place_where_a_disk_is_not_mounted_is_no_empty_wal() -> None:
    disk = SimDisk()
    disk.makedirs("/wal")
    with pytest.raises(Unavailable, match="mount its disk"):
        await make(disk, must_exist=True).prepare()
    disk.open("/wal/lock", create=True)  # what the message offers
    await make(disk, must_exist=True).prepare()


async def test_what_was_prepared_is_there_after_a_power_cut() -> None:
    for seed in range(10):
        disk = SimDisk()
        await make(disk).prepare()
        wal = make(disk.crash(Random(seed)), must_exist=True)
        await wal.prepare()
        replayed, _ = await started(wal)
        assert replayed == []
        await wal.close()
