"""Histories for the tests of ledger and checks: one topic, told step by step, true until a test adds its lie."""

from uuid import UUID

from simulation.checks.ledger import Batch, Ledger, Place, Series

from streamlake.record.batch import BatchHeader, frames
from streamlake.record.decode import Record
from streamlake.record.encode import encode_batch

TOPIC_ID = UUID(int=7)
TOPIC = "orders"
NOW_MS = 1_700_000_000_000


class FixedClock:
    def __init__(self) -> None:
        self.ms = NOW_MS

    def now_ms(self) -> int:
        return self.ms

    def boottime(self) -> float:
        return self.ms / 1000


class Story:
    def __init__(self, partitions: int = 1) -> None:
        self.clock = FixedClock()
        self.ledger = Ledger(self.clock, skew_ms=0)
        self.ledger.created(TOPIC_ID, TOPIC, partitions)
        self.facts = self.ledger.topics[TOPIC_ID]
        self.place = Place(TOPIC_ID, 0)
        self._keys = 0

    def draft(
        self, count: int = 1, series: Series | None = None, meaning: object = None, legal: bool = True,
        place: Place | None = None,
    ) -> Batch:  # fmt: skip
        """A batch that nobody has sent yet; values are b"v0", b"v1", … by key."""
        records = []
        for position in range(count):
            records.append(Record(position, self.clock.ms, b"k%d" % self._keys, b"v%d" % self._keys, ()))
            self._keys += 1
        meanings = [meaning] * count
        return self.ledger.draft("p", place or self.place, records, series, meanings, legal=legal)

    def acked(self, base_offset: int, count: int = 1, series: Series | None = None, meaning: object = None) -> Batch:
        batch = self.draft(count, series, meaning)
        self.ledger.attempt(batch).acked(base_offset)
        return batch

    def read(self, batch: Batch, base_offset: int, leader_epoch: int = 1) -> None:
        """A reader sees the whole batch there."""
        self.ledger.read(batch.place, header(batch, base_offset, leader_epoch), stored(batch, base_offset))

    def tell(self, epoch: int, **answer: int) -> None:
        """A question and its answer, nothing in between."""
        self.ledger.answered(self.ledger.ask(self.place, epoch), **answer)


def stored(batch: Batch, base_offset: int) -> list[Record]:
    """The records as they lie in the log."""
    return [Record(base_offset + s.position, s.timestamp, s.key, s.value, s.headers) for s in batch.records]


def header(batch: Batch, base_offset: int, leader_epoch: int = 1) -> BatchHeader:
    data = encode_batch(stored(batch, base_offset), leader_epoch=leader_epoch)
    return next(frames(data))[0]
