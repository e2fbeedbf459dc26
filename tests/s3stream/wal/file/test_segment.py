"""Where a walk over a segment ends, and whether that end is a torn tail or damage."""

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulation.world.disk import SimDisk

from streamlake.core.errors import Corrupt
from streamlake.s3stream.wal.file.format import (
    RECORD_HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    SegmentHeader,
    encode_record_header,
)
from streamlake.s3stream.wal.file.segment import (
    Segment,
    Tail,
    create_segment,
    harden_segment,
    open_segment,
    recycle_segment,
    scan_segment,
)
from streamlake.s3stream.wal.port import WalRecord

PATH = "/wal/1.wal"
HEADER = SegmentHeader(generation=1, segment_bytes=16384, salt=99)
BODY_BYTES = 50
RECORD_BYTES = RECORD_HEADER_BYTES + BODY_BYTES


@pytest.fixture
def disk() -> SimDisk:
    disk = SimDisk()
    disk.makedirs("/wal")
    return disk


def write_group(segment: Segment, first: int, last: int, *, flushed: int | None = None) -> None:
    """Records first..last, written as one group."""
    for position in range(first, last + 1):
        record = WalRecord(1, 1, position, 1, 0, bytes([position]) * BODY_BYTES)
        header = encode_record_header(
            segment.header,
            record,
            broker_epoch=1,
            position=position,
            flushed_position=first - 1 if flushed is None else flushed,
        )
        segment.file.pwrite([header, record.data], segment.end)
        segment.add(position, RECORD_BYTES)
    segment.file.sync()


def at(index: int) -> int:
    """Offset of the record with this index in the segment."""
    return SEGMENT_HEADER_BYTES + index * RECORD_BYTES


def scanned(disk: SimDisk, next_position: int = 1, trim_position: int = 0) -> tuple[Segment, Tail]:
    segment = open_segment(disk, PATH, trim_position)
    assert segment
    return segment, scan_segment(segment, next_position, trim_position)


def test_a_new_segment_is_empty_and_durable(disk: SimDisk) -> None:
    create_segment(disk, PATH, HEADER)
    segment, tail = scanned(disk)
    assert (segment.header, list(segment.offsets)) == (HEADER, [])
    assert tail == Tail(SEGMENT_HEADER_BYTES, SEGMENT_HEADER_BYTES, SEGMENT_HEADER_BYTES)
    assert segment.file.size() == HEADER.segment_bytes


def test_the_walk_indexes_all_records_and_knows_the_last_group(disk: SimDisk) -> None:
    made = create_segment(disk, PATH, HEADER)
    write_group(made, 5, 7)
    write_group(made, 8, 9)
    segment, tail = scanned(disk, next_position=5)
    assert (segment.first_position, segment.last_position) == (5, 9)
    assert list(segment.offsets) == [at(i) for i in range(5)]
    assert [segment.span(p) for p in (5, 9)] == [(at(0), at(1)), (at(4), at(5))]
    assert tail == Tail(group_offset=at(3), end=at(5), garbage_end=at(5))


def test_a_full_segment_ends_at_its_end(disk: SimDisk) -> None:
    made = create_segment(disk, PATH, HEADER)
    fitting = (HEADER.segment_bytes - SEGMENT_HEADER_BYTES) // RECORD_BYTES
    write_group(made, 1, fitting)
    segment, _ = scanned(disk)
    assert segment.last_position == fitting


def test_recycling_makes_the_old_records_nobodys(disk: SimDisk) -> None:
    made = create_segment(disk, PATH, HEADER)
    write_group(made, 1, 9)
    again = recycle_segment(made, SegmentHeader(2, HEADER.segment_bytes, 7))
    write_group(again, 10, 10)
    segment, tail = scanned(disk, next_position=10)
    assert (segment.first_position, segment.last_position) == (10, 10)
    assert tail.garbage_end == at(9), "what is left of them is to be zeroed"


def test_a_new_header_is_durable_before_the_segment_is_used(disk: SimDisk) -> None:
    made = create_segment(disk, PATH, HEADER)
    recycle_segment(made, SegmentHeader(2, HEADER.segment_bytes, 7))
    for seed in range(20):
        segment = open_segment(disk.crash(Random(seed)), PATH, 0)
        assert segment
        assert segment.header.generation == 2


def test_a_half_made_segment_has_no_header(disk: SimDisk) -> None:
    """Whenever the power goes, a file with a header is whole: its zeros were durable before."""
    for step in range(1, 8):
        for seed in range(20):
            disk = SimDisk()
            disk.makedirs("/wal")
            disk.before = stop_at(step)
            try:
                create_segment(disk, PATH, HEADER)
            except RuntimeError:
                pass
            after = disk.crash(Random(seed))
            if after.listdir("/wal"):
                segment = open_segment(after, PATH, 0)
                assert segment is None or segment.file.size() == HEADER.segment_bytes


def stop_at(step: int) -> Callable[[str, str], None]:
    left = [step]

    def before(operation: str, path: str) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise RuntimeError("power")

    return before


@pytest.mark.parametrize("damaged", [at(2), at(2) + RECORD_HEADER_BYTES + 10], ids=["header", "body"])
def test_a_torn_last_group_is_the_end_not_damage(disk: SimDisk, damaged: int) -> None:
    """Records 3 and 4 were never durable: that 4 is whole and 3 is torn says nothing about acks."""
    made = create_segment(disk, PATH, HEADER)
    write_group(made, 1, 1)
    write_group(made, 2, 4)
    disk.flip(PATH, damaged)
    segment, tail = scanned(disk)
    assert segment.last_position == 2
    assert tail == Tail(group_offset=at(1), end=at(2), garbage_end=at(4))


