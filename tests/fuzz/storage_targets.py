"""What our own formats make of damage: stream-set objects, WAL segments, packed ranges, checkpoints.

The first byte of an input says which checksums are put right after the damage, so that the checks behind them are
reached too: a checksum finds accidents, not the mistakes of a program that wrote the wrong thing.
"""

import random
import struct
from array import array

from crc32c import crc32c
from fuzz.target import Target
from simulation.world.disk import SimDisk

from streamlake.cluster.store import object_ranges
from streamlake.core.errors import Corrupt
from streamlake.core.ids import Ids
from streamlake.log import checkpoint
from streamlake.log.open_transactions import OpenTransaction, OpenTransactions
from streamlake.log.producers import ProducedBatch, Producers
from streamlake.s3stream.metadata import StreamRange
from streamlake.s3stream.objects.format import (
    FOOTER,
    FOOTER_CRC_AT,
    ObjectEncoder,
    decode_block,
    decode_footer,
    decode_index,
)
from streamlake.s3stream.wal.file.directory import Recovered, WalDirectory
from streamlake.s3stream.wal.file.format import (
    RECORD_HEADER_BYTES,
    RECORD_MAGIC,
    SEGMENT_HEADER_BYTES,
    SegmentHeader,
    decode_record,
    encode_record_header,
    encode_segment_header,
)
from streamlake.s3stream.wal.object.format import (
    ENTRY_BYTES,
    HEADER_BYTES,
    DataEncoder,
    ObjectHeader,
    ObjectKind,
    WalObject,
    encode_mark,
)
from streamlake.s3stream.wal.port import WalRecord

_RNG = random.Random(8)
WAL_OBJECT_CRC_AT = HEADER_BYTES - 4

# -- stream-set objects ------------------------------------------------------------------------------------------------

FIX_FOOTER, FIX_INDEX, FIX_BLOCKS = 1, 2, 4


