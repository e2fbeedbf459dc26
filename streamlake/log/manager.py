"""All open partitions of this broker: it opens many at once, finds and closes them, and runs their retention.

The broker opens the streams, passes them in, and calls `retain` for each partition at intervals. The manager owns no
task and deletes no stream.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

import structlog

from streamlake.core.clock import Clock
from streamlake.core.errors import Exists, StreamLakeError
from streamlake.core.tasks import Executor
from streamlake.log.partition import LogCounters, Partition
from streamlake.log.retention import apply_retention, is_due
from streamlake.log.settings import LogSettings
from streamlake.log.stream_port import Stream
from streamlake.telemetry.metric import Metric, counter, gauge

log = structlog.get_logger(__name__)

OPENING_MAX = 32  # replays at a time: each holds up to REPLAY_READ_BYTES


@dataclass(frozen=True, slots=True)
class Opening:
    """A stream that was opened for a partition."""

    stream: Stream
    topic_id: UUID
    index: int
    settings: LogSettings


class LogManager:
    """Counters: `counters` of the partitions, offsets_expired (by retention), producers_expired, retention_failures."""

    def __init__(self, clock: Clock, executor: Executor) -> None:
        self.counters = LogCounters()
        self.opened: list[Callable[[Partition], None]] = []  # called with each partition once it is open
        self.offsets_expired = self.producers_expired = self.retention_failures = 0
        self._clock = clock
        self._executor = executor
        self._partitions: dict[tuple[UUID, int], Partition] = {}

    def metrics(self) -> Iterable[Metric]:
        log = self.counters
        return (
            gauge("streamlake_partitions", "Open partitions.", lambda: len(self)),
            counter("streamlake_log_batches_appended", "Record batches appended to partitions.",
                lambda: log.batches_in),
            counter("streamlake_log_records_appended", "Records appended to partitions.", lambda: log.records_in),
            counter("streamlake_log_bytes_appended", "Bytes of record batches appended to partitions.",
                lambda: log.bytes_in),
            counter("streamlake_log_duplicates",
                "Duplicate batches from idempotent producers, acknowledged but not appended again.",
                lambda: log.duplicates),
            counter("streamlake_log_transactions_committed",
                "Commit markers appended to partitions: one for each partition of a transaction.",
                lambda: log.committed),
            counter("streamlake_log_transactions_aborted",
                "Abort markers appended to partitions: one for each partition of a transaction.",
                lambda: log.aborted),
            counter("streamlake_log_bytes_fetched", "Bytes of record batches read by consumers and the table worker.",
                lambda: log.bytes_out),
            counter("streamlake_log_offsets_expired", "Records deleted by retention.", lambda: self.offsets_expired),
            counter("streamlake_log_retention_failures",
                "Retention runs on a partition that failed and will be retried.", lambda: self.retention_failures),
            counter("streamlake_log_producers_expired",
                "Idempotent producers expired after producer.id.expiration.ms without a batch.",
                lambda: self.producers_expired),
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self._partitions)

    def __iter__(self) -> Iterator[Partition]:
        """The open partitions as of now."""
        return iter(list(self._partitions.values()))

    def get(self, topic_id: UUID, index: int) -> Partition | None:
        return self._partitions.get((topic_id, index))

    async def open(self, openings: Sequence[Opening]) -> list[Partition | StreamLakeError]:
        """Open and register partitions; the results are in the order of `openings`. A partition that cannot be read
        (Corrupt, Unavailable, …) remains closed, and its result is the error."""
        permits = asyncio.Semaphore(OPENING_MAX)

        async def open_one(opening: Opening) -> Partition | StreamLakeError:
            key = (opening.topic_id, opening.index)
            async with permits:
                try:
                    partition = await Partition.open(
                        opening.stream,
                        opening.topic_id,
                        opening.index,
                        opening.settings,
                        self._clock,
                        self._executor,
                        self.counters,
                    )
                except StreamLakeError as error:
                    log.error("partition not opened", topic_id=str(key[0]), partition=key[1], error=str(error))
                    return error
            if key in self._partitions:
                return Exists(f"partition {key[1]} of topic {key[0]} is open already: close it first")
            self._partitions[key] = partition
            for listener in self.opened:
                listener(partition)
            return partition

        return list(await asyncio.gather(*map(open_one, openings)))

    def close(self, topic_id: UUID, index: int) -> None:
        """Remove a partition: appends to it fail with Closed, long polls wake up. No error if it is not open."""
        partition = self._partitions.pop((topic_id, index), None)
        if partition is not None:
            partition.close()

    def close_topic(self, topic_id: UUID) -> list[int]:
        """Close all partitions of a deleted topic. Returns the ids of their streams, for the caller to delete."""
        mine = [p for key, p in self._partitions.items() if key[0] == topic_id]
        for partition in mine:
            self.close(topic_id, partition.index)
        return [p.stream.stream_id for p in mine]

    def close_all(self) -> None:
        for topic_id, index in list(self._partitions):
            self.close(topic_id, index)

    def is_due(self, partition: Partition) -> bool:
        """Whether `retain` may find anything to delete."""
        return is_due(partition, self._clock.now_ms())

    async def retain(self, partition: Partition) -> None:
        """Expire producers and records of one partition. A failure, such as an unavailable metadata store, is logged;
        the next run tries again."""
        self.producers_expired += partition.expire_producers()
        try:
            self.offsets_expired += await apply_retention(partition, self._clock.now_ms())
        except StreamLakeError as error:
            self.retention_failures += 1
            log.warning(
                "retention failed", topic_id=str(partition.topic_id), partition=partition.index, error=str(error)
            )
