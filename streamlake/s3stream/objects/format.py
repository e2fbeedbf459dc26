"""The stream-set object: data blocks of many streams, an index and a footer. Bytes: docs/formats/stream-set-object.md.

A block holds consecutive whole chunks of one stream and a table of their boundaries; blocks are sorted by stream and
offset. Every block, the index and the footer carry a CRC-32C. Numbers are little-endian and tables are columns, so
that tables move to and from packed arrays at C speed. Foreign bytes never raise anything but Corrupt.

The encoder keeps the buffers it is given and never joins them; it knows nothing of where they come from.
"""

import struct
import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from operator import lt

from crc32c import crc32c

from streamlake.core.cut import cut_end
from streamlake.core.errors import Corrupt
from streamlake.s3stream.wal.port import Buffer

MAGIC = b"SLSTRSET"
VERSION = 1
FOOTER = struct.Struct("<QIIIHHI8s")  # index position, index size, blocks, index CRC, version, zero, footer CRC, magic
FOOTER_CRC_AT = 24  # the footer's CRC covers the bytes before it
INDEX_COLUMNS = "qqqqqIII"  # stream, start, end, max timestamp, position, size, chunks, CRC
INDEX_ENTRY_BYTES = 5 * 8 + 3 * 4
CHUNK_ENTRY_BYTES = 8 + 8 + 4


def object_key(object_id: int) -> str:
    """Where an object lies. The prefix spreads neighbours over the store's partitions, and over 256 directories."""
    return f"objects/{object_id % 256:02x}/{object_id}"


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive chunks of one stream: [start_offset, end_offset)."""

    start_offset: int
    end_offset: int
    bases: "array[int]"  # first offset of each chunk
    timestamps: "array[int]"  # max timestamp of each
    ends: "array[int]"  # where in `data` each ends
    data: memoryview

    def chunk_range(self, at: int) -> tuple[int, int]:
        return self.bases[at], self.bases[at + 1] if at + 1 < len(self.bases) else self.end_offset

    def cut(self, start: int, end: int, max_bytes: int, *, at_least_one: bool) -> tuple[memoryview, int] | None:
        """Bytes of the chunks from the one that contains `start`, below `end`, up to `max_bytes`; and their end."""
        at = bisect_right(self.bases, start) - 1
        begin = self.ends[at - 1] if at > 0 else 0
        fitting_end = min(bisect_left(self.bases, end), bisect_right(self.ends, begin + max_bytes))
        stop = cut_end(at, fitting_end, at_least_one)
        if stop <= at:
            return None
        return self.data[begin : self.ends[stop - 1]], self.chunk_range(stop - 1)[1]


class ObjectEncoder:
    """Collects blocks in order of (stream, offset); `finish` closes the object."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self._parts: list[Buffer] = []
        self._columns: list[array[int]] = [array(code) for code in INDEX_COLUMNS]

    def add_block(
        self,
        stream_id: int,
        end_offset: int,
        bases: "array[int]",
        timestamps: "array[int]",
        ends: "array[int]",
        parts: Sequence[Buffer],
    ) -> int:
        """Add the chunks whose joined bytes are `parts`; the size of the block in bytes."""
        table = _to_bytes(bases) + _to_bytes(timestamps) + _to_bytes(ends)
        crc = crc32c(table)
        for part in parts:
            crc = crc32c(part, crc)
        size = len(table) + ends[-1]
        entry = (stream_id, bases[0], end_offset, max(timestamps), self.size_bytes, size, len(bases), crc)
        for column, value in zip(self._columns, entry, strict=True):
            column.append(value)
        self._parts.append(table)
        self._parts.extend(parts)
        self.size_bytes += size
        return size

    def finish(self) -> list[Buffer]:
        """All bytes of the object, in order; `size_bytes` is their sum."""
        index = b"".join(map(_to_bytes, self._columns))
        blocks = len(self._columns[0])
        head = FOOTER.pack(self.size_bytes, len(index), blocks, crc32c(index), VERSION, 0, 0, MAGIC)[:FOOTER_CRC_AT]
        self.size_bytes += len(index) + FOOTER.size
        return [*self._parts, index, head, crc32c(head).to_bytes(4, "little"), MAGIC]


@dataclass(frozen=True, slots=True)
class Footer:
    index_position: int
    index_size: int
    blocks: int
    index_crc: int


