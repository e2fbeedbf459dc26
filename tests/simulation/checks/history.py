"""What the outside world knows of one partition: what was sent to it, what was answered, what was read.

Every record has a key that nobody else ever uses, so whoever reads a record knows who sent it, in which batch and how
often. Checks run as facts come in; `Violation` tells what was promised and what happened instead. What only the end of
a run can tell (nothing acked is missing) is in outcome.py.

Numbers that must not go back (high watermark, last stable offset, log start) are promised per leader epoch, see `Mark`.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

from streamlake.record.batch import BatchHeader
from streamlake.record.decode import Headers, Record


class Violation(AssertionError):
    """A promise of the cluster was broken."""


class Place(NamedTuple):
    """A partition for good: a topic that is deleted and made again has another id."""

    topic_id: UUID
    partition: int

    def __str__(self) -> str:
        return f"{str(self.topic_id)[-12:]}[{self.partition}]"


@dataclass(slots=True, eq=False)
class Sent:
    """One record as its producer made it. `meaning` is what a table must make of it (actors/tables.py)."""

    key: bytes
    value: bytes | None
    timestamp: int  # ms
    headers: Headers
    batch: "Batch"
    position: int  # within its batch
    meaning: object = None
    at: list[int] = field(default_factory=list)  # offsets where it was acked or read

    def __str__(self) -> str:
        return f"record {self.key.decode()} ({self.batch})"


@dataclass(slots=True, eq=False)
class Series:
    """Batches of one idempotent producer (id and epoch) for one partition: in the log once each, in this order."""

    producer_id: int
    epoch: int
    sent: list[Sent] = field(default_factory=list)
    found: list[tuple[int, int]] = field(default_factory=list)  # (number in the series, offset), sorted

    def place(self, sent: Sent, offset: int) -> None:
        """Violation unless `offset` fits between the offsets of the neighbours in the series."""
        number = sent.batch.first + sent.position
        after = bisect_left(self.found, (number, -1))
        if (after > 0 and self.found[after - 1][1] >= offset) or (
            after < len(self.found) and self.found[after][1] <= offset
        ):
            near = [(self.sent[n].key.decode(), o) for n, o in self.found[max(0, after - 1) : after + 1]]
            raise Violation(f"out of order: {sent} is at offset {offset}, its neighbours in the series at {near}")
        self.found.insert(after, (number, offset))


@dataclass(slots=True, eq=False)
class Batch:
    """Records that travel together. A plain producer that sends them again may store them again; with a `series` they
    may be stored once. Illegal ones (broken on purpose) may never be stored."""

    producer: str
    place: Place
    series: Series | None
    first: int  # number of the first record in the series
    legal: bool
    records: list[Sent] = field(default_factory=list)
    attempts: int = 0
    refusals: int = 0
    stored: bool = False  # known to be in the log, wherever
    notes: list[str] = field(default_factory=list)

    @property
    def copies_max(self) -> int:
        possible = self.attempts - self.refusals if self.legal else 0
        return min(possible, 1) if self.series is not None else possible

    def __str__(self) -> str:
        kind = "plain" if self.series is None else f"idempotent {self.series.producer_id}/{self.series.epoch}"
        return f"{kind} producer {self.producer} to {self.place}; {'; '.join(self.notes[-6:]) or 'not sent'}"


class Mark:
    """A number that the leaders of one partition answer with and that never goes back.

    Promised, and checked, is: (1) of answers of one leader epoch, one that was asked for after another had arrived is
    not smaller; (2) no answer of a newer epoch is ever smaller than any answer of an older epoch, whenever they came:
    whoever opens a stream has recovered all that a former owner could have shown, and a zombie cannot move on after
    that. A zombie may well answer with an old number; it then says so with its old epoch. An answer whose epoch is not
    known (-1) promises nothing here."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.highest = 0
        self._spans: dict[int, tuple[int, int]] = {}  # epoch → least and greatest answer

    def floor(self, epoch: int) -> int:
        """What an answer of `epoch` that is asked for now must reach."""
        return max((high for e, (_, high) in self._spans.items() if e <= epoch), default=0)

    def answered(self, place: Place, epoch: int, value: int, floor: int) -> None:
        if epoch < 0:
            return
        older = max((high for e, (_, high) in self._spans.items() if e < epoch), default=0)
        if value < max(floor, older):
            raise Violation(
                f"{self.name} of {place} went back: epoch {epoch} answers {value}, before that question "
                f"{floor} was answered, and {older} by older epochs"
            )
        newer = min((low for e, (low, _) in self._spans.items() if e > epoch), default=value)
        if value > newer:
            raise Violation(
                f"{self.name} of {place}: epoch {epoch}, which is superseded, answers {value}, but an owner after it "
                f"has answered {newer}"
            )
        low, high = self._spans.get(epoch, (value, value))
        self._spans[epoch] = min(low, value), max(high, value)
        self.highest = max(self.highest, value)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question on its way: its answer may not be older than what was known when it was sent."""

    place: Place
    epoch: int  # the leader epoch in the request, so a right answer comes from that epoch; -1: from anybody
    high_watermark: int
    last_stable_offset: int
    log_start_offset: int


class PartitionHistory:
    def __init__(self, place: Place) -> None:
        self.place = place
        self.at: dict[int, Sent] = {}  # offset → what was acked or read there
        self.epochs: dict[int, int] = {}  # offset → leader epoch in the batch that was read there
        self.batches: list[Batch] = []
        self.high_watermark = Mark("the high watermark")
        self.last_stable_offset = Mark("the last stable offset")
        self.log_start_offset = Mark("the log start")
        self.start_explained = 0  # why the log starts here, or below, is known

    def ask(self, epoch: int) -> Asked:
        return Asked(
            self.place,
            epoch,
            self.high_watermark.floor(epoch),
            self.last_stable_offset.floor(epoch),
            self.log_start_offset.floor(epoch),
        )

    def found(self, sent: Sent, offset: int, how: str) -> None:
        """`sent` was acked or read at `offset`. Violation if that cannot be."""
        if sent.batch.place != self.place:
            raise Violation(f"{sent} was {how} at {self.place}@{offset}, another partition")
        other = self.at.get(offset)
        if other is not None and other is not sent:
            raise Violation(f"offset {offset} of {self.place} has two values: {sent} was {how}, before that {other}")
        if other is sent:
            return
        self.at[offset] = sent
        sent.at.append(offset)
        self.check_copies(sent)
        if sent.batch.series is not None:
            sent.batch.series.place(sent, offset)

    def check_copies(self, sent: Sent) -> None:
        if len(sent.at) > sent.batch.copies_max:
            raise Violation(
                f"{sent} is at the offsets {sorted(sent.at)} of {self.place}, but may be there at most "
                f"{sent.batch.copies_max} times"
            )

    def read(self, sent: Sent, record: Record, header: BatchHeader) -> None:
        """A reader saw this record. Violation if it is not what was sent or not what was seen there before."""
        where = f"{self.place}@{record.offset}"
        if record.value != sent.value or record.headers != sent.headers:
            raise Violation(f"{where} does not hold what was sent: {record} was read, {sent} had value {sent.value!r}")
        if not header.is_log_append_time and record.timestamp != sent.timestamp:
            raise Violation(f"{where} has timestamp {record.timestamp}, {sent} was sent with {sent.timestamp}")
        self.found(sent, record.offset, "read")
        epoch = self.epochs.setdefault(record.offset, header.leader_epoch)
        if epoch != header.leader_epoch:
            raise Violation(f"{where} was read with leader epoch {header.leader_epoch}, before that with {epoch}")


class Attempt:
    """One request that carries a batch. Say how it ended, or nothing: then nobody knows."""

    def __init__(self, history: PartitionHistory, batch: Batch) -> None:
        batch.attempts += 1
        self._number = batch.attempts
        self._history = history
        self._batch = batch

    def acked(self, base_offset: int) -> None:
        """Stored, and from now on readable there."""
        self._note(f"acked at {base_offset}")
        if not self._batch.legal:
            raise Violation(f"a broken batch was acknowledged at {base_offset}: {self._batch}")
        self._batch.stored = True
        for sent in self._batch.records:
            self._history.found(sent, base_offset + sent.position, "acked")

    def duplicate(self) -> None:
        """Stored by an earlier attempt, the answer does not say where."""
        self._note("known already")
        self._batch.stored = True

    def refused(self, why: str) -> None:
        """This attempt certainly left nothing."""
        self._note(f"refused: {why}")
        self._batch.refusals += 1
        for sent in self._batch.records:
            self._history.check_copies(sent)

    def unknown(self, why: str) -> None:
        """It may have been stored, or be stored later."""
        self._note(f"unknown: {why}")

    def _note(self, what: str) -> None:
        self._batch.notes.append(f"attempt {self._number} {what}")


def draft(
    history: PartitionHistory, producer: str, series: Series | None, records: Sequence[Record], legal: bool
) -> Batch:
    """A batch that is about to be sent; nothing is promised of it until `Attempt`."""
    batch = Batch(producer, history.place, series, len(series.sent) if series else 0, legal)
    for position, record in enumerate(records):
        assert record.key is not None, "every record needs a key of its own"
        batch.records.append(Sent(record.key, record.value, record.timestamp, record.headers, batch, position))
    if series is not None:
        series.sent += batch.records
    history.batches.append(batch)
    return batch
