"""One partition: Kafka's log on a stream.

`append` is stage one of Produce: a plain function that checks a batch, gives it its offsets and hands it to the
stream; the future in its answer is stage two, durability. The high watermark is the stream's durable offset and
nobody reads above it, nor readers of committed records above the last stable offset (open_transactions.py).

State is of two ages. Producers and transactions are as of stage one, ahead of what is durable: if the write-ahead log
fails they are wrong, but then the stream is dead too, takes no further append, and the partition is opened again from
what is durable.
"""

import asyncio
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

import msgspec

from streamlake.core.clock import Clock
from streamlake.core.cut import cut_end
from streamlake.core.errors import Closed, Corrupt, StreamLakeError
from streamlake.core.tasks import Executor
from streamlake.log import checkpoint, epochs
from streamlake.log.errors import (
    AppendOneByOne,
    CoordinatorFenced,
    InvalidRecord,
    InvalidTimestamp,
    OffsetOutOfRange,
)
from streamlake.log.open_transactions import UNKNOWN_NUMBER, OpenTransaction
from streamlake.log.producers import BATCHES_KEPT, ProducedBatch, Producer
from streamlake.log.settings import LogSettings
from streamlake.log.stream_port import Buffer, Stream
from streamlake.log.transactions import TransactionEnd, Transactions
from streamlake.log.waiters import Waiters
from streamlake.record.batch import HEADER_BYTES, NO_PRODUCER_ID, BatchHeader, frames
from streamlake.record.compression import DECOMPRESSED_BYTES_MAX
from streamlake.record.control import Marker, decode_marker, encode_marker
from streamlake.record.recompress import codec_of, recompressed
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


class Ended(NamedTuple):
    """`durable`: answer only after this; None if there was nothing to end, or it is durable already."""

    appended_bytes: int  # of the room that the caller reserved
    durable: "asyncio.Future[None] | None"


@dataclass(frozen=True, slots=True)
class ReadResult:
    chunks: list[Buffer]  # whole batches, the first of which contains the offset asked for
    high_watermark: int
    last_stable_offset: int
    log_start_offset: int
    aborted: list[tuple[int, int]]  # (producer id, first offset) of aborted transactions in `chunks`


class Quiet(NamedTuple):
    """Retention (retention.py) found nothing to delete or to forget, and will find nothing before `until_ms`, as long
    as `basis`, all that it went by but the clock, stays the same."""

    basis: tuple[object, ...]
    until_ms: int


