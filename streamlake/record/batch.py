"""Kafka record batches, format v2: find them, check what frames them, give them their offsets.

A `records` field is a row of batches: a header of 61 bytes, then records, compressed or not. Base offset and leader
epoch stand before the CRC, so a broker sets both without touching what the producer signed. Source: Kafka's
"Record Batch" page and KIP-98; our own page is docs/formats/record-batch.md.

Nothing here looks inside the payload: that is decode.py, and validate.py for what a producer sends.
"""

import struct
from collections.abc import Iterator

import msgspec
from crc32c import crc32c

from streamlake.core.errors import Corrupt, Invalid

Buffer = bytes | bytearray | memoryview

MAGIC = 2
HEADER = struct.Struct(">qiibIhiqqqhii")
HEADER_BYTES = HEADER.size
_PLACE = struct.Struct(">qii")  # base offset, length, leader epoch: what a broker writes
ATTRIBUTES_LOW_AT = 22  # the byte of the attributes in which all bits that mean something are
FRAME_BYTES = 12  # base offset and length: what `length_bytes` does not count
MAGIC_AT = 16  # at the same place in every format version
CRC_AT = 17
CHECKED_AT = 21  # the CRC covers the batch from its attributes on
MAX_TIMESTAMP_AT = 35
NO_PRODUCER_ID = -1

COMPRESSION_MASK = 0x07
LOG_APPEND_TIME_BIT = 0x08
TRANSACTIONAL_BIT = 0x10
CONTROL_BIT = 0x20


class CorruptBatch(Corrupt):
    """Bytes that are no batch, or not the ones that were signed: sending or reading again may help."""


class UnsupportedFormat(Invalid):
    """A batch in the message format of Kafka before 0.11 (magic 0 or 1)."""


class InvalidRecord(Invalid):
    """A batch whose CRC is right but whose content is not what its header claims: sending it again cannot help."""


class RecordTooLarge(Invalid):
    """A batch over max.message.bytes."""


class BatchHeader(msgspec.Struct, frozen=True, gc=False):
    """The 61 bytes before the records, in wire order."""

    base_offset: int
    length_bytes: int  # of what follows this field
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp: int  # milliseconds
    max_timestamp: int  # milliseconds
    producer_id: int
    producer_epoch: int
    base_sequence: int
    count: int

    @property
    def size_bytes(self) -> int:
        return FRAME_BYTES + self.length_bytes

    @property
    def last_offset(self) -> int:
        return self.base_offset + self.last_offset_delta

    @property
    def next_offset(self) -> int:
        return self.base_offset + self.last_offset_delta + 1

    @property
    def compression(self) -> int:
        """A codec number, see compression.Compression; 5 to 7 mean nothing."""
        return self.attributes & COMPRESSION_MASK

    @property
    def is_log_append_time(self) -> bool:
        """True: every record's timestamp is `max_timestamp`."""
        return bool(self.attributes & LOG_APPEND_TIME_BIT)

    @property
    def is_transactional(self) -> bool:
        return bool(self.attributes & TRANSACTIONAL_BIT)

    @property
    def is_control(self) -> bool:
        return bool(self.attributes & CONTROL_BIT)


def frames(data: Buffer) -> Iterator[tuple[BatchHeader, memoryview]]:
    """The whole batches in `data`, each with its header; stops before a batch that is cut off by the end of `data`.

    CRCs are not checked. Raises UnsupportedFormat, or CorruptBatch when the length of a batch cannot be right, because
    then nobody knows where the next one begins."""
    view = memoryview(data)
    position, end = 0, len(view)
    while end - position > MAGIC_AT:
        magic = view[position + MAGIC_AT]
        if magic in (0, 1):
            raise UnsupportedFormat(f"message format v{magic} is not supported: send record batches v2 (Kafka 0.11+)")
        if magic != MAGIC:
            raise CorruptBatch(f"a batch at byte {position} has magic {magic}, not {MAGIC}: it is no record batch")
        if end - position < HEADER_BYTES:
            return
        header = BatchHeader(*HEADER.unpack_from(view, position))
        if header.size_bytes < HEADER_BYTES:
            raise CorruptBatch(
                f"the batch at byte {position} claims {header.size_bytes} bytes, less than its own header"
            )
        after = position + header.size_bytes
        if after > end:
            return
        yield header, view[position:after]
        position = after


def check_crc(header: BatchHeader, batch: Buffer) -> None:
    """CorruptBatch unless the CRC-32C in the header is that of the batch."""
    actual = crc32c(memoryview(batch)[CHECKED_AT:])
    if actual != header.crc:
        raise CorruptBatch(
            f"the CRC-32C of a batch is {actual:#010x}, its header says {header.crc:#010x}: send it again"
        )


def scan_batches(records: Buffer, max_batch_bytes: int) -> list[BatchHeader]:
    """Headers of all batches in a `records` field, their frames, sizes and CRCs checked.

    Raises UnsupportedFormat (magic 0, 1), RecordTooLarge, CorruptBatch (wrong CRC or length, not a batch), or
    InvalidRecord if the last one is cut off or something follows it: no network does that to a whole request."""
    headers = []
    scanned = 0
    for header, batch in frames(records):
        if header.size_bytes > max_batch_bytes:
            raise RecordTooLarge(
                f"a batch of {header.size_bytes} bytes exceeds the limit of {max_batch_bytes}: "
                "send smaller batches, or raise the topic's max.message.bytes"
            )
        check_crc(header, batch)
        headers.append(header)
        scanned += header.size_bytes
    if scanned != len(records):
        raise InvalidRecord(f"the last {len(records) - scanned} of {len(records)} bytes are not a whole batch")
    return headers


def assign(
    header: BatchHeader,
    batch: Buffer,
    base_offset: int,
    leader_epoch: int,
    max_timestamp: int,
    append_time_ms: int | None = None,
) -> tuple[bytes, memoryview]:
    """One batch with its place in the log, in two parts: a header of its own, and the records as they came, uncopied.

    `max_timestamp` (ms) is the true one of its records; like Kafka, a header that says otherwise is put right. With
    `append_time_ms` the batch becomes LogAppendTime of that moment. Only these two cost a new CRC."""
    view = memoryview(batch)
    attributes = header.attributes
    if append_time_ms is None and max_timestamp == header.max_timestamp:
        place = _PLACE.pack(base_offset, header.length_bytes, leader_epoch)
        return place + view[MAGIC_AT:HEADER_BYTES], view[HEADER_BYTES:]
    if append_time_ms is not None:
        attributes |= LOG_APPEND_TIME_BIT
        max_timestamp = append_time_ms
    head = bytearray(view[:HEADER_BYTES])
    _PLACE.pack_into(head, 0, base_offset, header.length_bytes, leader_epoch)
    struct.pack_into(">h", head, CHECKED_AT, attributes)
    struct.pack_into(">q", head, MAX_TIMESTAMP_AT, max_timestamp)
    crc = crc32c(view[HEADER_BYTES:], crc32c(memoryview(head)[CHECKED_AT:]))
    struct.pack_into(">I", head, CRC_AT, crc)
    return bytes(head), view[HEADER_BYTES:]
