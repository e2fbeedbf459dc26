"""Recovery over several segments: order, gaps, leftovers, and who may be in the directory."""

from collections.abc import Callable
from random import Random

import pytest
from simulation.world.disk import SimDisk

from streamlake.core.errors import Corrupt, Unavailable
from streamlake.core.ids import Ids
from streamlake.s3stream.wal.file.directory import Recovered, WalDirectory
from streamlake.s3stream.wal.file.format import RECORD_HEADER_BYTES, encode_record_header
from streamlake.s3stream.wal.file.segment import Segment
from streamlake.s3stream.wal.port import WalRecord

SEGMENT_BYTES = 16384


@pytest.fixture
def disk() -> SimDisk:
    return SimDisk()


def directory(disk: SimDisk, segment_bytes: int = SEGMENT_BYTES) -> WalDirectory:
    made = WalDirectory("/wal", disk, Ids(1), segment_bytes)
    made.lock()
    return made


def fill(segment: Segment, first: int, last: int) -> Segment:
    for position in range(first, last + 1):
        record = WalRecord(1, 1, position, 1, 0, b"x")
        header = encode_record_header(
            segment.header, record, broker_epoch=1, position=position, flushed_position=position - 1
        )
        segment.file.pwrite([header, record.data], segment.end)
        segment.add(position, RECORD_HEADER_BYTES + 1)
    segment.file.sync()
    return segment


def recovered(disk: SimDisk, trim_position: int = 0) -> Recovered:
    return directory(disk.kill()).recover(trim_position)


def test_segments_are_found_in_the_order_of_their_use(disk: SimDisk) -> None:
    wal = directory(disk)
    first, second, third = wal.make_segment(), wal.make_segment(), wal.make_segment()
    fill(first, 1, 5)
    fill(second, 6, 9)
    again = wal.reuse(first)
    assert again
    fill(third, 10, 12)
    fill(again, 13, 13)
    found = recovered(disk, trim_position=5)
    assert [(s.first_position, s.last_position) for s in found.live] == [(6, 9), (10, 12), (13, 13)]
    assert (found.next_position, found.spares) == (14, [])


def test_an_empty_directory_goes_on_behind_the_trim(disk: SimDisk) -> None:
    found = directory(disk).recover(41)
    assert (found.live, found.spares, found.next_position) == ([], [], 42)


def test_segments_without_live_records_become_spares_of_a_new_generation(disk: SimDisk) -> None:
    wal = directory(disk)
    fill(wal.make_segment(), 1, 5)
    fill(wal.make_segment(), 6, 6)
    wal.make_segment()
    found = recovered(disk, trim_position=5)
    assert [s.first_position for s in found.live] == [6]
    assert [s.header.generation for s in found.spares] == [4, 5]
    assert [list(s.offsets) for s in found.spares] == [[], []]


def test_a_missing_segment_is_corrupt(disk: SimDisk) -> None:
    wal = directory(disk)
    fill(wal.make_segment(), 1, 5)
    lost = fill(wal.make_segment(), 6, 9)
    fill(wal.make_segment(), 10, 10)
    disk.unlink(lost.path)
    with pytest.raises(Corrupt, match=r"records 6 to 9 of the WAL are missing at offset .* of /wal/000000000001.wal"):
        recovered(disk)
    assert recovered(disk, trim_position=9).next_position == 11


def test_the_first_segment_missing_is_corrupt(disk: SimDisk) -> None:
    fill(directory(disk).make_segment(), 6, 9)
    with pytest.raises(Corrupt, match="records 3 to 5"):
        recovered(disk, trim_position=2)


def test_damage_at_the_end_of_a_segment_is_seen_from_the_next_one(disk: SimDisk) -> None:
    wal = directory(disk)
    first = fill(wal.make_segment(), 1, 5)
    fill(wal.make_segment(), 6, 6)
    disk.flip(first.path, first.end - 1)
    with pytest.raises(Corrupt, match="records 5 to 5 of the WAL are missing"):
        recovered(disk)


def test_a_copied_segment_is_corrupt(disk: SimDisk) -> None:
    segment = fill(directory(disk).make_segment(), 1, 5)
    disk.open("/wal/copy.wal", create=True).pwrite([segment.file.pread(SEGMENT_BYTES, 0)], 0)
    with pytest.raises(Corrupt, match=r"copy\.wal and"):
        recovered(disk)