def test_hardening_kills_whole_records_behind_a_torn_one(disk: SimDisk) -> None:
    """Else a new record 3, as long as the torn one, would be followed by the old 4."""
    made = create_segment(disk, PATH, HEADER)
    write_group(made, 1, 4)
    disk.flip(PATH, at(2))
    segment, tail = scanned(disk)
    harden_segment(segment, tail)
    write_group(segment, 3, 3)
    again, _ = scanned(disk)
    assert again.last_position == 3


def test_hardening_kills_halves_of_headers_too(disk: SimDisk) -> None:
    """The header of 4 straddles a page. Its first half was lost, so it is no header; the new 4 may bring that half."""
    made = create_segment(disk, PATH, HEADER)
    write_group(made, 1, 4)
    half = at(3) + 40
    lost_half = made.file.pread(40, at(3))
    made.file.pwrite([bytes(half - at(2))], at(2))  # 3, and half of the header of 4, never reached the disk
    segment, tail = scanned(disk)
    assert segment.last_position == 2
    harden_segment(segment, tail)
    write_group(segment, 3, 3)
    segment.file.pwrite([lost_half], at(3))
    assert scanned(disk)[0].last_position == 3


def test_hardening_makes_durable_what_only_the_page_cache_had(disk: SimDisk) -> None:
    made = create_segment(disk, PATH, HEADER)
    write_group(made, 1, 2)
    disk.before = fail_syncs
    with pytest.raises(OSError):
        write_group(made, 3, 4)  # visible, but its pages are marked clean: no later sync writes them
    disk = disk.kill()
    segment, tail = scanned(disk)
    assert segment.last_position == 4
    harden_segment(segment, tail)
    for seed in range(20):
        found, _ = scanned(disk.crash(Random(seed)))
        assert found.last_position == 4


def fail_syncs(operation: str, path: str) -> None:
    if operation == "sync":
        raise OSError(5, "planned")


@pytest.mark.parametrize("damaged", [at(1), at(1) + RECORD_HEADER_BYTES])
def test_damage_before_a_later_group_is_corrupt(disk: SimDisk, damaged: int) -> None:
    made = create_segment(disk, PATH, HEADER)
    write_group(made, 1, 3)
    write_group(made, 4, 4)
    disk.flip(PATH, damaged)
    with pytest.raises(Corrupt, match=rf"{PATH}: record 2 at offset {at(1)} is damaged"):
        scanned(disk)


def test_damage_in_a_group_that_reaches_below_the_trim_is_corrupt(disk: SimDisk) -> None:
    """1 and 2 are trimmed, so their group was durable, so 3 was acked although no later group says so."""
    made = create_segment(disk, PATH, HEADER)
    write_group(made, 1, 4)
    disk.flip(PATH, at(2))
    with pytest.raises(Corrupt, match="record 3"):
        scanned(disk, next_position=3, trim_position=2)


def test_damage_among_trimmed_records_matters_only_if_others_follow(disk: SimDisk) -> None:
    made = create_segment(disk, PATH, HEADER)
    write_group(made, 1, 4)
    disk.flip(PATH, at(1))
    assert scanned(disk, next_position=5, trim_position=4)[0].last_position == 1
    with pytest.raises(Corrupt, match="record 2"):
        scanned(disk, next_position=4, trim_position=3)


def test_damage_at_the_very_first_record_is_corrupt(disk: SimDisk) -> None:
    made = create_segment(disk, PATH, HEADER)
    write_group(made, 1, 2)
    write_group(made, 3, 3)
    disk.flip(PATH, at(0) + 3)
    with pytest.raises(Corrupt, match="record 1"):
        scanned(disk)


def test_a_header_that_was_never_finished_means_an_empty_file(disk: SimDisk) -> None:
    disk.open(PATH, create=True).pwrite([bytes(HEADER.segment_bytes)], 0)
    assert open_segment(disk, PATH, 0) is None
    disk.open("/wal/2.wal", create=True)
    assert open_segment(disk, "/wal/2.wal", 0) is None


def test_a_damaged_header_over_live_records_is_corrupt(disk: SimDisk) -> None:
    made = create_segment(disk, PATH, HEADER)
    write_group(made, 5, 6)
    disk.flip(PATH, 9)
    assert open_segment(disk, PATH, 6) is None, "all trimmed: nothing is lost"
    with pytest.raises(Corrupt, match="header at offset 0"):
        open_segment(disk, PATH, 4)


def test_a_file_cut_short_is_corrupt(disk: SimDisk) -> None:
    made = create_segment(disk, PATH, HEADER)
    write_group(made, 1, 2)
    block = made.file.pread(8000, 0)
    disk.open("/wal/short.wal", create=True).pwrite([block], 0)
    with pytest.raises(Corrupt, match="8000 bytes"):
        open_segment(disk, "/wal/short.wal", 0)


@given(st.binary(min_size=1, max_size=400), st.integers(SEGMENT_HEADER_BYTES, HEADER.segment_bytes - 400))
def test_any_bytes_in_a_segment_end_the_walk_or_are_corrupt(noise: bytes, offset: int) -> None:
    disk = SimDisk()
    disk.makedirs("/wal")
    made = create_segment(disk, PATH, HEADER)
    write_group(made, 1, 20)
    write_group(made, 21, 40)
    before = made.file.pread(HEADER.segment_bytes, 0)
    made.file.pwrite([noise], offset)
    hit = (offset - SEGMENT_HEADER_BYTES) // RECORD_BYTES + 1  # the first record that the noise touches
    changed = made.file.pread(HEADER.segment_bytes, 0)[: at(40)] != before[: at(40)]
    try:
        segment, _ = scanned(disk)
    except Corrupt:
        assert changed and hit <= 20
    else:
        assert segment.last_position == 40 or (changed and segment.last_position >= hit - 1)
