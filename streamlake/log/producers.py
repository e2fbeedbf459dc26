"""Idempotent producers of one partition: which batch comes next, and which one was here before (KIP-98).

Per producer id the last five batches are remembered: a batch sent again gets its first answer, anything else must
follow the last sequence number. `check` looks at the state as of stage one of Produce, durable or not; `apply` is
called in the same tick, once the stream has taken the batch. The replay of a log and a checkpoint go through it too.
Rules as in Kafka's ProducerAppendInfo and ProducerStateEntry (4.x). Transactions are not known here yet.
"""

from collections.abc import Iterator
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
    def next_sequence(self) -> int:
        return (self.base_sequence + self.record_count) % SEQUENCES

    @property
    def next_offset(self) -> int:
        return self.base_offset + self.record_count


class Producer(NamedTuple):
    """State of one producer id; `batches` has one to five, the latest last."""

    epoch: int
    last_append_ms: int  # by the broker's clock
    batches: tuple[ProducedBatch, ...]


class Producers:
    """At most `producers_max` of them: the one that was silent longest is forgotten first."""

    def __init__(self, producers_max: int) -> None:
        self.producers_max = producers_max
        self._producers: dict[int, Producer] = {}  # longest silent first

    def __len__(self) -> int:
        return len(self._producers)

    def items(self) -> Iterator[tuple[int, Producer]]:
        """(producer id, state), longest silent first."""
        return iter(self._producers.items())

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
            expected = producer.batches[-1].next_sequence
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
        earlier = before.batches if before is not None and before.epoch == epoch else ()
        self._producers[producer_id] = Producer(epoch, appended_ms, (*earlier, *batches)[-BATCHES_KEPT:])
        if len(self._producers) > self.producers_max:
            del self._producers[next(iter(self._producers))]

    @property
    def silent_since_ms(self) -> int | None:
        """When the one that was silent longest, by the clock, was last heard of."""
        return min((p.last_append_ms for p in self._producers.values()), default=None)

    def expire(self, now_ms: int, expiration_ms: int) -> int:
        """Forget producers silent for `expiration_ms`; how many."""
        expired = [i for i, p in self._producers.items() if now_ms - p.last_append_ms >= expiration_ms]
        for producer_id in expired:
            del self._producers[producer_id]
        return len(expired)
