"""One segment of the file WAL: a file of fixed size, zeroed once, filled front to back, recycled by a new header.

Overwriting zeroed blocks needs no change of the file's metadata, so a sync costs about half of one that grows the
file; therefore segments are recycled, never shrunk. What an earlier use left behind stays in the file until it is
overwritten: a record counts only if it carries the generation of the segment's header.

The functions here block: they run in an executor. When a segment is made, freed and recycled is decided elsewhere.
"""

import posixpath
from array import array
from dataclasses import dataclass, field

from crc32c import crc32c

from streamlake.core.disk import Disk, DiskFile
from streamlake.core.errors import Corrupt
from streamlake.s3stream.wal.file.format import (
    RECORD_HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    RecordHeader,
    SegmentHeader,
    decode_record_header,
    decode_segment_header,
    encode_segment_header,
    find_record_headers,
    peek_position,
)

ZEROS_BYTES = 4 << 20  # between two syncs
ZEROS = bytes(1 << 20)


@dataclass(slots=True, eq=False)
class Segment:
    path: str
    file: DiskFile
    header: SegmentHeader
    first_position: int = 0  # of the first record; meaningless while there is none
    offsets: "array[int]" = field(default_factory=lambda: array("q"))  # byte offset of each record in the file
    end: int = SEGMENT_HEADER_BYTES  # byte offset behind the last record

    @property
    def last_position(self) -> int:
        return self.first_position + len(self.offsets) - 1

    def add(self, position: int, record_bytes: int) -> None:
        """Note the next record."""
        if not self.offsets:
            self.first_position = position
        self.offsets.append(self.end)
        self.end += record_bytes

    def span(self, position: int) -> tuple[int, int]:
        """Byte offsets of the start and the end of a record that lies in this segment."""
        index = position - self.first_position
        start = self.offsets[index]
        return start, self.offsets[index + 1] if index + 1 < len(self.offsets) else self.end


def create_segment(disk: Disk, path: str, header: SegmentHeader) -> Segment:
    """A new file of zeros with its header, durable with its name. After an OSError the file may stay half-made."""
    file = disk.open(path, create=True)
    try:
        for offset in range(0, header.segment_bytes, ZEROS_BYTES):
            file.write_zeros(min(ZEROS_BYTES, header.segment_bytes - offset), offset)
            file.sync()  # in steps: the sync of a group of records never queues behind a whole segment of zeros
        # The zeros are durable before the header: a file that has a header is whole, whenever the power goes.
        file.pwrite([encode_segment_header(header)], 0)
        file.sync()
        disk.sync_dir(posixpath.dirname(path))
    except BaseException:
        file.close()
        raise
    return Segment(path, file, header)


def recycle_segment(segment: Segment, header: SegmentHeader) -> Segment:
    """The same file with a new header, durable: from here on the records in it do not count.

    Safe because the caller frees a segment only when all its records are durable elsewhere. If the machine dies in
    between, the old header or the new one is found: with the old one, the records are known as trimmed.
    """
    segment.file.pwrite([encode_segment_header(header)], 0)
    segment.file.sync()
    return Segment(segment.path, segment.file, header)


def open_segment(disk: Disk, path: str, trim_position: int) -> Segment | None:
    """The segment in the file, not yet scanned; None if its making never came to an end, so that it holds nothing."""
    file = disk.open(path)
    try:
        block = file.pread(SEGMENT_HEADER_BYTES + RECORD_HEADER_BYTES, 0)
        try:
            header = decode_segment_header(block)
        except Corrupt as error:
            raise Corrupt(f"{path}: {error}") from None
        if header is None:
            position = peek_position(block[SEGMENT_HEADER_BYTES:])
            if position is not None and position > trim_position:
                raise Corrupt(f"{path}: the header at offset 0 is damaged, and the segment holds record {position}")
            file.close()
            return None
        if file.size() < header.segment_bytes:
            raise Corrupt(f"{path}: the file is {file.size()} bytes long, its header says {header.segment_bytes}")
    except BaseException:
        file.close()
        raise
    return Segment(path, file, header)