def test_half_made_files_are_removed_and_others_left_alone(disk: SimDisk) -> None:
    directory(disk)
    disk.open("/wal/000000000001.wal", create=True).pwrite([bytes(5000)], 0)
    disk.open("/wal/notes.txt", create=True)
    after = disk.kill()
    assert directory(after).recover(0).live == []
    assert after.listdir("/wal") == ["lock", "notes.txt"]


def test_a_file_whose_maker_was_killed_becomes_durable_with_its_name(disk: SimDisk) -> None:
    """Killed after the header, before the sync of the directory: visible now, gone after a power cut."""

    def die(operation: str, path: str) -> None:
        if operation == "sync_dir":
            raise RuntimeError("killed")

    wal = directory(disk)
    disk.before = die
    with pytest.raises(RuntimeError):
        wal.make_segment()
    disk = disk.kill()
    fill(directory(disk).recover(0).spares[0], 1, 3)
    for seed in range(20):
        assert directory(disk.crash(Random(seed))).recover(0).next_position == 4


def test_segments_of_another_size_are_read_and_then_removed(disk: SimDisk) -> None:
    wal = directory(disk)
    kept = fill(wal.make_segment(), 1, 5)
    wal.make_segment()
    after = disk.kill()
    wal = directory(after, segment_bytes=2 * SEGMENT_BYTES)
    found = wal.recover(0)
    assert ([s.path for s in found.live], found.spares) == ([kept.path], [])
    assert wal.reuse(found.live[0]) is None
    assert after.listdir("/wal") == ["lock"]
    assert wal.make_segment().file.size() == 2 * SEGMENT_BYTES


def test_a_second_server_is_kept_out(disk: SimDisk) -> None:
    first = directory(disk)
    with pytest.raises(Unavailable, match="/wal is in use by another server"):
        directory(disk)
    first.unlock()
    directory(disk)


@pytest.mark.parametrize("act", [lambda wal: wal.make_segment(), lambda wal: wal.reuse(wal.recover(0).spares[0])])
def test_a_file_whose_sync_failed_is_never_used(disk: SimDisk, act: Callable[[WalDirectory], object]) -> None:
    wal = directory(disk)
    wal.make_segment()
    before = disk.listdir("/wal")
    syncs = 0

    def fail(operation: str, path: str) -> None:
        nonlocal syncs
        if operation == "sync" and path.endswith(".wal"):
            syncs += 1
            if syncs >= 2:
                raise OSError(5, "planned")

    disk.before = fail
    with pytest.raises(OSError):
        act(wal)
    disk.before = None
    assert set(disk.listdir("/wal")) <= set(before)
    assert wal.make_segment().file.size() == SEGMENT_BYTES


async def test_a_directory_says_which_wal_it_is() -> None:
    """Found by simulation: a node that was started on another machine took the directory there for its own, and lost."""
    disk = SimDisk()
    directory = WalDirectory("/wal", disk, Ids(1), 65536)
    directory.lock()
    old, which = directory.create(), directory.create()
    assert old != which, "a new WAL is another one"
    assert len(which) == 32
    directory.check_identity(which)
    with pytest.raises(Unavailable, match="not the one that this broker wrote last"):
        directory.check_identity("another")
    directory.check_identity("")  # entered in the list before there were any
    segment = directory.make_segment()
    with pytest.raises(Unavailable, match="does not know of"):
        directory.create()
    segment.file.close()
    again = WalDirectory("/wal", disk.crash(Random(1)), Ids(2), 65536)
    again.lock(must_exist=True)
    again.check_identity(which)


async def test_an_empty_lock_file_says_that_the_wal_is_lost() -> None:
    disk = SimDisk()
    disk.makedirs("/wal")
    disk.open("/wal/lock", create=True).close()
    directory = WalDirectory("/wal", disk, Ids(1), 65536)
    directory.lock(must_exist=True)
    directory.check_identity("lost")
    with pytest.raises(Unavailable):
        directory.check_identity("another")


def test_a_wal_is_abandoned_when_nobody_holds_its_lock(disk: SimDisk) -> None:
    looking = WalDirectory("/wal", disk.session(), Ids(2), SEGMENT_BYTES)
    assert not looking.is_abandoned("x"), "there is none"
    session = disk.session()
    writer = WalDirectory("/wal", session, Ids(1), SEGMENT_BYTES)
    writer.lock()
    identity = writer.create()
    assert not looking.is_abandoned(identity), "its writer lives"
    session.kill()
    assert looking.is_abandoned(identity)
    assert not looking.is_abandoned("another one")
    writer = WalDirectory("/wal", disk.session(), Ids(1), SEGMENT_BYTES)
    writer.lock()  # that somebody looked keeps nobody out
