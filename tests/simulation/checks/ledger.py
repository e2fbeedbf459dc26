"""The ledger: everything that clients of the cluster did, were told and saw, checked as it is written down.

Actors (../actors) write it; outcome.py compares it with the cluster when all is
quiet. It knows nothing of brokers, storage or the simulator, only what any client could know, so it judges real
servers too. Parts: history.py (one partition), commits.py (one group); here is what spans them: topics, the record
behind a key, and whether the start of a log may have moved so far.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from simulation.checks.commits import GroupHistory
from simulation.checks.history import Asked, Attempt, Batch, PartitionHistory, Place, Sent, Series, Violation, draft

from streamlake.core.clock import Clock
from streamlake.record.batch import BatchHeader
from streamlake.record.decode import Record

__all__ = ["Asked", "Attempt", "Batch", "Ledger", "Place", "Sent", "Series", "TopicFacts", "Violation"]

EVERYTHING = 2**63 - 1
CLOCK_SKEW_MS = 10_000


@dataclass(slots=True)
class TopicFacts:
    """By id. Whether it exists for good is known only after an acknowledged creation or deletion."""

    id: UUID
    name: str
    partitions: int
    created: bool = False  # acknowledged
    deleting: bool = False  # somebody asked for it, so it may be gone
    deleted: bool = False  # acknowledged


@dataclass(slots=True)
class Removal:
    """What was ever asked for that takes records away, by topic name, because that is how it is asked for."""

    retention_ms: int | None = None  # the least
    retention_bytes: int | None = None  # the least
    upto: dict[int, int] = field(default_factory=dict)  # partition → greatest offset of DeleteRecords


class Ledger:
    """`skew_ms`: how far the brokers' clocks may be from `clock`."""

    def __init__(self, clock: Clock, skew_ms: int = CLOCK_SKEW_MS) -> None:
        self.topics: dict[UUID, TopicFacts] = {}
        self.partitions: dict[Place, PartitionHistory] = {}
        self.groups: dict[str, GroupHistory] = {}
        self.records_read = 0
        self._clock = clock
        self._skew_ms = skew_ms
        self._removals: dict[str, Removal] = {}
        self._sent: dict[bytes, Sent] = {}
        self._producer_ids: set[int] = set()
        self._schemas: dict[int, str] = {}
        self._schema_ids: dict[str, int] = {}

    def partition(self, place: Place) -> PartitionHistory:
        found = self.partitions.get(place)
        if found is None:
            found = self.partitions[place] = PartitionHistory(place)
        return found

    @property
    def records_acked(self) -> int:
        return sum(len(b.records) for p in self.partitions.values() for b in p.batches if b.stored)

    def group(self, name: str) -> GroupHistory:
        return self.groups.setdefault(name, GroupHistory(name))

    # -- topics ------------------------------------------------------------------------------------------------------

    def saw_topic(self, topic_id: UUID, name: str, partitions: int) -> TopicFacts:
        """Some broker answered that it exists. Violation if an id has two names."""
        facts = self.topics.setdefault(topic_id, TopicFacts(topic_id, name, partitions))
        if facts.name != name:
            raise Violation(f"topic {topic_id} is called {name!r}, before that {facts.name!r}")
        facts.partitions = max(facts.partitions, partitions)
        return facts

    def created(self, topic_id: UUID, name: str, partitions: int) -> None:
        """Acknowledged: it exists until somebody asks to delete it. Violation if the same id was given before."""
        facts = self.saw_topic(topic_id, name, partitions)
        if facts.created:
            raise Violation(f"two topics were created with the id {topic_id}: {name!r}")
        facts.created = True

    def deleting(self, topic_id: UUID) -> None:
        self.topics[topic_id].deleting = True

    def deleted(self, topic_id: UUID) -> None:
        """Acknowledged: it never comes back."""
        self.topics[topic_id].deleted = True

    def may_be_gone(self, topic_id: UUID) -> bool:
        return topic_id in self.topics and self.topics[topic_id].deleting

    def retains(self, name: str, ms: int | None = None, size_bytes: int | None = None) -> None:
        """Somebody asks for a retention; -1 is for ever, None is no wish. Call before the request is sent."""
        removal = self._removals.setdefault(name, Removal())
        if ms is not None and ms >= 0:
            removal.retention_ms = min(ms, removal.retention_ms if removal.retention_ms is not None else ms)
        if size_bytes is not None and size_bytes >= 0:
            least = removal.retention_bytes
            removal.retention_bytes = min(size_bytes, least if least is not None else size_bytes)

    def deletes_records(self, name: str, index: int, offset: int) -> None:
        """Somebody asks for DeleteRecords; -1 is everything. Call before the request is sent."""
        upto = self._removals.setdefault(name, Removal()).upto
        upto[index] = max(upto.get(index, 0), EVERYTHING if offset == -1 else offset)

    def removal(self, place: Place) -> Removal:
        return self._removals.get(self.topics[place.topic_id].name, Removal())

    # -- producing ---------------------------------------------------------------------------------------------------

    def draft(
        self,
        producer: str,
        place: Place,
        records: Sequence[Record],
        series: Series | None = None,
        meanings: Sequence[object] = (),
        *,
        legal: bool = True,
    ) -> Batch:
        """A batch that is about to be sent, perhaps several times. Keys must be new."""
        batch = draft(self.partition(place), producer, series, records, legal)
        for sent in batch.records:
            assert sent.key not in self._sent, f"key {sent.key!r} is used twice"
            self._sent[sent.key] = sent
            if meanings:
                sent.meaning = meanings[sent.position]
        return batch

    def attempt(self, batch: Batch) -> Attempt:
        """Call before the request is sent, once for each time."""
        return Attempt(self.partition(batch.place), batch)

    def gave_producer_id(self, producer_id: int) -> None:
        """Violation if somebody got it before."""
        if producer_id in self._producer_ids:
            raise Violation(f"producer id {producer_id} was given twice")
        self._producer_ids.add(producer_id)

    def registered(self, schema_id: int, text: str) -> None:
        """The registry gave this id to this schema. Violation if either has another partner."""
        other = self._schemas.setdefault(schema_id, text)
        if other != text:
            raise Violation(f"schema id {schema_id} was given to {text} and to {other}")
        other_id = self._schema_ids.setdefault(text, schema_id)
        if other_id != schema_id:
            raise Violation(f"{text} has the schema ids {other_id} and {schema_id}")

    def sent(self, key: bytes | None) -> Sent | None:
        return None if key is None else self._sent.get(key)

    # -- reading -----------------------------------------------------------------------------------------------------

    def read(self, place: Place, header: BatchHeader, records: Sequence[Record]) -> None:
        """A reader was given these. Violation if nobody sent one, or not this one, or something else was seen there."""
        history = self.partition(place)
        for record in records:
            sent = self.sent(record.key)
            if sent is None:
                raise Violation(f"{place}@{record.offset} holds a record that nobody sent: {record}")
            history.read(sent, record, header)
        self.records_read += len(records)

    def ask(self, place: Place, epoch: int) -> Asked:
        """Take it before a request is sent that names this leader epoch; -1: it names none, and promises little."""
        return self.partition(place).ask(epoch)

    def answered(
        self,
        asked: Asked,
        *,
        high_watermark: int | None = None,
        last_stable_offset: int | None = None,
        log_start_offset: int | None = None,
    ) -> None:
        """What a leader told of its log. Violation if it went back, or the start moved without a reason."""
        history, place, epoch = self.partition(asked.place), asked.place, asked.epoch
        if high_watermark is not None:
            history.high_watermark.answered(place, epoch, high_watermark, asked.high_watermark)
        if last_stable_offset is not None:
            history.last_stable_offset.answered(place, epoch, last_stable_offset, asked.last_stable_offset)
        if high_watermark is not None and last_stable_offset is not None and last_stable_offset > high_watermark:
            raise Violation(f"{place}: last stable offset {last_stable_offset} above high watermark {high_watermark}")
        if log_start_offset is not None:
            history.log_start_offset.answered(place, epoch, log_start_offset, asked.log_start_offset)
            self.explain_start(place, log_start_offset)

    def out_of_range(self, asked: Asked, offset: int, log_start_offset: int) -> None:
        """A leader refused to read at `offset`. Right if the log starts above it, or it never reached it."""
        self.answered(asked, log_start_offset=log_start_offset)
        if asked.epoch >= 0 and log_start_offset <= offset <= asked.high_watermark:
            raise Violation(
                f"{asked.place}: epoch {asked.epoch} says that offset {offset} is out of range, but its log starts at "
                f"{log_start_offset} and the high watermark was {asked.high_watermark} before"
            )

    def explain_start(self, place: Place, start: int) -> None:
        """Violation unless DeleteRecords or retention was allowed to take every record below `start`."""
        history, removal = self.partition(place), self.removal(place)
        first = max(history.start_explained, removal.upto.get(place.partition, 0))
        if start <= first:
            return
        if removal.retention_ms is None and removal.retention_bytes is None:
            raise Violation(
                f"the log of {place} starts at {start}: nobody asked for retention, DeleteRecords went up to "
                f"{removal.upto.get(place.partition, 0)}"
            )
        if removal.retention_bytes is None:
            self._check_ages(history, removal.retention_ms or 0, first, start)
        history.start_explained = start

    def _check_ages(self, history: PartitionHistory, retention_ms: int, first: int, start: int) -> None:
        youngest_ms = self._clock.now_ms() - retention_ms + self._skew_ms
        for offset in range(first, start):
            sent = history.at.get(offset)
            if sent is not None and sent.timestamp > youngest_ms:
                raise Violation(
                    f"the log of {history.place} starts at {start}, but {sent} at {offset} is younger than "
                    f"{retention_ms} ms"
                )
