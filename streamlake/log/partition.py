"""One partition: Kafka's log on a stream.

`append` is stage one of Produce: a plain function that checks a batch, gives it its offsets and hands it to the
stream; the future in its answer is stage two, durability. The high watermark is the stream's durable offset and
nobody reads above it. With no open transactions the last stable offset is the same.

State is of two ages. Producers are as of stage one, ahead of what is durable: if the write-ahead log fails they are
wrong, but then the stream is dead too, takes no further append, and the partition is opened again from what is durable.
"""

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

import msgspec

from streamlake.core.clock import Clock
from streamlake.core.cut import cut_end
from streamlake.core.errors import Closed, Corrupt, Invalid, StreamLakeError
from streamlake.core.tasks import Executor
from streamlake.log import checkpoint, epochs
from streamlake.log.errors import AppendOneByOne, InvalidTimestamp, OffsetOutOfRange
from streamlake.log.producers import BATCHES_KEPT, ProducedBatch
from streamlake.log.settings import LogSettings
from streamlake.log.stream_port import Buffer, Stream
from streamlake.log.waiters import Waiters
from streamlake.record.batch import NO_PRODUCER_ID, frames
from streamlake.record.run import Run
from streamlake.record.validate import check_batch

REPLAY_READ_BYTES = 4 * 1024 * 1024
NO_TIMESTAMP = -1


class Appended(msgspec.Struct, frozen=True):
    base_offset: int
    log_append_time_ms: int  # -1 unless the topic has LogAppendTime
    log_start_offset: int
    appended_bytes: int  # of the room that the caller reserved; 0 for a duplicate
    durable: "asyncio.Future[None]"  # answer only after this; a duplicate waits for the same, so nobody cancels it


@dataclass(frozen=True, slots=True)
class ReadResult:
    chunks: list[Buffer]  # whole batches, the first of which contains the offset asked for
    high_watermark: int
    last_stable_offset: int
    log_start_offset: int


class Quiet(NamedTuple):
    """Retention (retention.py) found nothing to delete or to forget, and will find nothing before `until_ms`, as long
    as `basis`, all that it went by but the clock, stays the same."""

    basis: tuple[object, ...]
    until_ms: int


class LogCounters:
    """Of all partitions of a broker, open or closed: no scrape has to visit them, and none falls when one is closed."""

    __slots__ = ("batches_in", "bytes_in", "bytes_out", "duplicates", "records_in")

    def __init__(self) -> None:
        self.batches_in = self.records_in = self.bytes_in = self.duplicates = self.bytes_out = 0

    def count(self, batches: int, records: int, size_bytes: int) -> None:
        self.batches_in += batches
        self.records_in += records
        self.bytes_in += size_bytes