@dataclass(frozen=True, slots=True)
class ObjectIndex:
    """One column per fact, one row per block."""

    stream_ids: "array[int]"
    starts: "array[int]"
    ends: "array[int]"
    max_timestamps: "array[int]"
    positions: "array[int]"
    sizes: "array[int]"
    chunks: "array[int]"
    crcs: "array[int]"

    @property
    def memory_bytes(self) -> int:
        return len(self.starts) * INDEX_ENTRY_BYTES + 1024

    def blocks_of(self, stream_id: int) -> range:
        return range(bisect_left(self.stream_ids, stream_id), bisect_right(self.stream_ids, stream_id))

    def data_bytes(self, start_row: int, end_row: int) -> int:
        """Bytes of the chunks in these blocks, without the tables of their boundaries."""
        return sum(self.sizes[start_row:end_row]) - CHUNK_ENTRY_BYTES * sum(self.chunks[start_row:end_row])

    def block_at(self, stream_id: int, offset: int) -> int:
        """The row of the block that holds `offset`; Corrupt if there is none."""
        rows = self.blocks_of(stream_id)
        at = bisect_right(self.starts, offset, rows.start, rows.stop) - 1
        if at < rows.start or not self.starts[at] <= offset < self.ends[at]:
            raise Corrupt(f"the index has no block for offset {offset} of stream {stream_id}")
        return at


def decode_footer(tail: Buffer, object_size: int) -> Footer:
    """The footer at the end of `tail`, which is the end of the object."""
    if len(tail) < FOOTER.size:
        raise Corrupt(f"{len(tail)} bytes are too few for the footer of a stream-set object")
    footer = bytes(tail[len(tail) - FOOTER.size :])
    position, size, blocks, index_crc, version, _, crc, magic = FOOTER.unpack(footer)
    if magic != MAGIC:
        raise Corrupt("the footer's magic is missing: this is not a stream-set object, or it was cut short")
    if crc != crc32c(footer[:FOOTER_CRC_AT]):
        raise Corrupt("the footer's CRC does not match")
    if version != VERSION:
        raise Corrupt(f"format version {version} is not known here: it was written by a newer StreamLake")
    if position + size + FOOTER.size != object_size or size != blocks * INDEX_ENTRY_BYTES or blocks == 0:
        raise Corrupt("the footer's sizes do not add up")
    return Footer(position, size, blocks, index_crc)


def decode_index(data: Buffer, footer: Footer) -> ObjectIndex:
    if len(data) != footer.index_size or crc32c(data) != footer.index_crc:
        raise Corrupt("the index's CRC does not match")
    columns, at = [], 0
    for code in INDEX_COLUMNS:
        size = footer.blocks * (8 if code == "q" else 4)
        columns.append(_from_bytes(code, data[at : at + size]))
        at += size
    index = ObjectIndex(*columns)
    if not (
        all(map(_in_order, index.stream_ids, index.ends, index.stream_ids[1:], index.starts[1:]))
        and all(map(lt, index.starts, index.ends))
        and index.positions[0] == 0
        and all(map(_adjoin, index.positions, index.sizes, index.positions[1:]))
        and index.positions[-1] + index.sizes[-1] == footer.index_position
        and all(map(_holds, index.sizes, index.chunks))
    ):
        raise Corrupt("the index contradicts itself")
    return index


def _in_order(stream_id: int, end: int, next_stream_id: int, next_start: int) -> bool:
    """By stream, and within a stream by offset: what block_at searches."""
    return stream_id < next_stream_id or (stream_id == next_stream_id and end <= next_start)


def _adjoin(position: int, size: int, following: int) -> bool:
    return position + size == following


def _holds(size: int, chunks: int) -> bool:
    return chunks > 0 and size > chunks * CHUNK_ENTRY_BYTES


def decode_block(data: Buffer, index: ObjectIndex, row: int) -> Block:
    """The block of an index row from its bytes, checked against its CRC."""
    chunks, start, end = index.chunks[row], index.starts[row], index.ends[row]
    if len(data) != index.sizes[row] or crc32c(data) != index.crcs[row]:
        raise Corrupt(f"the CRC of block {row} does not match")
    bases = _from_bytes("q", data[: chunks * 8])
    timestamps = _from_bytes("q", data[chunks * 8 : chunks * 16])
    ends = _from_bytes("I", data[chunks * 16 : chunks * CHUNK_ENTRY_BYTES])
    payload = memoryview(data)[chunks * CHUNK_ENTRY_BYTES :]
    if not (
        bases[0] == start
        and bases[-1] < end
        and all(map(lt, bases, bases[1:]))
        and ends[0] > 0
        and ends[-1] == len(payload)
        and all(map(lt, ends, ends[1:]))
    ):
        raise Corrupt(f"the chunk table of block {row} contradicts itself")
    return Block(start, end, bases, timestamps, ends, payload)


def _to_bytes(column: "array[int]") -> bytes:
    if sys.byteorder == "big":
        column = column[:]
        column.byteswap()
    return column.tobytes()


def _from_bytes(code: str, data: Buffer) -> "array[int]":
    column: array[int] = array(code)
    column.frombytes(data)
    if sys.byteorder == "big":
        column.byteswap()
    return column
