"""Idempotent producers of one partition: which batch comes next, and which one was here before (KIP-98).

Per producer id the last five batches are remembered: a batch sent again gets its first answer, anything else must
follow the last sequence number. `check` looks at the state as of stage one of Produce, durable or not; `apply` is
called in the same tick, once the stream has taken the batch. The replay of a log and a checkpoint go through it too.
Rules as in Kafka's ProducerAppendInfo and ProducerStateEntry (4.x). Of transactions only this is known here: a marker
may raise the epoch, and a producer with an open transaction is never forgotten.
"""

from collections.abc import Container, Iterator
from typing import NamedTuple

from streamlake.log.errors import InvalidProducerEpoch, OutOfOrderSequence

BATCHES_KEPT = 5  # = max.in.flight.requests.per.connection that an idempotent producer may use
SEQUENCES = 2**31  # sequence numbers wrap to 0 after 2**31 - 1


class ProducedBatch(NamedTuple):
    base_sequence: int
    record_count: int
    base_offset: int
    max_timestamp: int  # ms, as stored

    @property
    def last_sequence(self) -> int:
        return (self.base_sequence + self.record_count - 1) % SEQUENCES

    @property
    def next_sequence(self) -> int:
        return (self.base_sequence + self.record_count) % SEQUENCES

    @property
    def next_offset(self) -> int:
        return self.base_offset + self.record_count


class Producer(NamedTuple):
    """State of one producer id; `batches` has up to five, the latest last; none after a marker with a new epoch."""

    epoch: int
    last_append_ms: int  # by the broker's clock
    batches: tuple[ProducedBatch, ...]
    coordinator_epoch: int = -1  # of its last marker; -1: none yet


class Producers:
    """At most `producers_max` of them: the one that was silent longest is forgotten first. Those in `kept` stay."""

    def __init__(self, producers_max: int, kept: Container[int] = ()) -> None:
        self.producers_max = producers_max
        self._kept = kept
        self._producers: dict[int, Producer] = {}  # longest silent first

    def __len__(self) -> int:
        return len(self._producers)

    def __contains__(self, producer_id: object) -> bool:
        return producer_id in self._producers

    def items(self) -> Iterator[tuple[int, Producer]]:
        """(producer id, state), longest silent first."""
        return iter(self._producers.items())

    def get(self, producer_id: int) -> Producer | None:
        return self._producers.get(producer_id)

    def check(self, producer_id: int, epoch: int, base_sequence: int, record_count: int) -> ProducedBatch | None:
        """None if the batch may be appended; the earlier batch if it is one of the last five sent again.

        Raises InvalidProducerEpoch for an epoch that was superseded, OutOfOrderSequence for a gap. A producer that
        is not known here (new, expired, forgotten) may begin at any sequence, as in ProducerAppendInfo.checkSequence:
        today's Kafka never answers UNKNOWN_PRODUCER_ID."""
        producer = self._producers.get(producer_id)
        if producer is None:
            return None
        if epoch < producer.epoch:
            raise InvalidProducerEpoch(
                f"producer {producer_id} has epoch {epoch}, epoch {producer.epoch} was seen: "
                "a newer producer with this id has taken over"
            )
        if epoch > producer.epoch:
            expected = 0
        else:
            for batch in producer.batches:
                if batch.base_sequence == base_sequence and batch.record_count == record_count:
                    return batch
            expected = producer.batches[-1].next_sequence if producer.batches else 0
        if base_sequence != expected:
            raise OutOfOrderSequence(
                f"producer {producer_id} (epoch {epoch}) sent sequence {base_sequence}, expected {expected}: "
                "batches in between are missing"
            )
        return None

    def apply(self, producer_id: int, epoch: int, batches: tuple[ProducedBatch, ...], appended_ms: int) -> None:
        """Remember batches that the stream has; of many, the last BATCHES_KEPT will do. The producer becomes the one
        heard of last."""
        before = self._producers.pop(producer_id, None)
        if before is None:
            state = Producer(epoch, appended_ms, batches[-BATCHES_KEPT:])
        elif before.epoch == epoch:
            kept = (*before.batches, *batches)[-BATCHES_KEPT:]
            state = Producer(epoch, appended_ms, kept, before.coordinator_epoch)
        else:
            state = Producer(epoch, appended_ms, batches[-BATCHES_KEPT:], before.coordinator_epoch)
        self._producers[producer_id] = state
        if len(self._producers) > self.producers_max:
            self._forget_one(producer_id)

    def ended(self, producer_id: int, epoch: int, coordinator_epoch: int, appended_ms: int) -> None:
        """Remember a marker that the stream has. The sequence numbers of a new epoch begin at 0."""
        before = self._producers.get(producer_id)
        batches = before.batches if before is not None and before.epoch == epoch else ()
        self.restore(producer_id, Producer(epoch, appended_ms, batches, coordinator_epoch))

    def restore(self, producer_id: int, producer: Producer) -> None:
        """The state of a producer, as a checkpoint has it. It becomes the one heard of last."""
        self._producers.pop(producer_id, None)
        self._producers[producer_id] = producer
        if len(self._producers) > self.producers_max:
            self._forget_one(producer_id)

    def _forget_one(self, latest: int) -> None:
        del self._producers[next((i for i in self._producers if i not in self._kept), latest)]

    @property
    def silent_since_ms(self) -> int | None:
        """When the one that was silent longest, by the clock, was last heard of. Not one that is kept."""
        return min((p.last_append_ms for i, p in self._producers.items() if i not in self._kept), default=None)

    def expire(self, now_ms: int, expiration_ms: int) -> int:
        """Forget producers silent for `expiration_ms`; how many."""
        expired = [
            i for i, p in self._producers.items() if now_ms - p.last_append_ms >= expiration_ms and i not in self._kept
        ]
        for producer_id in expired:
            del self._producers[producer_id]
        return len(expired)