class LogCounters:
    """Of all partitions of a broker, open or closed: no scrape has to visit them, and none falls when one is closed."""

    __slots__ = ("aborted", "batches_in", "bytes_in", "bytes_out", "committed", "duplicates", "records_in")

    def __init__(self) -> None:
        self.batches_in = self.records_in = self.bytes_in = self.duplicates = self.bytes_out = 0
        self.committed = self.aborted = 0  # transactions

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
        state = checkpoint.decode(stream.checkpoint, settings.producers_max)
        self._producers = state.producers
        # Of the producers that are known half at most have a transaction open, so that others are known, too.
        self.transactions = Transactions(state.transactions, stream.notes, settings.producers_max // 2)
        self.transactions.aborted.trim(stream.start_offset)
        self._opened = self.transactions.open
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
        stream.set_checkpointer(lambda: checkpoint.encode(partition._producers, partition.transactions.open))
        return partition

    async def _replay(self) -> None:
        """Bounded by what was not uploaded yet, as each upload takes a checkpoint."""
        position = max(self.stream.checkpoint_offset, self.stream.start_offset)
        now_ms = self._clock.now_ms()
        while position < self.stream.durable_offset:
            chunks = await self.stream.read(position, self.stream.durable_offset, REPLAY_READ_BYTES)
            for header, data in (frame for chunk in chunks for frame in frames(chunk)):
                if header.base_offset >= position and header.producer_id != NO_PRODUCER_ID:
                    self._replay_batch(header, data, now_ms)
                position = max(position, header.next_offset)
            if not chunks:
                raise Corrupt(f"stream {self.stream.stream_id} has nothing at offset {position}, below its end")

    def _replay_batch(self, header: BatchHeader, data: memoryview, now_ms: int) -> None:
        producer_id, epoch = header.producer_id, header.producer_epoch
        if header.is_control:
            if (marker := decode_marker(header, data, DECOMPRESSED_BYTES_MAX)) is not None:
                end = TransactionEnd(producer_id, epoch, marker.coordinator_epoch, marker.commit)
                self._ended(end, header.base_offset, None, now_ms)
            return
        if header.is_transactional:
            self.transactions.appended(producer_id, epoch, header.base_offset)
        count = header.last_offset_delta + 1
        batch = ProducedBatch(header.base_sequence, count, header.base_offset, header.max_timestamp)
        self._producers.apply(producer_id, epoch, (batch,), now_ms)

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
        durable, unstable = self.stream.durable_offset, self.transactions.open.unstable_offset
        return durable if unstable is None else max(min(unstable, durable), self.stream.start_offset)

    @property
    def size_bytes(self) -> int:
        return self.stream.size_bytes

    def check(self, records: Buffer) -> Run:
        """The one batch of `records`, as `append` takes it; in any thread. Raises as check_batch."""
        return check_batch(records, self.settings.max_message_bytes)

    def must_recompress(self, records: Buffer) -> bool:
        """Whether the topic wants another codec than that of this batch, if it is one."""
        codec = self.settings.codec
        return codec is not None and len(records) > HEADER_BYTES and codec_of(records) != codec.compression

    def recompress(self, records: Buffer, bytes_max: int) -> Run:
        """A batch that `check` took, with the codec of the topic; in any thread. RecordTooLarge: more than `bytes_max`
        would come out."""
        codec = self.settings.codec
        batch = records if codec is None else recompressed(records, codec, bytes_max)
        return check_batch(batch, bytes_max)

    def append(self, run: Run) -> Appended:
        """Stage one of Produce: nothing awaited, so calls take effect in the order they are made (hazard C16). All
        batches get their offsets now, become one chunk, and are durable together.

        The caller has reserved run.size_bytes and gives back what `appended_bytes` does not use, all of it on an error.
        Raises the errors of Producers.check and Transactions.check, AppendOneByOne, InvalidTimestamp, InvalidRecord,
        Closed, Fenced; then nothing was done, and of several batches the first may be innocent: append them one by
        one."""
        if self.is_closed:
            raise Closed(f"partition {self.index} of topic {self.topic_id} was closed: look up its leader again")
        now_ms, settings = self._clock.now_ms(), self.settings
        append_time_ms = now_ms if settings.is_log_append_time else None
        if (
            run.is_log_append_time
            or now_ms - run.min_timestamp > settings.message_timestamp_before_max_ms
            or run.max_timestamp - now_ms > settings.message_timestamp_after_max_ms
        ):
            self._check_timestamps(run, now_ms)
        producer_id, transactional = run.producer_id, run.is_transactional
        if producer_id != NO_PRODUCER_ID:
            epoch = run.producer_epoch
            if (earlier := self._producers.check(producer_id, epoch, run.base_sequence, run.first_count)) is not None:
                if len(run) > 1:
                    raise AppendOneByOne("the first batch of a run is there already, the others may not be")
                return self._repeat(earlier)
            if transactional or (self._opened.unstable_offset is not None and producer_id in self._opened):
                self.transactions.check(run, is_known=producer_id in self._producers)
        elif transactional:
            raise InvalidRecord("a transactional batch has no producer id")

        max_timestamp = run.max_timestamp if append_time_ms is None else append_time_ms
        base_offset = self.stream.next_offset
        data = run.placed(base_offset, self.stream.epoch, append_time_ms)
        # Records without a timestamp age from now on; -1 would have retention delete them at once.
        sort_key = max_timestamp if max_timestamp != NO_TIMESTAMP else now_ms
        durable = self.stream.append(base_offset, run.records, sort_key, data)
        # Only now, as a dead stream raises: a sequence that was never appended must not look like a duplicate later.
        if producer_id != NO_PRODUCER_ID:
            if transactional:
                self.transactions.appended(producer_id, epoch, base_offset)
            latest = [ProducedBatch._make(batch) for batch in run.last(BATCHES_KEPT, base_offset)]
            if append_time_ms is not None:
                latest = [batch._replace(max_timestamp=append_time_ms) for batch in latest]
            self._producers.apply(producer_id, epoch, tuple(latest), now_ms)
        self._unacked.append((base_offset + run.records, durable))
        self._counters.count(len(run), run.records, run.size_bytes)
        told_ms = NO_TIMESTAMP if append_time_ms is None else append_time_ms
        return Appended(base_offset, told_ms, self.stream.start_offset, run.size_bytes, durable)

    def end_transaction(self, end: TransactionEnd) -> Ended:
        """Append the marker that ends the open transaction of a producer, as its coordinator has decided. If none is
        open, or a later one, nothing is written: this one has ended before (Kafka refuses, and hangs: KAFKA-19999).

        A plain function as `append`; the caller has reserved MARKER_BYTES. Raises CoordinatorFenced,
        InvalidProducerEpoch, Unavailable, Closed, Fenced; then nothing was done."""
        if self.is_closed:
            raise Closed(f"partition {self.index} of topic {self.topic_id} was closed: look up its leader again")
        newest = self.coordinator_epoch(end.producer_id)
        if end.number == UNKNOWN_NUMBER and end.coordinator_epoch < newest:
            raise CoordinatorFenced(f"a marker of coordinator epoch {end.coordinator_epoch} came after one of {newest}")
        written = self.transactions.ends(end)
        if written is None:
            # A repeat is no more durable than the marker that it repeats.
            return Ended(0, self.transactions.open.ending(end.producer_id))
        offset, now_ms = self.stream.next_offset, self._clock.now_ms()
        marker = Marker(written.commit, written.coordinator_epoch)
        place = written.producer_id, written.producer_epoch, offset, self.stream.epoch
        data = encode_marker(marker, *place, now_ms)
        # The state follows at once, and is ahead of what is durable. If this broker dies here, the marker may be
        # missing from the log: the next leader finds the transaction open, and the coordinator, which got no answer,
        # sends the marker again. No reader of committed records has passed its first offset by then.
        durable = self.stream.append(offset, 1, now_ms, data)
        self._ended(written, offset, None if durable.done() else durable, now_ms)
        self._unacked.append((offset + 1, durable))
        if written.commit:
            self._counters.committed += 1
        else:
            self._counters.aborted += 1
        return Ended(len(data), durable)

    def _ended(self, end: TransactionEnd, offset: int, durable: "asyncio.Future[None] | None", now_ms: int) -> None:
        """The marker at `offset` has ended a transaction."""
        self._producers.ended(end.producer_id, end.producer_epoch, end.coordinator_epoch, now_ms)
        if (aborted := self.transactions.ended(end, offset, durable)) is not None:
            # Committed with the first checkpoint that does not know of the transaction any more, all or nothing: who
            # opens the partition from there would else have readers take its records for committed ones.
            self.stream.note(offset + 1, aborted.encoded())

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
        self.transactions.open.durable(durable_offset)  # before readers look how far they may read
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
        aborted = self._aborted_in(chunks, offset) if committed else []
        return ReadResult(chunks, high_watermark, last_stable_offset, self.log_start_offset, aborted)

    def _aborted_in(self, chunks: list[Buffer], offset: int) -> list[tuple[int, int]]:
        if not chunks or not len(self.transactions.aborted):
            return []
        *_, (last, _) = frames(chunks[-1])
        return self.transactions.aborted.within(offset, last.next_offset)

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
        """Retention may not move the start above this: stable and held by nobody."""
        return min(self.last_stable_offset, *self._holds.values()) if self._holds else self.last_stable_offset

    async def move_start(self, offset: int) -> int:
        """DeleteRecords: the log now starts at `offset` (-1: the high watermark); the new start. It is what a user
        asked for, so holds do not stop it. OffsetOutOfRange above the high watermark; no change below the start."""
        if offset == -1:
            offset = self.high_watermark
        if offset < 0 or offset > self.high_watermark:
            raise OffsetOutOfRange(offset, self.log_start_offset, self.high_watermark)
        if offset > self.log_start_offset:
            await self.trim(offset)
        return self.log_start_offset

    async def trim(self, offset: int, *, spares_held: bool = False) -> None:
        """The log starts at `offset`, which lies below the high watermark. Conflict, if it `spares_held`, and a hold in
        the metadata store forbids it."""
        # Safe at a crash: the new start is in the metadata before trim returns, and the data goes only after that.
        await self.stream.trim(offset, spares_held=spares_held)
        self.transactions.aborted.trim(self.log_start_offset)

    def coordinator_epoch(self, producer_id: int) -> int:
        """Of the coordinator that sent the last marker of this producer; -1 if none is known."""
        producer = self._producers.get(producer_id)
        return producer.coordinator_epoch if producer is not None else -1

    def producer_states(self) -> Iterator[tuple[int, Producer, OpenTransaction | None]]:
        """(producer id, its state, its open transaction) of each producer that is known."""
        opened = self.transactions.open
        return ((producer_id, producer, opened.get(producer_id)) for producer_id, producer in self._producers.items())

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
