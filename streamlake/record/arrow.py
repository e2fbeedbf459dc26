"""What a Fetch returned, as Arrow columns: the door from the log to tables. The only module here that needs pyarrow.

Every log position between `start_offset` and `next_offset` ends as exactly one of: a row, a counted skip (control,
aborted, compacted away), or part of a bad batch. A batch with a right CRC whose inside is not what its header claims
is one bad batch and the position moves past it; a wrong CRC or broken framing raises, because then the offsets
themselves are in doubt and reading again may help. Aborted transactions are left out by the rule of Kafka's consumer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from streamlake.record.batch import HEADER_BYTES, BatchHeader, Buffer, CorruptBatch, InvalidRecord, check_crc, frames
from streamlake.record.compression import decompress
from streamlake.record.decode import parse_records

CREATE_TIME, LOG_APPEND_TIME = 0, 1
ABORT_MARKER = 0

_HEADERS = pa.list_(pa.struct([("key", pa.string()), ("value", pa.binary())]))
RECORDS_SCHEMA = pa.schema(
    [
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("timestamp", pa.int64(), nullable=False),  # milliseconds; -1: none
        pa.field("timestamp_type", pa.int8(), nullable=False),
        pa.field("key", pa.binary()),
        pa.field("value", pa.binary()),
        pa.field("headers", _HEADERS, nullable=False),
    ]
)


@dataclass(frozen=True, slots=True)
class BadBatch:
    """Offsets [base_offset, last_offset] whose records nobody can read; `raw` is the whole batch."""

    base_offset: int
    last_offset: int
    error: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class DecodedRecords:
    """Rows with start_offset <= offset < next_offset. `skipped` counts positions: control, aborted, compacted."""

    table: Any  # pa.Table of RECORDS_SCHEMA
    next_offset: int
    skipped: dict[str, int]
    bad_batches: tuple[BadBatch, ...]


def decode_fetched(
    data: Buffer, start_offset: int, aborted: Sequence[tuple[int, int]], max_decompressed_bytes: int
) -> DecodedRecords:
    """Whole batches in `data` from `start_offset` on; a torn last batch is left for the next fetch.

    `aborted` are (producer id, first offset) as Fetch lists them. A batch that decompresses to more than
    `max_decompressed_bytes` is bad; the call stops early, after a whole batch, once that much came out in sum: fetch
    again from `next_offset`. Raises CorruptBatch, UnsupportedFormat."""
    decoder = _Decoder(start_offset, aborted, max_decompressed_bytes)
    for header, batch in frames(data):
        check_crc(header, batch)
        decoder.add(header, batch)
        if decoder.decompressed_bytes >= max_decompressed_bytes:
            break
    return decoder.result()


class _Decoder:
    def __init__(self, start_offset: int, aborted: Sequence[tuple[int, int]], max_decompressed_bytes: int) -> None:
        self.decompressed_bytes = 0
        self._position = start_offset
        self._batches_end = 0
        self._max_decompressed_bytes = max_decompressed_bytes
        self._aborts = sorted(((first, producer_id) for producer_id, first in aborted), reverse=True)
        self._aborting: set[int] = set()
        self._columns: tuple[list[Any], ...] = ([], [], [], [], [])  # as a record has them
        self._timestamp_types: list[int] = []
        self._skipped = {"control": 0, "aborted": 0, "compacted": 0}
        self._bad_batches: list[BadBatch] = []

    def add(self, header: BatchHeader, batch: memoryview) -> None:
        if header.base_offset < self._batches_end or header.last_offset_delta < 0:
            raise CorruptBatch(f"a batch at offset {header.base_offset} does not follow offset {self._batches_end - 1}")
        self._batches_end = header.next_offset
        while self._aborts and self._aborts[-1][0] <= header.last_offset:
            self._aborting.add(self._aborts.pop()[1])
        try:
            reason = self._add(header, batch)
        except InvalidRecord as error:
            reason = None
            if header.next_offset > self._position:
                bad = BadBatch(header.base_offset, header.last_offset, str(error), bytes(batch))
                self._bad_batches.append(bad)
        if header.next_offset <= self._position:
            return
        first = max(header.base_offset, self._position)
        self._skipped["compacted"] += first - self._position
        if reason is not None:
            self._skipped[reason] += header.next_offset - first
        self._position = header.next_offset

    def _add(self, header: BatchHeader, batch: memoryview) -> str | None:
        """Take the rows of a batch, or say why there are none."""
        if header.is_control:
            if self._is_abort_marker(header, batch):
                self._aborting.discard(header.producer_id)
            return "control"
        if header.is_transactional and header.producer_id in self._aborting:
            return "aborted"
        if header.next_offset > self._position:
            self._take_rows(header, batch)
        return None

    def _take_rows(self, header: BatchHeader, batch: memoryview) -> None:
        payload = decompress(header.compression, batch[HEADER_BYTES:], self._max_decompressed_bytes)
        self.decompressed_bytes += len(payload)
        rows = parse_records(header, payload)
        first = max(header.base_offset, self._position)
        if first > header.base_offset:
            rows = [row for row in rows if row[0] >= first]
        self._skipped["compacted"] += header.next_offset - first - len(rows)
        for column, values in zip(self._columns, zip(*rows, strict=True), strict=False):
            column.extend(values)
        kind = LOG_APPEND_TIME if header.is_log_append_time else CREATE_TIME
        self._timestamp_types.extend([kind] * len(rows))

    def _is_abort_marker(self, header: BatchHeader, batch: memoryview) -> bool:
        """A control record's key is (version, type), two int16: 0 aborts, 1 commits (KIP-98)."""
        payload = decompress(header.compression, batch[HEADER_BYTES:], self._max_decompressed_bytes)
        for _, _, key, _, _ in parse_records(header, payload):
            if key is None or len(key) < 4:
                raise InvalidRecord("the key of a control record is shorter than four bytes")
            return int.from_bytes(key[2:4], "big", signed=True) == ABORT_MARKER
        return False  # compaction took the marker and with it the whole transaction

    def result(self) -> DecodedRecords:
        offsets, timestamps, keys, values, headers = self._columns
        columns = [offsets, timestamps, self._timestamp_types, keys, values, headers]
        arrays = [pa.array(column, field.type) for column, field in zip(columns, RECORDS_SCHEMA, strict=True)]
        table = pa.Table.from_arrays(arrays, schema=RECORDS_SCHEMA)
        return DecodedRecords(table, self._position, self._skipped, tuple(self._bad_batches))
