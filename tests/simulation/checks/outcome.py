"""What must hold when all is quiet: producers have settled, faults are over, the brokers lead their partitions.

`check_all` asks the cluster as any client could and compares with the ledger; the other functions judge plain facts,
so that whoever can list rows or objects may use them: `check_log`, `check_table`, `check_objects`. All raise Violation.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from simulation.actors.client import Client, World
from simulation.actors.consumers import Limits, Reader, Wanted
from simulation.actors.groups import committed_offsets, fetch_committed
from simulation.actors.values import Dead, Row, Undecided
from simulation.checks.history import Batch, PartitionHistory
from simulation.checks.ledger import Ledger, Place, Sent, TopicFacts, Violation

from streamlake.core.errors import Unavailable
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.metadata import MetadataRequest, MetadataRequestTopic, MetadataResponseTopic
from streamlake.record.decode import Record

METADATA_VERSION = 12
TRIES_MAX = 100
WRONG_MAX = 12  # answers of one broker: it has beaten several times by then


@dataclass(frozen=True)
class FinalLog:
    """A partition as it is read from its start to its end."""

    place: Place
    start: int
    end: int
    records: Mapping[int, Record]
    size_bytes: int = 0


async def check_all(world: World, rng: random.Random) -> dict[Place, FinalLog]:
    """Topics, every record of every partition that exists, committed offsets. The logs that were read."""
    client = Client(world, "final check", rng)
    ledger, logs = world.ledger, dict[Place, FinalLog]()
    try:
        for facts in list(ledger.topics.values()):
            if not await topic_exists(client, facts):
                continue
            for index in range(facts.partitions):
                place = Place(facts.id, index)
                logs[place] = await read_log(client, place)
                check_log(ledger, logs[place])
        for group in list(ledger.groups):
            await check_committed(client, group)
    finally:
        await client.drop()
    return logs


async def topic_exists(client: Client, facts: TopicFacts) -> bool:
    """Violation if an acknowledged creation is gone or an acknowledged deletion is back."""
    asked, wrong_answers = None, 0
    for _ in range(TRIES_MAX):
        address = asked or client.some_address()
        request = MetadataRequest(
            topics=(MetadataRequestTopic(topic_id=facts.id, name=None),), allow_auto_topic_creation=False
        )
        try:
            if address is None:
                raise Unavailable("there is no broker")
            answer = await client.call(address, ApiKey.METADATA, request, METADATA_VERSION)
        except Unavailable:
            asked, wrong_answers = None, 0
            await client.backoff()
            continue
        (topic,) = answer.topics
        exists: bool = topic.error_code == ErrorCode.NONE
        wrong = _wrong_of(facts, topic, exists)
        if wrong is None:
            return exists
        # That broker may have been told late, or could not look just now; then it is right in a moment, by itself.
        asked, wrong_answers = address, wrong_answers + 1
        if wrong_answers >= WRONG_MAX:
            raise Violation(wrong)
        await client.backoff()
    raise Violation(f"no broker answers what became of topic {facts.name}")


def _wrong_of(facts: TopicFacts, topic: MetadataResponseTopic, exists: bool) -> str | None:
    if exists and facts.deleted:
        return f"topic {facts.name} ({facts.id}) was deleted and is back"
    if not exists and facts.created and not facts.deleting:
        return f"topic {facts.name} ({facts.id}) was created and is gone: {topic.error_code}"
    if exists and (topic.name != facts.name or len(topic.partitions) < facts.partitions):
        return f"{facts} is now {topic.name!r} with {len(topic.partitions)} partitions"
    return None


async def read_log(client: Client, place: Place) -> FinalLog:
    """All of one partition, from its leader. Violation if it cannot be read to its end."""
    name, reader = client.topic_name(place), Reader(client)
    records: dict[int, Record] = {}
    position, start, size_bytes, code = 0, 0, 0, ErrorCode.NONE
    tries = 0
    await client.refresh([name])
    while tries < TRIES_MAX:
        leader = client.leaders.get(place)
        try:
            if leader is None:
                raise Unavailable("nobody leads it")
            wanted = {place: Wanted(position, leader.epoch)}
            (found,) = await reader.fetch(leader.address, wanted, Limits(max_wait_ms=0, max_bytes=1 << 20))
            code = found.code
        except Unavailable:
            found = None
        if found is None or code not in (ErrorCode.NONE, ErrorCode.OFFSET_OUT_OF_RANGE):
            tries += 1
            await client.backoff()
            await client.refresh([name])
            continue
        if code == ErrorCode.OFFSET_OUT_OF_RANGE:  # retention has taken what was next
            records, size_bytes = {}, 0
        else:
            start = found.log_start_offset
            records |= {record.offset: record for record in found.records}
            size_bytes += found.size_bytes
            if not found.records:
                records = {offset: record for offset, record in records.items() if offset >= start}
                return FinalLog(place, start, found.high_watermark, records, size_bytes)
        position = found.next_offset
    raise Violation(f"{place} of {name} cannot be read at {position}: {code.name}")


async def check_committed(client: Client, group: str) -> None:
    """What a group has committed is what it was told it has, and all below it was processed."""
    history = client.world.ledger.group(group)
    by_name = {(client.topic_name(place), place.partition): place for place in history.commits}
    for _ in range(TRIES_MAX):
        address = client.some_address()
        asked = history.ask()
        try:
            answer = None if address is None else await fetch_committed(client, address, group, list(by_name))
        except Unavailable:
            answer = None
        if answer is None or answer.error_code != ErrorCode.NONE:
            await client.backoff()
            continue
        for name, index, offset in committed_offsets(answer):
            history.fetched(by_name[name, index], offset, asked)
        return
    raise Violation(f"no broker answers what group {group} has committed")


# -- one log -------------------------------------------------------------------------------------------------------


def check_log(ledger: Ledger, log: FinalLog) -> None:
    """The log against everything that was ever promised of it."""
    history = ledger.partition(log.place)
    gaps = [offset for offset in range(log.start, log.end) if offset not in log.records]
    if gaps or len(log.records) != log.end - log.start:
        raise Violation(
            f"{log.place} spans {log.start} to {log.end}, has {len(log.records)} records, lacks {gaps[:10]}"
        )
    _check_marks(history, log)
    _check_known(ledger, history, log)
    for batch in history.batches:
        _check_batch(history, batch, log)
    _check_series(history, log)
    _check_size(ledger, log)


def _check_marks(history: PartitionHistory, log: FinalLog) -> None:
    high_watermark = max(history.high_watermark.highest, history.last_stable_offset.highest)
    if log.end < high_watermark:
        raise Violation(f"{log.place} ends at {log.end}, readers were told {high_watermark}")
    if log.start < history.log_start_offset.highest:
        raise Violation(f"{log.place} starts at {log.start}, readers were told {history.log_start_offset.highest}")


def _check_known(ledger: Ledger, history: PartitionHistory, log: FinalLog) -> None:
    """Every offset that was acked or read holds the same record still; all others hold records that were sent."""
    for offset, sent in history.at.items():
        if offset < log.start:
            continue
        record = log.records.get(offset)
        if record is None:
            raise Violation(f"{log.place} ends at {log.end}: lost is {sent}, acked or read at {offset}")
        if record.key != sent.key or record.value != sent.value:
            raise Violation(f"{log.place}@{offset} holds {record}, there was {sent}")
    for offset, record in log.records.items():
        if offset not in history.at:
            raise Violation(
                f"{log.place}@{offset} holds {record}, sent by {ledger.sent(record.key)}, and nobody read it"
            )
    last = -1
    for offset in range(log.start, log.end):
        epoch = history.epochs.get(offset, last)
        if epoch < last:
            raise Violation(f"{log.place}@{offset} has leader epoch {epoch}, before it is {last}")
        last = epoch


def _check_batch(history: PartitionHistory, batch: Batch, log: FinalLog) -> None:
    """It is there if it was acknowledged, never too often, and never in part."""
    for sent in batch.records:
        history.check_copies(sent)
        for offset in sent.at:
            for other in batch.records:
                neighbour = offset - sent.position + other.position
                if neighbour >= log.start and history.at.get(neighbour) is not other:
                    raise Violation(f"{log.place} holds a part of a batch: {sent} at {offset}, {other} is missing")
    if batch.stored and not batch.records[0].at and log.start == 0:
        raise Violation(f"lost, though it was said to be stored: {batch}")


def _check_series(history: PartitionHistory, log: FinalLog) -> None:
    """No hole: whatever an idempotent producer sent before a record that is there, is there too, or was deleted with
    the beginning of the log before anybody read it."""
    seen: dict[int, None] = {}
    for batch in history.batches:
        series = batch.series
        if series is None or id(series) in seen:
            continue
        seen[id(series)] = None
        previous, at = (-1 if log.start == 0 else None), -1
        for number, offset in series.found:
            if offset >= log.start and previous is not None:
                deleted_unread = sum(1 for other in range(at + 1, log.start) if other not in history.at)
                if number - previous - 1 > deleted_unread:
                    missing = series.sent[previous + 1]
                    raise Violation(f"{series.sent[number]} is at {offset}, but {missing}, sent before it, is nowhere")
            previous, at = number, offset


def _check_size(ledger: Ledger, log: FinalLog) -> None:
    """Retention by size keeps at least what it was told to keep."""
    removal = ledger.removal(log.place)
    deleted = removal.upto.get(log.place.partition, 0)
    if removal.retention_bytes is None or removal.retention_ms is not None or log.start <= deleted:
        return
    if log.size_bytes < removal.retention_bytes:
        raise Violation(
            f"{log.place} keeps {log.size_bytes} bytes from {log.start} on, retention.bytes never was below "
            f"{removal.retention_bytes}"
        )


# -- one table -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TableRow:
    """A row as any engine reads it: its `_kafka` place and key, and the other columns."""

    partition: int
    offset: int
    key: bytes
    columns: Mapping[str, object]


@dataclass(frozen=True)
class DeadLetter:
    partition: int
    offset: int
    key: bytes
    value: bytes | None


def check_table(
    ledger: Ledger, facts: TopicFacts, rows: Sequence[TableRow], dead_letters: Sequence[DeadLetter],
    begun_at: Mapping[int, int] | None = None, *, complete: bool = True,
) -> None:  # fmt: skip
    """Every data position exactly once, as a row or as a dead letter, each with the content that was sent.

    Call after `check_all`, when the table has caught up. Positions that DeleteRecords may have taken before they were
    translated may be missing, and those below `begun_at`, by partition, where the topic became a table; `complete=False`:
    any may (the table was switched off for a time)."""
    seen: dict[Place, dict[int, object]] = {}
    found: Iterable[TableRow | DeadLetter] = (*rows, *dead_letters)
    for item in found:
        place = Place(facts.id, item.partition)
        where = seen.setdefault(place, {})
        if item.offset in where:
            raise Violation(
                f"{place}@{item.offset} is twice in the table of {facts.name}: {where[item.offset]}, {item}"
            )
        where[item.offset] = item
        sent = ledger.sent(item.key)
        if sent is None:
            raise Violation(f"the table of {facts.name} has a row that nobody sent: {item}")
        # A position that no reader saw before retention took it is known from here on.
        ledger.partition(place).found(sent, item.offset, "in the table")
        _check_content(sent, item)
    if not complete:
        return
    for place, history in ledger.partitions.items():
        if place.topic_id != facts.id:
            continue
        first = (begun_at or {}).get(place.partition, 0)
        deleted = max(first, ledger.removal(place).upto.get(place.partition, 0))
        missing = [o for o in sorted(history.at) if o >= deleted and o not in seen.get(place, {})]
        if missing:
            raise Violation(
                f"{len(missing)} positions of {place} are not in the table of {facts.name}, nor in its dead letters: "
                f"{missing[:10]}, the first is {history.at[missing[0]]}"
            )


def _check_content(sent: Sent, item: TableRow | DeadLetter) -> None:
    if isinstance(item, DeadLetter):
        if not isinstance(sent.meaning, Dead | Undecided):
            raise Violation(f"a good record is a dead letter: {sent}, {sent.meaning}")
        if item.value != sent.value:
            raise Violation(f"a dead letter holds {item.value!r}, {sent} was sent with {sent.value!r}")
        return
    match sent.meaning:
        case Dead(why):
            raise Violation(f"a bad record ({why}) is a row: {sent}, {item}")
        case Row(columns):
            have = {name: value for name, value in item.columns.items() if value is not None}
            want = {name: value for name, value in columns.items() if value is not None}
        case _:
            value = item.columns.get("value")
            have, want = {"value": value.encode() if isinstance(value, str) else value}, {"value": sent.value}
    if have != want:
        raise Violation(f"the row of {sent} holds {have}, sent was {want}")


# -- the store -------------------------------------------------------------------------------------------------------


def check_objects(stored: Mapping[str, float], known: Mapping[str, bool], *, young_s: float) -> None:
    """`stored`: key → age in seconds of every object under the data prefix. `known`: key → whether the metadata says
    that it is committed, for every object that the metadata knows. No committed one is missing, no old one is unknown."""
    missing = sorted(key for key, committed in known.items() if committed and key not in stored)
    if missing:
        raise Violation(f"{len(missing)} committed objects are not in the store: {missing[:5]}")
    leaked = sorted(key for key, age_s in stored.items() if key not in known and age_s > young_s)
    if leaked:
        raise Violation(
            f"{len(leaked)} objects in the store are known to nobody and older than {young_s:g} s: {leaked[:5]}"
        )