@dataclass(frozen=True, slots=True)
class Tail:
    """What recovery must write again before and behind the end of the records, see `harden_segment`."""

    group_offset: int  # where the last group starts
    end: int  # where the records end
    garbage_end: int  # where the last byte lies, behind the end, that is not zero


def scan_segment(segment: Segment, next_position: int, trim_position: int) -> Tail:
    """Walk the records from the front and index them, up to the first that is torn, damaged or not of this use.

    `next_position` is the first position not found in earlier segments. Corrupt if the walk ended at a record that
    was acked or may have been: something behind it proves that it was once durable.
    """
    data = segment.file.pread(segment.header.segment_bytes, 0)
    group_offset = segment.end
    last: RecordHeader | None = None
    while True:
        try:
            header = whole_record(segment.header, data, segment.end)
        except Corrupt as error:
            stop = str(error)  # the error itself would keep this frame, and all of `data`, until a collection
            break
        if last is not None and header.position != last.position + 1:
            stop = f"record {header.position} follows record {last.position}"
            break
        if last is None or header.flushed_position != last.flushed_position:
            group_offset = segment.end
        segment.add(header.position, header.record_bytes)
        last = header
    lost_position = last.position + 1 if last else next_position
    for at, later in find_record_headers(segment.header, data, segment.end):
        if was_durable(lost_position, later, trim_position):
            raise Corrupt(
                f"{segment.path}: record {lost_position} at offset {segment.end} is damaged ({stop}), but record "
                f"{later.position} at offset {at} was written after it was durable. Acknowledged data is damaged: "
                "restore the file from a copy, or move the WAL directory away to go on without its records"
            )
    return Tail(group_offset, segment.end, max(segment.end, _end_of_data(data)))


def _end_of_data(data: bytes) -> int:
    """Where the last byte lies that is not zero; most of a segment may be zeros, and `rstrip` looks at each."""
    end = len(data)
    while end:
        start = max(0, end - len(ZEROS))
        if data[start:end] != ZEROS[: end - start]:
            return start + len(data[start:end].rstrip(b"\0"))
        end = start
    return 0


def whole_record(segment: SegmentHeader, data: bytes, at: int) -> RecordHeader:
    """The header of the record at `at`; Corrupt unless it and its body are sound."""
    header = decode_record_header(segment, data, at)
    body = memoryview(data)[at + RECORD_HEADER_BYTES : at + header.record_bytes]
    if len(body) != header.body_bytes or crc32c(body) != header.body_crc:
        raise Corrupt("record body fails its checksum")
    return header


def was_durable(lost_position: int, later: RecordHeader, trim_position: int) -> bool:
    """True if `later`, found behind the lost record, proves that the lost record was durable, and matters still.

    Records become durable in groups, one group after the other. A torn last group is the normal end of a power cut:
    its records know none of each other as flushed. So the lost record was durable if a later one says so, or if the
    group of both reaches below the trim position, to which everything was durable.
    """
    flushed = later.flushed_position
    return later.position > trim_position and (flushed >= lost_position or flushed < trim_position)


def harden_segment(segment: Segment, tail: Tail) -> None:
    """Make what was found durable, and what was not found impossible to find later.

    After a kill or a failed sync the last group may stand in the page cache only, its pages marked clean: a sync
    alone would write nothing. So it is written again. And everything behind it is zeroed: the records to come may be
    as long as the ones that were torn, and whole old ones behind the new, or the old half of a header that
    straddles a page behind its new half, would then continue them (position, generation and checksum fit).
    """
    group = segment.file.pread(tail.end - tail.group_offset, tail.group_offset)
    segment.file.pwrite([group, bytes(tail.garbage_end - tail.end)], tail.group_offset)
    segment.file.sync()
