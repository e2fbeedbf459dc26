"""What a producer may send: one batch, by the rules of Kafka's LogValidator.

Records are read one by one, those of a compressed batch too (docs/adr/0016), so that no reader meets a lie later: one
batch that does not decompress would block every consumer of its partition. To decompress much takes longer than the
event loop can spare: `check_at_once` is for the loop, `check_produced` for a thread, or for what is not compressed.
"""

from typing import NamedTuple

from streamlake.core import native
from streamlake.record.batch import (
    ATTRIBUTES_LOW_AT,
    COMPRESSION_MASK,
    HEADER_BYTES,
    NO_PRODUCER_ID,
    BatchHeader,
    Buffer,
    InvalidRecord,
    scan_batch,
    scan_batches,
)
from streamlake.record.compression import DECOMPRESSED_BYTES_MAX, Compression, check_form, unpacked
from streamlake.record.decode import INT64_MAX, INT64_MIN, RecordTuple, each_record

_kernel = native.load("streamlake.record.kernel")

# What the event loop decompresses itself, in one go: at most so much comes out, and of a larger batch nobody tries.
AT_ONCE_BYTES, AT_ONCE_BATCH_BYTES = 256 * 1024, 64 * 1024
EXPLAINED_BYTES_MAX = 64 * 1024  # Python reads records again to say what is wrong, at 2 µs each; not if they are more


class Produced(NamedTuple):
    """A batch that may be appended. Timestamps in ms."""

    header: BatchHeader
    min_timestamp: int
    max_timestamp: int
    payload_bytes: int  # of the records, uncompressed


def is_compressed(records: Buffer | None) -> bool:
    """Whether the first batch of a `records` field says so, sound or not."""
    return records is not None and len(records) >= HEADER_BYTES and records[ATTRIBUTES_LOW_AT] & COMPRESSION_MASK != 0


def check_at_once(records: Buffer, max_batch_bytes: int, room_bytes: int) -> Produced | None:
    """`check_produced` of a compressed batch, if no more than `room_bytes` come out of it. None, which may be found out
    by trying: let a thread do it. It has the last word on damaged data too."""
    if len(records) > AT_ONCE_BATCH_BYTES:
        return None
    try:
        return check_produced(records, max_batch_bytes, room_bytes)
    except InvalidRecord:
        return None


def check_produced(
    records: Buffer, max_batch_bytes: int, max_decompressed_bytes: int = DECOMPRESSED_BYTES_MAX
) -> Produced:
    """The one batch of a produce request's `records` field.

    Raises as scan_batches does, and InvalidRecord for content that Kafka refuses: not exactly one batch (KIP-98), a
    base offset, a control batch, a count that is not that of the offsets, an unknown codec, a producer id without
    epoch or sequence, data that do not decompress or are more than the limit then, records that contradict the
    header."""
    header = scan_batch(records, max_batch_bytes)
    if header is None:
        headers = scan_batches(records, max_batch_bytes)
        if len(headers) != 1:
            raise InvalidRecord(f"a produce request carries one batch per partition, this one {len(headers)}")
        header = headers[0]
    _check_header(header)
    payload = memoryview(records)[HEADER_BYTES:]
    if header.compression != Compression.NONE:
        check_form(header.compression, payload)
        payload = unpacked(header.compression, payload, max_decompressed_bytes)
    return Produced(header, *_least_and_largest_time(header, payload), len(payload))


def _least_and_largest_time(header: BatchHeader, payload: Buffer) -> tuple[int, int]:
    """Timestamps (ms) of an uncompressed payload of at least one record. InvalidRecord."""
    if _kernel is None:
        return twin_of_check(header, payload)
    found: tuple[int, int] | None = _kernel.check(header, payload)
    if found is None and len(payload) > EXPLAINED_BYTES_MAX:
        raise InvalidRecord(f"{len(payload)} bytes of records are not the {header.count} that the header claims")
    return found or twin_of_check(header, payload)


def twin_of_check(header: BatchHeader, payload: Buffer) -> tuple[int, int]:
    """The kernel's `check` in Python. What the kernel refuses is read again here, which says what is wrong."""
    least, largest = INT64_MAX, INT64_MIN

    def add(record: RecordTuple) -> None:  # a list of them could be a hundred times what came
        nonlocal least, largest
        least, largest = min(least, record[1]), max(largest, record[1])

    each_record(header, bytes(payload), add)
    return least, largest


def _check_header(header: BatchHeader) -> None:
    if header.base_offset != 0:
        raise InvalidRecord(f"a batch has base offset {header.base_offset}: a producer sends 0, the broker assigns it")
    if header.count <= 0:
        raise InvalidRecord(f"a batch claims {header.count} records: send at least one")
    if header.last_offset_delta != header.count - 1:
        raise InvalidRecord(f"a batch of {header.count} records has a last offset delta of {header.last_offset_delta}")
    if header.is_control:
        raise InvalidRecord("clients may not write control batches")
    if header.compression > Compression.ZSTD:
        raise InvalidRecord(f"compression codec {header.compression} does not exist")
    if header.producer_id != NO_PRODUCER_ID and (
        header.producer_id < 0 or header.producer_epoch < 0 or header.base_sequence < 0
    ):
        raise InvalidRecord(
            f"producer id {header.producer_id} comes with epoch {header.producer_epoch} and sequence "
            f"{header.base_sequence}: an idempotent producer sends all three from 0 on"
        )
