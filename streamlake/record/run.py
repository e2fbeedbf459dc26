"""One or more batches of one producer, checked, that become one chunk of a log. A run of one is the ordinary case.

validate.py makes them. run_kernel.pyx has the same class in C; this one is its twin.
"""

from array import array
from collections.abc import Sequence
from typing import NamedTuple

from streamlake.record.batch import BatchHeader, Buffer, assign


class CheckedBatch(NamedTuple):
    """A batch that may be appended. Timestamps of its records in ms."""

    header: BatchHeader
    data: Buffer
    min_timestamp: int
    max_timestamp: int


class Run:
    """If the batches have a producer id, it and the epoch are the same, and the sequence numbers follow each other. All
    of them are transactional, or none is."""

    __slots__ = ("_batches", "max_timestamp", "min_timestamp", "records", "size_bytes", "unpacked_bytes")

    def __init__(self, batches: Sequence[CheckedBatch], unpacked_bytes: int) -> None:
        """At least one batch. `unpacked_bytes` came out of those that are compressed."""
        self._batches = batches
        self.unpacked_bytes = unpacked_bytes
        self.size_bytes = sum(batch.header.size_bytes for batch in batches)
        self.records = sum(batch.header.count for batch in batches)
        self.min_timestamp = min(batch.min_timestamp for batch in batches)
        self.max_timestamp = max(batch.max_timestamp for batch in batches)

    def __len__(self) -> int:
        """The number of batches."""
        return len(self._batches)

    @property
    def producer_id(self) -> int:
        return self._first.producer_id

    @property
    def producer_epoch(self) -> int:
        return self._first.producer_epoch

    @property
    def base_sequence(self) -> int:
        return self._first.base_sequence

    @property
    def first_count(self) -> int:
        """Records in the first batch."""
        return self._first.count

    @property
    def is_transactional(self) -> bool:
        return self._first.is_transactional

    @property
    def is_log_append_time(self) -> bool:
        """The producer has marked the first batch so, which it may not."""
        return self._first.is_log_append_time

    @property
    def _first(self) -> BatchHeader:
        return self._batches[0].header

    def base_offsets(self, base_offset: int) -> Buffer:
        """Where each batch begins if the run starts at `base_offset`: an int64 for each, in this machine's order."""
        found = array("q")
        for batch in self._batches:
            found.append(base_offset)
            base_offset += batch.header.count
        return found.tobytes()

    def last(self, count: int, base_offset: int) -> list[tuple[int, int, int, int]]:
        """Of the last batches, up to `count`, if the run starts at `base_offset`: (base sequence, records, base offset,
        max timestamp)."""
        first, found = base_offset, []
        for header, _, _, max_timestamp in self._batches:
            found.append((header.base_sequence, header.count, first, max_timestamp))
            first += header.count
        return found[-count:]

    def placed(self, base_offset: int, leader_epoch: int, append_time_ms: int | None = None) -> "Placed":
        """All batches, one after the other, with their places in the log; as batches of LogAppendTime if
        `append_time_ms` is given. To be copied once."""
        return Placed(self._batches, self.size_bytes, base_offset, leader_epoch, append_time_ms)


class Placed:
    """A DeferredBuffer."""

    def __init__(
        self,
        batches: Sequence[CheckedBatch],
        size_bytes: int,
        base_offset: int,
        leader_epoch: int,
        append_time_ms: int | None,
    ) -> None:
        self._batches = batches
        self._size_bytes = size_bytes
        self._base_offset = base_offset
        self._leader_epoch = leader_epoch
        self._append_time_ms = append_time_ms

    def __len__(self) -> int:
        return self._size_bytes

    def copy_to(self, target: bytearray, at: int) -> None:
        if not 0 <= at <= len(target) - self._size_bytes:
            raise ValueError("there is no room for the batches")
        base_offset = self._base_offset
        for header, data, _, max_timestamp in self._batches:
            for part in assign(header, data, base_offset, self._leader_epoch, max_timestamp, self._append_time_ms):
                target[at : at + len(part)] = part
                at += len(part)
            base_offset += header.count