class Partition:
    """Use `open`."""

    def __init__(
        self,
        stream: Stream,
        topic_id: UUID,
        index: int,
        settings: LogSettings,
        clock: Clock,
        executor: Executor,
        counters: LogCounters,
    ) -> None:
        self.stream = stream
        self.topic_id = topic_id
        self.index = index
        self.settings = settings
        self.executor = executor
        self.waiters = Waiters()
        self.quiet: Quiet | None = None
        self._counters = counters
        self._clock = clock
        self._producers = checkpoint.decode(stream.checkpoint, settings.producers_max)
        self._unacked: deque[tuple[int, asyncio.Future[None]]] = deque()  # (end offset, durable), in order
        self._holds: dict[str, int] = {}
        self.is_closed = False

    @classmethod
    async def open(
        cls,
        stream: Stream,
        topic_id: UUID,
        index: int,
        settings: LogSettings,
        clock: Clock,
        executor: Executor,
        counters: LogCounters,
    ) -> "Partition":
        """Checkpoint, then the batches after it, of a stream that was just opened, with nothing in flight.
        Corrupt if either cannot be read."""
        partition = cls(stream, topic_id, index, settings, clock, executor, counters)
        await partition._replay()
        stream.on_durable = partition._on_durable
        stream.set_checkpointer(lambda: checkpoint.encode(partition._producers))
        return partition

    async def _replay(self) -> None:
        """Bounded by what was not uploaded yet, as each upload takes a checkpoint."""
        position = max(self.stream.checkpoint_offset, self.stream.start_offset)
        now_ms = self._clock.now_ms()
        while position < self.stream.durable_offset:
            chunks = await self.stream.read(position, self.stream.durable_offset, REPLAY_READ_BYTES)
            for header, _ in (frame for chunk in chunks for frame in frames(chunk)):
                if header.base_offset >= position and header.producer_id != NO_PRODUCER_ID:
                    batch = ProducedBatch(
                        header.base_sequence, header.last_offset_delta + 1, header.base_offset, header.max_timestamp
                    )
                    self._producers.apply(header.producer_id, header.producer_epoch, (batch,), now_ms)
                position = max(position, header.next_offset)
            if not chunks:
                raise Corrupt(f"stream {self.stream.stream_id} has nothing at offset {position}, below its end")

    @property
    def leader_epoch(self) -> int:
        return self.stream.epoch

    @property
    def log_start_offset(self) -> int:
        return self.stream.start_offset

    @property
    def high_watermark(self) -> int:
        return self.stream.durable_offset

    @property
    def last_stable_offset(self) -> int:
        return self.stream.durable_offset

    @property
    def size_bytes(self) -> int:
        return self.stream.size_bytes

    def check(self, records: Buffer) -> Run:
        """The one batch of `records`, as `append` takes it; in any thread. Raises as check_batch."""
        return check_batch(records, self.settings.max_message_bytes)

    def append(self, run: Run) -> Appended:
        """Stage one of Produce: nothing awaited, so calls take effect in the order they are made (hazard C16). All
        batches get their offsets now, become one chunk, and are durable together.

        The caller has reserved run.size_bytes and gives back what `appended_bytes` does not use, all of it on an error.
        Raises the errors of Producers.check, AppendOneByOne, InvalidTimestamp, Invalid, Closed, Fenced; then nothing
        was done, and of several batches the first may be innocent: append them one by one."""
        if self.is_closed:
            raise Closed(f"partition {self.index} of topic {self.topic_id} was closed: look up its leader again")
        if run.is_transactional:
            raise Invalid("transactions are not supported yet: leave transactional.id unset")
        now_ms, settings = self._clock.now_ms(), self.settings
        append_time_ms = now_ms if settings.is_log_append_time else None
        if (
            run.is_log_append_time
            or now_ms - run.min_timestamp > settings.message_timestamp_before_max_ms
            or run.max_timestamp - now_ms > settings.message_timestamp_after_max_ms
        ):
            self._check_timestamps(run, now_ms)
        idempotent = run.producer_id != NO_PRODUCER_ID
        if idempotent:
            sequence = run.producer_id, run.producer_epoch, run.base_sequence, run.first_count
            if (earlier := self._producers.check(*sequence)) is not None:
                if len(run) > 1:
                    raise AppendOneByOne("the first batch of a run is there already, the others may not be")
                return self._repeat(earlier)

        max_timestamp = run.max_timestamp if append_time_ms is None else append_time_ms
        base_offset = self.stream.next_offset
        data = run.placed(base_offset, self.stream.epoch, append_time_ms)
        # Records without a timestamp age from now on; -1 would have retention delete them at once.
        sort_key = max_timestamp if max_timestamp != NO_TIMESTAMP else now_ms
        durable = self.stream.append(base_offset, run.records, sort_key, data)
        # Only now, as a dead stream raises: a sequence that was never appended must not look like a duplicate later.
        if idempotent:
            latest = [ProducedBatch._make(batch) for batch in run.last(BATCHES_KEPT, base_offset)]
            if append_time_ms is not None:
                latest = [batch._replace(max_timestamp=append_time_ms) for batch in latest]
            self._producers.apply(run.producer_id, run.producer_epoch, tuple(latest), now_ms)
        self._unacked.append((base_offset + run.records, durable))
        self._counters.count(len(run), run.records, run.size_bytes)
        told_ms = NO_TIMESTAMP if append_time_ms is None else append_time_ms
        return Appended(base_offset, told_ms, self.stream.start_offset, run.size_bytes, durable)

    def _repeat(self, earlier: ProducedBatch) -> Appended:
        """A duplicate gets the original's answer, and not before the original is durable: if that one is lost, so is
        this one, and the producer must learn it (hazard C6)."""
        self._counters.duplicates += 1
        if earlier.next_offset <= self.stream.durable_offset:
            durable = asyncio.get_running_loop().create_future()
            durable.set_result(None)
        else:
            durable = next(future for end, future in self._unacked if end >= earlier.next_offset)  # of its run
        append_time_ms = earlier.max_timestamp if self.settings.is_log_append_time else NO_TIMESTAMP
        return Appended(earlier.base_offset, append_time_ms, self.log_start_offset, 0, durable)

    def _check_timestamps(self, run: Run, now_ms: int) -> None:
        """Kafka's LogValidator.validateTimestamp, for the oldest and the newest record. Raises InvalidTimestamp."""
        if run.is_log_append_time:
            raise InvalidTimestamp("producers may not send batches of timestamp type LogAppendTime")
        if self.settings.is_log_append_time:
            return
        before_max_ms = self.settings.message_timestamp_before_max_ms
        after_max_ms = self.settings.message_timestamp_after_max_ms
        if run.min_timestamp != NO_TIMESTAMP and now_ms - run.min_timestamp > before_max_ms:
            raise InvalidTimestamp(
                f"timestamp {run.min_timestamp} is more than {before_max_ms} ms before the broker's clock "
                f"({now_ms}): see message.timestamp.before.max.ms"
            )
        if run.max_timestamp - now_ms > after_max_ms:
            raise InvalidTimestamp(
                f"timestamp {run.max_timestamp} is more than {after_max_ms} ms after the broker's clock "
                f"({now_ms}): see message.timestamp.after.max.ms"
            )

    def _on_durable(self) -> None:
        durable_offset = self.stream.durable_offset
        while self._unacked and self._unacked[0][0] <= durable_offset:
            self._unacked.popleft()
        self.waiters.wake()

    async def read(
        self, offset: int, max_bytes: int, *, at_least_one: bool = True, committed: bool = False
    ) -> ReadResult:
        """Whole batches from the one that contains `offset` on, durable ones only; for `committed` readers only below
        the last stable offset. At most `max_bytes`, but with `at_least_one` a first batch however large (KIP-74).
        OffsetOutOfRange outside log start to high watermark."""
        high_watermark, last_stable_offset = self.high_watermark, self.last_stable_offset
        self._check_in_range(offset, high_watermark)
        end_offset = last_stable_offset if committed else high_watermark
        chunks: list[Buffer] = []
        if offset < end_offset and (max_bytes > 0 or at_least_one):
            try:
                chunks = await self.stream.read(offset, end_offset, max_bytes)
            except StreamLakeError:
                self._check_in_range(offset, high_watermark)  # trimmed while we read: that is the clearer answer
                raise
            chunks = _fit(chunks, offset, max_bytes, at_least_one)
        self._counters.bytes_out += sum(map(len, chunks))
        return ReadResult(chunks, high_watermark, last_stable_offset, self.log_start_offset)

    def _check_in_range(self, offset: int, high_watermark: int) -> None:
        if not self.log_start_offset <= offset <= high_watermark:
            raise OffsetOutOfRange(offset, self.log_start_offset, high_watermark)

    def end_of_epoch(self, leader_epoch: int) -> tuple[int, int]:
        """(epoch, end offset) for OffsetForLeaderEpoch; (-1, -1) if unknown."""
        return epochs.end_of_epoch(self.stream.epochs, leader_epoch, self.high_watermark)

    def epoch_of(self, offset: int) -> int:
        """The leader epoch in which `offset` was or will be written; -1 if unknown."""
        return epochs.epoch_of(self.stream.epochs, offset)

    def hold(self, name: str, offset: int) -> None:
        """Retention keeps everything from `offset` on until `name` moves or releases its hold. Holds live in memory:
        set them before the first retention run."""
        self._holds[name] = offset

    def release(self, name: str) -> None:
        self._holds.pop(name, None)

    @property
    def deletable_offset(self) -> int:
        """Retention may not move the start above this: durable and held by nobody."""
        return min(self.high_watermark, *self._holds.values()) if self._holds else self.high_watermark

    async def move_start(self, offset: int) -> int:
        """DeleteRecords: the log now starts at `offset` (-1: the high watermark); the new start. It is what a user
        asked for, so holds do not stop it. OffsetOutOfRange above the high watermark; no change below the start."""
        if offset == -1:
            offset = self.high_watermark
        if offset < 0 or offset > self.high_watermark:
            raise OffsetOutOfRange(offset, self.log_start_offset, self.high_watermark)
        if offset > self.log_start_offset:
            # Safe at a crash: the new start is in the metadata before trim returns, and the data goes only after that.
            await self.stream.trim(offset)
        return self.log_start_offset

    def expire_producers(self) -> int:
        """Forget producers silent for producer.id.expiration.ms; how many."""
        return self._producers.expire(self._clock.now_ms(), self.settings.producer_id_expiration_ms)

    @property
    def producers_silent_since_ms(self) -> int | None:
        """When the producer that was silent longest was last heard of."""
        return self._producers.silent_since_ms

    def close(self) -> None:
        """No more appends; long polls wake up. The stream stays open: its last upload still asks for a checkpoint."""
        self.is_closed = True
        self.waiters.wake()


def _fit(chunks: list[Buffer], offset: int, max_bytes: int, at_least_one: bool) -> list[Buffer]:
    """What of `chunks` answers a fetch: without batches that end at or below `offset`, up to `max_bytes`. The stream
    has cut them between chunks, so only a first chunk, which it gives however large, is cut between its batches."""
    if not chunks:
        return chunks
    first = _without_batches_before(chunks[0], offset)
    if len(first) <= max_bytes:
        return [first, *chunks[1:]]
    first = _first_batches(first, max_bytes, at_least_one)
    return [first] if first else []


def _without_batches_before(chunk: Buffer, offset: int) -> Buffer:
    skipped = 0
    for header, batch in frames(chunk):
        if header.next_offset > offset:
            break
        skipped += len(batch)
    return memoryview(chunk)[skipped:] if skipped else chunk


def _first_batches(chunk: Buffer, max_bytes: int, at_least_one: bool) -> Buffer:
    """Of a chunk that is larger than `max_bytes`."""
    end, ends = 0, [0]
    for _, batch in frames(chunk):
        end += len(batch)
        ends.append(end)
        if end > max_bytes:
            break
    return memoryview(chunk)[: ends[cut_end(0, len(ends) - 2, at_least_one)]]
