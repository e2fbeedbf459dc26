"""What a producer may send: one batch, by the rules of Kafka's LogValidator.

Records of an uncompressed batch are read one by one, so that no reader meets a lie later. A compressed batch is
taken at the word of its header, as decompressing on the broker would cost more than storing: readers must, and
arrow.py does, treat a batch whose inside contradicts its header as one bad unit.
"""

from typing import NamedTuple

from streamlake.core import native
from streamlake.record.batch import (
    HEADER_BYTES,
    NO_PRODUCER_ID,
    BatchHeader,
    Buffer,
    InvalidRecord,
    scan_batch,
    scan_batches,
)
from streamlake.record.compression import Compression
from streamlake.record.decode import parse_records

_kernel = native.load("streamlake.record.kernel")


class Produced(NamedTuple):
    """A batch that may be appended. Timestamps in ms; of a compressed batch, the first and largest as claimed."""

    header: BatchHeader
    min_timestamp: int
    max_timestamp: int


def check_produced(records: Buffer, max_batch_bytes: int) -> Produced:
    """The one batch of a produce request's `records` field.

    Raises as scan_batches does, and InvalidRecord for content that Kafka refuses: not exactly one batch (KIP-98), a
    control batch, a count that is not that of the offsets, an unknown codec, a producer id without epoch or sequence,
    or records that contradict the header."""
    header = scan_batch(records, max_batch_bytes)
    if header is None:
        headers = scan_batches(records, max_batch_bytes)
        if len(headers) != 1:
            raise InvalidRecord(f"a produce request carries one batch per partition, this one {len(headers)}")
        header = headers[0]
    _check_header(header)
    if header.compression != Compression.NONE:
        return Produced(header, header.base_timestamp, header.max_timestamp)
    return Produced(header, *_least_and_largest_time(header, memoryview(records)[HEADER_BYTES:]))


def _least_and_largest_time(header: BatchHeader, payload: Buffer) -> tuple[int, int]:
    """Timestamps (ms) of an uncompressed payload of at least one record. InvalidRecord."""
    found: tuple[int, int] | None = _kernel.check(header, payload) if _kernel else None
    return found or twin_of_check(header, payload)


def twin_of_check(header: BatchHeader, payload: Buffer) -> tuple[int, int]:
    """The kernel's `check` in Python. What the kernel refuses is read again here, which says what is wrong."""
    timestamps = [record[1] for record in parse_records(header, bytes(payload))]
    return min(timestamps), max(timestamps)


def _check_header(header: BatchHeader) -> None:
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