def object_seeds() -> list[bytes]:
    made = []
    for blocks in (1, 2, 5):
        encoder = ObjectEncoder()
        for n in range(blocks):
            bases, ends = array("q", [10 * n, 10 * n + 3, 10 * n + 7]), array("I", [4, 9, 30])
            encoder.add_block(1 + n // 2, 10 * n + 10, bases, array("q", [5, 7, 6]), ends, [_RNG.randbytes(30)])
        made.append(b"".join(bytes(part) for part in encoder.finish()))
    return [bytes([how]) + data for data in made for how in (0, FIX_FOOTER, FIX_FOOTER | FIX_INDEX, 7, 7)]


def _mended_object(data: bytes) -> bytes:
    how, out = data[0] if data else 0, bytearray(data[1:])
    if len(out) < FOOTER.size:
        return bytes(out)
    footer = len(out) - FOOTER.size
    position, size, blocks, *_ = FOOTER.unpack_from(out, footer)
    if how & FIX_BLOCKS and position + blocks * 52 <= footer:
        for row in range(blocks):
            (at,) = struct.unpack_from("<q", out, position + (4 * blocks + row) * 8)
            (length,) = struct.unpack_from("<I", out, position + blocks * 40 + row * 4)
            if at >= 0 and at + length <= position:
                struct.pack_into("<I", out, position + blocks * 48 + row * 4, crc32c(bytes(out[at : at + length])))
    if how & FIX_INDEX and position + size <= footer:
        struct.pack_into("<I", out, footer + 16, crc32c(bytes(out[position : position + size])))
    if how & FIX_FOOTER:
        struct.pack_into("<I", out, footer + FOOTER_CRC_AT, crc32c(bytes(out[footer : footer + FOOTER_CRC_AT])))
    return bytes(out)


def check_object(data: bytes) -> None:
    """Every block that can be read at all can be cut anywhere, and every cut lies within it."""
    whole = _mended_object(data)
    try:
        footer = decode_footer(whole[-200:], len(whole))
        index = decode_index(whole[footer.index_position : footer.index_position + footer.index_size], footer)
    except Corrupt:
        return
    for row in range(footer.blocks):
        at = index.positions[row]
        try:
            block = decode_block(whole[at : at + index.sizes[row]], index, row)
            assert index.block_at(index.stream_ids[row], index.starts[row]) == row
        except Corrupt:
            continue
        for start in (block.start_offset, block.end_offset - 1):
            cut = block.cut(start, block.end_offset, 10, at_least_one=True)
            assert cut is not None and start < cut[1] <= block.end_offset and len(cut[0]) > 0


# -- the file WAL ------------------------------------------------------------------------------------------------------

SEGMENT_BYTES = 16 * 1024
SEPARATOR = b"|segment|"
FIX_HEADERS, FIX_RECORDS = 1, 2
WAL = "/wal"


def wal_seeds() -> list[bytes]:
    """Fix, trim position, then the segments without their padding: 32 bytes of header, then records."""
    made = []
    for groups in ([[2, 3], [4]], [[1]], [[], [3, 1, 1]], [[5, 5], [2], [1, 1]]):
        position, parts = 1, []
        for generation, sizes in enumerate(groups, 1):
            header = SegmentHeader(generation, SEGMENT_BYTES, 1000 + generation)
            data = encode_segment_header(header)[:32]
            for size in sizes:
                flushed = position - 1
                for _ in range(size):
                    body = _RNG.randbytes(_RNG.choice([1, 20, 90]))
                    record = WalRecord(_RNG.choice([1, 2]), 1, position, 1, 7, body)
                    data += (
                        encode_record_header(
                            header, record, broker_epoch=1, position=position, flushed_position=flushed
                        )
                        + body
                    )
                    position += 1
            parts.append(data)
        made += [bytes([how, trim]) + SEPARATOR.join(parts) for how in (0, 1, 3, 3) for trim in (0, 2)]
    return made


def _mended_segment(how: int, data: bytes) -> bytes:
    head, records = bytearray(data[:32].ljust(32, b"\0")), bytearray(data[32:])
    if how & FIX_HEADERS:
        struct.pack_into(">I", head, 28, crc32c(bytes(head[:28])))
    generation, salt = bytes(head[8:16]), int.from_bytes(head[24:28], "big")
    at = -1
    while how & FIX_RECORDS and (at := records.find(RECORD_MAGIC, at + 1)) >= 0:
        if at + RECORD_HEADER_BYTES > len(records):
            break
        records[at + 16 : at + 24] = generation
        start, end = (
            at + RECORD_HEADER_BYTES,
            at + RECORD_HEADER_BYTES + int.from_bytes(records[at + 72 : at + 76], "big"),
        )
        struct.pack_into(">I", records, at + 76, crc32c(bytes(records[start:end])))
        struct.pack_into(">I", records, at + 80, crc32c(bytes(records[at : at + 80]), salt))
    return bytes(head).ljust(SEGMENT_HEADER_BYTES, b"\0") + bytes(records)


def check_wal(data: bytes) -> None:
    """Recovery finds records without a gap, and the next recovery finds the same; or it says what is damaged."""
    how, trim = (data[0], data[1]) if len(data) > 1 else (0, 0)
    disk = SimDisk()
    disk.makedirs(WAL)
    for number, part in enumerate(data[2:].split(SEPARATOR)[:8]):
        file = disk.open(f"{WAL}/{number:012d}.wal", create=True)
        whole = _mended_segment(how, part)
        file.pwrite([whole.ljust(SEGMENT_BYTES, b"\0")], 0)
        file.sync()
        file.close()
    disk.sync_dir(WAL)
    try:
        found = WalDirectory(WAL, disk, Ids(1), SEGMENT_BYTES).recover(trim)
    except Corrupt:
        return
    records = _records(found, trim)
    assert [position for position, _ in records] == list(range(trim + 1, found.next_position))
    again = WalDirectory(WAL, disk, Ids(2), SEGMENT_BYTES).recover(trim)
    assert _records(again, trim) == records and again.next_position == found.next_position


def _records(found: Recovered, trim: int) -> list[tuple[int, WalRecord]]:
    records = []
    for segment in found.live:
        for position in range(max(segment.first_position, trim + 1), segment.last_position + 1):
            start, end = segment.span(position)
            header, record = decode_record(segment.header, segment.file.pread(end - start, start))
            assert header.position == position
            records.append((position, record))
    return records


# -- objects of the object WAL ------------------------------------------------------------------------------------------


def wal_object_seeds() -> list[bytes]:
    made = [encode_mark(ObjectHeader(kind, 1, 2, 3, 4, bytes(16))) for kind in (ObjectKind.FENCE, ObjectKind.DISCARDED)]
    for count in (1, 2, 7):
        encoder = DataEncoder()
        for n in range(count):
            encoder.add(WalRecord(n % 2, 1, 10 * n, 1, 7, _RNG.randbytes(5 * n)))
        made.append(b"".join(encoder.finish(node=1, broker_epoch=2, seq=3, nonce=bytes(16))))
    return [bytes([how]) + blob for blob in made for how in (0, 1, 1)]


def check_wal_object(data: bytes) -> None:
    blob = bytearray(data[1:])
    if data and data[0] & 1 and len(blob) >= WAL_OBJECT_CRC_AT + 4:
        count = int.from_bytes(blob[12:16], "big")
        table = bytes(blob[WAL_OBJECT_CRC_AT + 4 :][: count * ENTRY_BYTES])
        struct.pack_into(">I", blob, WAL_OBJECT_CRC_AT, crc32c(table, crc32c(bytes(blob[:WAL_OBJECT_CRC_AT]))))
    try:
        found = WalObject(bytes(blob))
        records = [record for _, record in found.records()]
    except Corrupt:
        return
    assert len(records) == found.header.records
    assert sum(len(record.data) for record in records) <= len(blob)


# -- packed ranges and checkpoints -------------------------------------------------------------------------------------


def ranges_seeds() -> list[bytes]:
    ranges = [[StreamRange(n, 1, 10 * n, 10 * n + 5) for n in range(count)] for count in (0, 1, 9)]
    made = [object_ranges.encode(some, given) for some in ranges for given in (0, 7)]
    return [bytes([how]) + blob for blob in made for how in (0, 1, 1)]


def check_ranges(data: bytes) -> None:
    blob = bytearray(data[1:])
    if data and data[0] & 1 and len(blob) >= 16:
        struct.pack_into("<I", blob, 12, crc32c(bytes(blob[16:])))
    try:
        ranges = object_ranges.decode(bytes(blob))
    except Corrupt:
        return
    assert object_ranges.encode(ranges, object_ranges.given_offsets(bytes(blob))) == blob


def checkpoint_seeds() -> list[bytes]:
    made = []
    for count in (0, 1, 4):
        opened = OpenTransactions()
        producers = Producers(100, opened)
        for n in range(count):
            batches = tuple(ProducedBatch(at, 1, 10 * n + at, 1000) for at in range(n + 1))
            producers.apply(n, 1, batches, 2000)
            if n % 2:
                producers.ended(n, 2, 7, 3000)
                opened.begin(n, OpenTransaction(2, 10 * n, n))
        made.append(checkpoint.encode(producers, opened))
    return [bytes([how]) + blob for blob in made for how in (0, 1, 1)]


def check_checkpoint(data: bytes) -> None:
    blob = data[1:]
    if data and data[0] & 1 and len(blob) >= 4:
        blob = blob[:-4] + crc32c(blob[:-4]).to_bytes(4, "big")
    try:
        state = checkpoint.decode(blob, 100)
    except Corrupt:
        return
    again = checkpoint.encode(*state)
    assert checkpoint.encode(*checkpoint.decode(again, 100)) == again


TARGETS = [
    Target("object", object_seeds, check_object),
    Target("wal", wal_seeds, check_wal),
    Target("wal object", wal_object_seeds, check_wal_object),
    Target("ranges", ranges_seeds, check_ranges),
    Target("checkpoint", checkpoint_seeds, check_checkpoint),
]
