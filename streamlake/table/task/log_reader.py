"""The port through which a table task reads the log: committed data only, as a consumer sees it.

Implemented over Kafka's Fetch in the worker and in memory in tests. Control and aborted batches are in the data (as
Fetch delivers them) and are left out by record/arrow.py with the help of `aborted`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class PartitionPositions:
    """Offsets [log_start_offset, last_stable_offset) can be read now."""

    log_start_offset: int
    last_stable_offset: int


@dataclass(frozen=True, slots=True)
class Fetched:
    """Whole record batches (the last may be torn) from the one that holds the asked offset on.

    `aborted`: (producer id, first offset) of the aborted transactions in `data`. No data and
    `log_start_offset` above the asked offset: those positions were deleted. No data and `last_stable_offset` below
    it: the log is shorter than what was read before."""

    data: Buffer
    last_stable_offset: int
    log_start_offset: int
    aborted: tuple[tuple[int, int], ...] = ()


class LogReader(Protocol):
    """Both calls raise NotFound if the topic (by its id) is gone, Unavailable if it cannot be read now."""

    async def positions(self, topic: str, topic_id: UUID, partitions: Sequence[int]) -> dict[int, PartitionPositions]:
        """Where each partition starts and how far it may be read. Partitions that do not exist yet are left out."""
        ...

    async def fetch(self, topic: str, topic_id: UUID, partition: int, offset: int, max_bytes: int) -> Fetched:
        """Data from `offset` on: at least one batch if there is one, else at most `max_bytes`."""
        ...
