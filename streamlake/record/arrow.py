"""What a Fetch returned, as Arrow columns: the door from the log to tables. Only this and columns.py need pyarrow.

Every log position between `start_offset` and `next_offset` ends as exactly one of: a row, a counted skip (control,
aborted, compacted away), or part of a bad batch. A batch with a right CRC whose inside is not what its header claims
is one bad batch and the position moves past it; a wrong CRC or broken framing raises, because then the offsets
themselves are in doubt and reading again may help. Aborted transactions are left out by the rule of Kafka's consumer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from streamlake.record.batch import HEADER_BYTES, BatchHeader, Buffer, CorruptBatch, InvalidRecord, check_crc, frames
from streamlake.record.columns import RECORDS_SCHEMA, Rows, new_rows
from streamlake.record.compression import unpacked
from streamlake.record.control import decode_marker
from streamlake.record.decode import INT64_MAX

__all__ = ["RECORDS_SCHEMA", "BadBatch", "DecodedRecords", "decode_fetched"]


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
    decoder = _Decoder(new_rows(len(data)), start_offset, aborted, max_decompressed_bytes)
    for header, batch in frames(data):
        check_crc(header, batch)
        decoder.add(header, batch)
        if decoder.decompressed_bytes >= max_decompressed_bytes:
            break
    return decoder.result()


class _Decoder:
    def __init__(
        self, rows: Rows, start_offset: int, aborted: Sequence[tuple[int, int]], max_decompressed_bytes: int
    ) -> None:
        self.decompressed_bytes = 0
        self._position = start_offset
        self._batches_end = 0
        self._max_decompressed_bytes = max_decompressed_bytes
        self._aborts = sorted(((first, producer_id) for producer_id, first in aborted), reverse=True)
        self._aborting: set[int] = set()
        self._rows = rows
        self._skipped = {"control": 0, "aborted": 0, "compacted": 0}
        self._bad_batches: list[BadBatch] = []

    def add(self, header: BatchHeader, batch: memoryview) -> None:
        if header.base_offset < self._batches_end or header.last_offset_delta < 0:
            raise CorruptBatch(f"a batch at offset {header.base_offset} does not follow offset {self._batches_end - 1}")
        if header.next_offset > INT64_MAX:  # no CRC covers the base offset
            raise CorruptBatch(f"a batch at offset {header.base_offset} ends beyond 64 bits")
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
            marker = decode_marker(header, batch, self._max_decompressed_bytes)
            if marker is not None and not marker.commit:
                self._aborting.discard(header.producer_id)
            return "control"
        if header.is_transactional and header.producer_id in self._aborting:
            return "aborted"
        if header.next_offset > self._position:
            self._take_rows(header, batch)
        return None

    def _take_rows(self, header: BatchHeader, batch: memoryview) -> None:
        payload = unpacked(header.compression, batch[HEADER_BYTES:], self._max_decompressed_bytes)
        self.decompressed_bytes += len(payload)
        first = max(header.base_offset, self._position)
        self._skipped["compacted"] += header.next_offset - first - self._rows.add(header, payload, first)

    def result(self) -> DecodedRecords:
        return DecodedRecords(self._rows.table(), self._position, self._skipped, tuple(self._bad_batches))
