"""What a producer may send: batches, by the rules of Kafka's LogValidator.

Records are read one by one, those of a compressed batch too (docs/adr/0016), so that no reader meets a lie later: one
batch that does not decompress would block every consumer of its partition. To decompress much takes longer than the
event loop can spare: `check_at_once` and `check_run` are for the loop, `check_batch` for a thread, or for what is not
compressed.
"""

from array import array

from streamlake.core import native
from streamlake.core.errors import StreamLakeError
from streamlake.record.batch import (
    ATTRIBUTES_LOW_AT,
    COMPRESSION_MASK,
    HEADER_BYTES,
    NO_PRODUCER_ID,
    BatchHeader,
    Buffer,
    InvalidRecord,
    scan_batches,
)
from streamlake.record.compression import DECOMPRESSED_BYTES_MAX, Compression, check_form, unpacked
from streamlake.record.decode import INT64_MAX, INT64_MIN, RecordTuple, each_record
from streamlake.record.run import CheckedBatch, Run

_kernel = native.load("streamlake.record.kernel")
_run_kernel = native.load("streamlake.record.run_kernel")

# What the event loop decompresses itself, in one go: at most so much comes out, and of a larger batch nobody tries.
AT_ONCE_BYTES, AT_ONCE_BATCH_BYTES = 256 * 1024, 64 * 1024
EXPLAINED_BYTES_MAX = 64 * 1024  # Python reads records again to say what is wrong, at 2 µs each; not if they are more
NO_LIMIT = INT64_MAX


def is_compressed(records: Buffer | None) -> bool:
    """Whether the first batch of a `records` field says so, sound or not."""
    return records is not None and len(records) >= HEADER_BYTES and records[ATTRIBUTES_LOW_AT] & COMPRESSION_MASK != 0


def check_run(received: Buffer, spans: Buffer, max_batch_bytes: int) -> Run | None:
    """The first of the batches at `spans` (pairs of int64: where one begins in `received`, and its bytes), as many as
    are sound and of one producer, and as the event loop can decompress. None if the first is not: check it alone."""
    scan = _run_kernel.scan if _run_kernel else twin_of_scan
    found: Run | None = scan(received, spans, max_batch_bytes, AT_ONCE_BATCH_BYTES, AT_ONCE_BYTES)
    return found


def check_at_once(records: Buffer, max_batch_bytes: int, room_bytes: int) -> Run | None:
    """`check_batch` of a compressed batch, if no more than `room_bytes` come out of it. None, which may be found out
    by trying: let a thread do it. It has the last word on damaged data too."""
    if len(records) > AT_ONCE_BATCH_BYTES:
        return None
    try:
        return check_batch(records, max_batch_bytes, room_bytes)
    except InvalidRecord:
        return None


def check_batch(records: Buffer, max_batch_bytes: int, max_unpacked_bytes: int = DECOMPRESSED_BYTES_MAX) -> Run:
    """The one batch of a produce request's `records` field.

    Raises as scan_batches does, and InvalidRecord for content that Kafka refuses: not exactly one batch (KIP-98), a
    base offset, a control batch, a count that is not that of the offsets, an unknown codec, a producer id without
    epoch or sequence, data that do not decompress or are more than the limit then, records that contradict the
    header."""
    if _run_kernel:
        spans = array("q", (0, len(records)))
        run: Run | None = _run_kernel.scan(records, spans, max_batch_bytes, NO_LIMIT, max_unpacked_bytes)
        if run is not None:
            return run
    batch, unpacked_bytes = _checked(records, max_batch_bytes, max_unpacked_bytes)
    return Run([batch], unpacked_bytes)


def twin_of_scan(
    received: Buffer, spans: Buffer, max_batch_bytes: int, max_packed_bytes: int, max_unpacked_bytes: int
) -> Run | None:
    """The kernel's `scan` in Python, which may take more: unusual batches that the kernel leaves to the twin.

    The batches from the first on, up to one that is not sound or does not follow; of compressed ones those with at most
    `max_packed_bytes`, and with no more than `max_unpacked_bytes` of all. None if the first is not taken."""
    taken: list[CheckedBatch] = []
    unpacked_bytes = 0
    numbers = memoryview(spans).cast("B").cast("q").tolist()
    for begin, size_bytes in zip(numbers[::2], numbers[1::2], strict=True):
        data = memoryview(received)[begin : begin + size_bytes]
        if is_compressed(data) and (
            size_bytes - HEADER_BYTES > max_packed_bytes or unpacked_bytes >= max_unpacked_bytes
        ):
            break
        try:
            batch, more_bytes = _checked(data, max_batch_bytes, max_unpacked_bytes - unpacked_bytes)
        except StreamLakeError:
            break
        if taken and not _follows(taken[-1], batch):
            break
        taken.append(batch)
        unpacked_bytes += more_bytes
    return Run(taken, unpacked_bytes) if taken else None


def _follows(before: CheckedBatch, batch: CheckedBatch) -> bool:
    earlier, later = before.header, batch.header
    if min(before.min_timestamp, batch.min_timestamp) < 0:  # no time at all, or before 1970: alone
        return False
    if (later.producer_id, later.producer_epoch) != (earlier.producer_id, earlier.producer_epoch):
        return False
    if later.is_transactional != earlier.is_transactional or later.is_log_append_time or earlier.is_log_append_time:
        return False
    return later.producer_id == NO_PRODUCER_ID or earlier.base_sequence + earlier.count == later.base_sequence


def _checked(records: Buffer, max_batch_bytes: int, max_unpacked_bytes: int) -> tuple[CheckedBatch, int]:
    """The one batch, and how much came out of it if it is compressed. Raises as `check_batch`."""
    headers = scan_batches(records, max_batch_bytes)
    if len(headers) != 1:
        raise InvalidRecord(f"a produce request carries one batch per partition, this one {len(headers)}")
    header = headers[0]
    _check_header(header)
    payload, unpacked_bytes = memoryview(records)[HEADER_BYTES:], 0
    if header.compression != Compression.NONE:
        check_form(header.compression, payload)
        payload = unpacked(header.compression, payload, max_unpacked_bytes)
        unpacked_bytes = len(payload)
    return CheckedBatch(header, records, *_least_and_largest_time(header, payload)), unpacked_bytes


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
