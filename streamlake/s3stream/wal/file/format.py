"""Bytes of the file WAL: segment headers, record headers, and their checks. Documented in docs/formats/wal.md.

A record is a fixed header and a body of whole batches. Two fields exist for recovery only: `generation` tells this
use of a recycled segment from its earlier uses, and `flushed_position` says which records were already durable when
this one was written; so a reader can tell a torn tail (allowed) from damage (not). The salt of the segment, chosen at
random for each use, seeds the checksum of every header: bytes that a client sent can never pass for a record.

Numbers are big-endian. All input is foreign: decoding raises Corrupt and nothing else.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
from crc32c import crc32c

from streamlake.core.errors import Corrupt
from streamlake.s3stream.wal.port import Buffer, WalRecord

VERSION = 1
KIND = 1  # of a record: data, the only kind

RECORD_MAGIC = b"SLWR"
_RECORD = struct.Struct(">4sBBHQQQQQiIQqII")
RECORD_HEADER_BYTES = _RECORD.size + 4  # and the header's own CRC32C

SEGMENT_MAGIC = b"SLWS"
_SEGMENT = struct.Struct(">4sHHQQI")
_SEGMENT_HEADER_USED_BYTES = _SEGMENT.size + 4
SEGMENT_HEADER_BYTES = 4096  # a block of its own: recycling a segment never touches the block of a record

_CRC = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    generation: int  # grows with every (re-)use of any segment of the WAL
    segment_bytes: int  # size of the whole file
    salt: int  # random, 32 bits; seeds the CRC of the record headers


class RecordHeader(msgspec.Struct, frozen=True):
    broker_epoch: int
    generation: int
    position: int
    flushed_position: int  # all records up to this one were durable when this one was written
    stream_id: int
    stream_epoch: int
    base_offset: int
    count: int
    max_timestamp: int
    body_bytes: int
    body_crc: int

    @property
    def record_bytes(self) -> int:
        return RECORD_HEADER_BYTES + self.body_bytes


def encode_segment_header(header: SegmentHeader) -> bytes:
    """The whole block: SEGMENT_HEADER_BYTES long, padded with zeros."""
    fields = _SEGMENT.pack(SEGMENT_MAGIC, VERSION, 0, header.generation, header.segment_bytes, header.salt)
    return (fields + _CRC.pack(crc32c(fields))).ljust(SEGMENT_HEADER_BYTES, b"\0")


def decode_segment_header(data: Buffer) -> SegmentHeader | None:
    """The header that `data` starts with; None if none was ever finished there; Corrupt if of another version."""
    if len(data) < _SEGMENT_HEADER_USED_BYTES:
        return None
    magic, version, _, generation, segment_bytes, salt = _SEGMENT.unpack_from(data)
    (crc,) = _CRC.unpack_from(data, _SEGMENT.size)
    if magic != SEGMENT_MAGIC or crc != crc32c(data[: _SEGMENT.size]):
        return None
    if version != VERSION:
        raise Corrupt(f"WAL format {version}; this version of StreamLake reads and writes format {VERSION}")
    return SegmentHeader(generation, segment_bytes, salt)


def encode_record_header(
    segment: SegmentHeader, record: WalRecord, *, broker_epoch: int, position: int, flushed_position: int
) -> bytes:
    """The header of a record; its body, `record.data`, follows it unchanged."""
    fields = _RECORD.pack(
        RECORD_MAGIC, VERSION, KIND, 0, broker_epoch, segment.generation, position, flushed_position,
        record.stream_id, record.stream_epoch, record.count, record.base_offset, record.max_timestamp,
        len(record.data), crc32c(record.data),
    )  # fmt: skip
    return fields + _CRC.pack(crc32c(fields, segment.salt))


def decode_record_header(segment: SegmentHeader, data: Buffer, at: int = 0) -> RecordHeader:
    """The record header at index `at` of `data`; Corrupt unless it is whole and of this use of the segment."""
    if len(data) < at + RECORD_HEADER_BYTES:
        raise Corrupt("record header is cut off")
    fields = _RECORD.unpack_from(data, at)
    magic, version, kind, _, broker_epoch, generation, position, flushed_position = fields[:8]
    stream_id, stream_epoch, count, base_offset, max_timestamp, body_bytes, body_crc = fields[8:]
    if magic != RECORD_MAGIC or generation != segment.generation:
        raise Corrupt("no record of this use of the segment starts here")
    (crc,) = _CRC.unpack_from(data, at + _RECORD.size)
    if crc != crc32c(data[at : at + _RECORD.size], segment.salt):
        raise Corrupt("record header fails its checksum")
    if version != VERSION or kind != KIND:
        raise Corrupt(f"record kind {kind} of WAL format {version}; this version reads format {VERSION}")
    return RecordHeader(
        broker_epoch, generation, position, flushed_position, stream_id, stream_epoch, base_offset, count,
        max_timestamp, body_bytes, body_crc,
    )  # fmt: skip


def peek_position(data: Buffer) -> int | None:
    """The position that a record at the start of `data` claims, nothing verified; None if it is no record."""
    if len(data) < RECORD_HEADER_BYTES or data[: len(RECORD_MAGIC)] != RECORD_MAGIC:
        return None
    position: int = _RECORD.unpack_from(data)[6]
    return position


def decode_record(segment: SegmentHeader, data: Buffer, at: int = 0) -> tuple[RecordHeader, WalRecord]:
    """The whole record at index `at` of `data`, its body copied; Corrupt if it is cut off or fails a checksum."""
    header = decode_record_header(segment, data, at)
    body = bytes(data[at + RECORD_HEADER_BYTES : at + header.record_bytes])
    if len(body) < header.body_bytes:
        raise Corrupt("record body is cut off")
    if crc32c(body) != header.body_crc:
        raise Corrupt("record body fails its checksum")
    return header, WalRecord(
        header.stream_id, header.stream_epoch, header.base_offset, header.count, header.max_timestamp, body
    )


def find_record_headers(segment: SegmentHeader, data: bytes, at: int = 0) -> Iterator[tuple[int, RecordHeader]]:
    """Index and header of everything in `data[at:]` that passes for a record header of this use of the segment."""
    while (at := data.find(RECORD_MAGIC, at)) >= 0:
        try:
            yield at, decode_record_header(segment, data, at)
        except Corrupt:
            pass
        at += 1
