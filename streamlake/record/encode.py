"""Build record batches v2: for the command line, control records and tests. Producers build their own."""

import struct
from collections.abc import Sequence

from crc32c import crc32c

from streamlake.core.errors import Invalid
from streamlake.record.batch import (
    CHECKED_AT,
    CONTROL_BIT,
    CRC_AT,
    FRAME_BYTES,
    HEADER,
    HEADER_BYTES,
    LOG_APPEND_TIME_BIT,
    MAGIC,
    NO_PRODUCER_ID,
    TRANSACTIONAL_BIT,
)
from streamlake.record.compression import Compression, compress
from streamlake.record.decode import NOT_TEXT, Record


def encode_batch(
    records: Sequence[Record],
    *,
    compression: Compression = Compression.NONE,
    leader_epoch: int = -1,
    producer_id: int = NO_PRODUCER_ID,
    producer_epoch: int = -1,
    base_sequence: int = -1,
    append_time_ms: int | None = None,
    transactional: bool = False,
    control: bool = False,
) -> bytes:
    """One batch of records whose offsets grow; it begins at the first one's offset (0 for a producer).

    With `append_time_ms` the batch is of type LogAppendTime. Invalid if there are no records."""
    if not records:
        raise Invalid("a record batch needs at least one record")
    base_offset, base_timestamp = records[0].offset, records[0].timestamp
    payload = bytearray()
    for record in records:
        body = _encode_record(record, base_offset, base_timestamp)
        payload += _varint(len(body))
        payload += body
    attributes = int(compression)
    attributes |= LOG_APPEND_TIME_BIT if append_time_ms is not None else 0
    attributes |= TRANSACTIONAL_BIT if transactional else 0
    attributes |= CONTROL_BIT if control else 0
    data = compress(compression, bytes(payload))
    batch = bytearray(
        HEADER.pack(
            base_offset,
            HEADER_BYTES - FRAME_BYTES + len(data),
            leader_epoch,
            MAGIC,
            0,
            attributes,
            records[-1].offset - base_offset,
            base_timestamp,
            append_time_ms if append_time_ms is not None else max(r.timestamp for r in records),
            producer_id,
            producer_epoch,
            base_sequence,
            len(records),
        )
    )
    batch += data
    struct.pack_into(">I", batch, CRC_AT, crc32c(memoryview(batch)[CHECKED_AT:]))
    return bytes(batch)


def _encode_record(record: Record, base_offset: int, base_timestamp: int) -> bytes:
    parts = [b"\0", _varint(record.timestamp - base_timestamp), _varint(record.offset - base_offset)]
    parts += _encode_bytes(record.key)
    parts += _encode_bytes(record.value)
    parts.append(_varint(len(record.headers)))
    for key, value in record.headers:
        parts += _encode_bytes(key.encode(errors=NOT_TEXT))
        parts += _encode_bytes(value)
    return b"".join(parts)


def _encode_bytes(data: bytes | None) -> tuple[bytes, bytes]:
    return (_varint(-1), b"") if data is None else (_varint(len(data)), data)


def _varint(number: int) -> bytes:
    """Zigzag, then seven bits a byte, least first (Protocol Buffers' sint64)."""
    zigzag = number << 1 if number >= 0 else (-number << 1) - 1
    out = bytearray()
    while zigzag > 0x7F:
        out.append(zigzag & 0x7F | 0x80)
        zigzag >>= 7
    out.append(zigzag)
    return bytes(out)
