"""Producers of transactions, and a reader that must see each transaction whole or not at all.

They have a topic of their own, and a book in which each transaction is written down before it is sent: what it sent,
and what was answered to its end. A producer dies now and then, in the middle of anything; the next one with its
transactional id fences it. Some leave a transaction behind for ever: its timeout must end it.

`WholeReader` follows the topic as a reader of committed records, and leaves out what it is told was aborted. What it
has read once must be what anybody reads in the end, at the same offsets; the last stable offset never goes back.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from simulation.actors.client import Address, Client, World
from simulation.actors.consumers import decode
from simulation.checks.ledger import Place, Violation

from streamlake.core.errors import Unavailable
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.add_partitions_to_txn import AddPartitionsToTxnRequest, AddPartitionsToTxnTopic
from streamlake.protocol.messages.end_txn import EndTxnRequest
from streamlake.protocol.messages.fetch import FetchPartition, FetchRequest, FetchTopic
from streamlake.protocol.messages.find_coordinator import FindCoordinatorRequest
from streamlake.protocol.messages.init_producer_id import InitProducerIdRequest
from streamlake.protocol.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from streamlake.record.decode import Record
from streamlake.record.encode import encode_batch

TOPIC = "whole"
TIMEOUT_MS = 8_000  # of a transaction
TRANSACTION_KEY = 1  # the type of a coordinator's key
FIND_VERSION, INIT_VERSION, ADD_VERSION, FETCH_VERSION = 4, 4, 3, 13
PRODUCE_VERSIONS, END_VERSIONS = (11, 13), (3, 5)  # of the versions 1 and 2 of transactions
TRIES_MAX = 8
# What ends a producer, or its transaction: a newer one has its id, or the timeout has come.
OVER = frozenset({
    ErrorCode.INVALID_PRODUCER_EPOCH, ErrorCode.PRODUCER_FENCED, ErrorCode.INVALID_TXN_STATE,
    ErrorCode.TRANSACTION_ABORTABLE, ErrorCode.INVALID_PRODUCER_ID_MAPPING, ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
})  # fmt: skip
NEVER = frozenset({
    ErrorCode.UNKNOWN_SERVER_ERROR, ErrorCode.INVALID_REQUEST, ErrorCode.CORRUPT_MESSAGE, ErrorCode.INVALID_RECORD,
    ErrorCode.KAFKA_STORAGE_ERROR, ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    ErrorCode.TRANSACTION_COORDINATOR_FENCED,
})  # fmt: skip


@dataclass(eq=False, slots=True)
class Sent:
    """One transaction. `outcome`: None while nobody knows, else whether it is committed."""

    name: str
    values: dict[Place, list[bytes]] = field(default_factory=dict)
    commit_asked: bool = False
    outcome: bool | None = None


@dataclass(slots=True)
class Book:
    sent: list[Sent] = field(default_factory=list)
    committed: int = 0


class Over(Exception):
    """This producer can do nothing more; the next one begins."""


class Transactor:
    def __init__(
        self, world: World, name: str, rng: random.Random, book: Book, *, topic: str = TOPIC, pace_s: float = 0.5
    ) -> None:
        self._world = world
        self._topic = topic
        self.client = Client(world, name, rng)
        self._book = book
        self._pace_s = pace_s
        self._number = 0
        self._second = rng.random() < 0.5  # version 2 of transactions
        self._producer_id = self._epoch = -1
        self._sequences: dict[Place, int] = {}

    async def run(self) -> None:
        rng = self.client.rng
        await self.client.refresh([self._topic])
        try:
            while not self._world.stop.is_set():
                await self.client.now_and_then([self._topic])
                try:
                    if self._producer_id < 0:
                        await self._init()
                    await self._transact()
                except Over:
                    self._producer_id = -1
                except Unavailable:
                    if rng.random() < 0.5:
                        self._producer_id = -1
                    await self.client.find([self._topic])
                await self._world.pause(rng.uniform(0, self._pace_s))
        finally:
            await self.client.drop()

    async def _transact(self) -> None:
        rng = self.client.rng
        places = self.client.places([self._topic])
        if not places:
            await self.client.find([self._topic])
            return
        self._number += 1
        sent = Sent(f"{self.client.name}:{self._number}")
        self._book.sent.append(sent)
        try:
            for step in range(rng.randint(1, 4)):
                place = rng.choice(places)
                await self._send(
                    sent, place, [b"%s:%d:%d" % (sent.name.encode(), step, n) for n in range(rng.randint(1, 3))]
                )
                if rng.random() < 0.03:
                    await self.client.drop()
                    raise Over  # it dies
                if rng.random() < 0.02:
                    await self._world.pause(1.5 * TIMEOUT_MS / 1000)
            await self._end(sent, commit=rng.random() < 0.7)
        except (Over, Unavailable):
            if not sent.commit_asked:
                sent.outcome = False  # nobody else asks for it: whatever comes now, it is aborted
            self._producer_id = -1
            raise

    async def _init(self) -> None:
        request = InitProducerIdRequest(self.client.name, TIMEOUT_MS)
        answer = await self._ask_coordinator(ApiKey.INIT_PRODUCER_ID, request, INIT_VERSION)
        self._producer_id, self._epoch = answer.producer_id, answer.producer_epoch
        self._sequences.clear()

    async def _send(self, sent: Sent, place: Place, values: Sequence[bytes]) -> None:
        """One batch, until it is acknowledged. Over, Unavailable."""
        if not self._second and place not in sent.values:
            topic = AddPartitionsToTxnTopic(name=self._topic, partitions=(place.partition,))
            await self._ask_coordinator(
                ApiKey.ADD_PARTITIONS_TO_TXN,
                AddPartitionsToTxnRequest(self.client.name, self._producer_id, self._epoch, (topic,)),
                ADD_VERSION,
            )
        sent.values.setdefault(place, []).extend(values)
        now_ms = self._world.clock.now_ms()
        data = encode_batch(
            [Record(at, now_ms, None, value) for at, value in enumerate(values)],
            producer_id=self._producer_id,
            producer_epoch=self._epoch,
            base_sequence=self._sequences.get(place, 0),
            transactional=True,
        )
        part = PartitionProduceData(index=place.partition, records=data)
        request = ProduceRequest(
            transactional_id=self.client.name,
            acks=-1,
            timeout_ms=5_000,
            topic_data=(TopicProduceData(name=self._topic, topic_id=place.topic_id, partition_data=(part,)),),
        )
        for _ in range(TRIES_MAX):
            leader = self.client.leaders.get(place)
            if leader is not None:
                try:
                    version = PRODUCE_VERSIONS[self._second]
                    answer = await self.client.call(leader.address, ApiKey.PRODUCE, request, version)
                    code = ErrorCode(answer.responses[0].partition_responses[0].error_code)
                    if code == ErrorCode.NONE:
                        self._sequences[place] = self._sequences.get(place, 0) + len(values)
                        return
                    self._judge(code, f"{sent.name} in {place}")
                except Unavailable:
                    pass
            await self.client.find([self._topic])
        raise Over

    async def _end(self, sent: Sent, *, commit: bool) -> None:
        sent.commit_asked = commit
        request = EndTxnRequest(self.client.name, self._producer_id, self._epoch, commit)
        answer = await self._ask_coordinator(ApiKey.END_TXN, request, END_VERSIONS[self._second])
        sent.outcome = commit
        self._book.committed += commit
        if self._second:
            if (answer.producer_id, answer.producer_epoch) != (self._producer_id, self._epoch):
                self._sequences.clear()
            self._producer_id, self._epoch = answer.producer_id, answer.producer_epoch

    async def _ask_coordinator(self, key: ApiKey, request: Any, version: int) -> Any:
        """Until it is done. Over, Unavailable."""
        for _ in range(TRIES_MAX):
            try:
                answer = await self.client.call(await self._coordinator(), key, request, version)
            except Unavailable:
                await self.client.find([self._topic])
                continue
            code = ErrorCode(_code(answer))
            if code == ErrorCode.NONE:
                return answer
            self._judge(code, key.name)
            await self.client.backoff()
        raise Unavailable(f"{key.name} is not done after {TRIES_MAX} tries")

    def _judge(self, code: ErrorCode, what: str) -> None:
        if code in NEVER:
            raise Violation(f"{self.client.name}: {what} was refused with {code.name}")
        if code in OVER:
            raise Over

    async def _coordinator(self) -> Address:
        address = self.client.some_address()
        if address is None:
            raise Unavailable("no broker is known")
        request = FindCoordinatorRequest(key_type=TRANSACTION_KEY, coordinator_keys=(self.client.name,))
        answer = await self.client.call(address, ApiKey.FIND_COORDINATOR, request, FIND_VERSION)
        (found,) = answer.coordinators
        if found.error_code:
            raise Unavailable("the coordinator is not known")
        return found.host, found.port


def _code(answer: Any) -> int:
    results = getattr(answer, "results_by_topic_v3_and_below", None)
    return results[0].results_by_partition[0].partition_error_code if results else answer.error_code


class WholeReader:
    """`read`: by partition, offset and value of each committed record, as far as it has come."""

    def __init__(self, world: World, name: str, rng: random.Random, *, topic: str = TOPIC, pace_s: float = 0.5) -> None:
        self._world = world
        self.topic = topic
        self.client = Client(world, name, rng)
        self._pace_s = pace_s
        self._positions: dict[Place, int] = {}
        self._stable: dict[Place, tuple[int, int]] = {}  # leader epoch, last stable offset
        self.read: dict[Place, list[tuple[int, bytes]]] = {}

    async def run(self) -> None:
        await self.client.refresh([self.topic])
        try:
            while not self._world.stop.is_set():
                await self.client.now_and_then([self.topic])
                well = True
                for place in self.client.places([self.topic]):
                    well = await self.step(place) is not None and well
                if not well:
                    await self.client.find([self.topic])
                await self._world.pause(self.client.rng.uniform(0, self._pace_s))
        finally:
            await self.client.drop()

    async def step(self, place: Place) -> bool | None:
        """One fetch. Whether all is read, and nothing open; None if the leader does not answer."""
        leader = self.client.leaders.get(place)
        if leader is None:
            return None
        offset = self._positions.get(place, 0)
        wanted = FetchPartition(
            partition=place.partition,
            current_leader_epoch=leader.epoch,
            fetch_offset=offset,
            partition_max_bytes=1 << 20,
        )
        request = FetchRequest(
            max_wait_ms=self.client.rng.choice((0, 500)),
            min_bytes=1,
            max_bytes=1 << 20,
            isolation_level=1,
            session_epoch=-1,
            topics=(FetchTopic(topic_id=place.topic_id, partitions=(wanted,)),),
        )
        try:
            answer = await self.client.call(leader.address, ApiKey.FETCH, request, FETCH_VERSION)
        except Unavailable:
            return None
        data = answer.responses[0].partitions[0]
        if data.error_code == ErrorCode.OFFSET_OUT_OF_RANGE:
            raise Violation(f"{place}@{offset}, up to which a reader of committed records has come, is out of range")
        if data.error_code:
            return None
        self._take(place, leader.epoch, data)
        return bool(self._positions[place] == data.last_stable_offset == data.high_watermark)

    def _take(self, place: Place, epoch: int, data: Any) -> None:
        known_epoch, known = self._stable.get(place, (-1, 0))
        if epoch >= known_epoch:
            if data.last_stable_offset < known:
                raise Violation(f"{place}: the last stable offset went back from {known} to {data.last_stable_offset}")
            self._stable[place] = epoch, data.last_stable_offset
        aborts = sorted((a.first_offset, a.producer_id) for a in data.aborted_transactions or ())
        aborting: set[int] = set()
        position = self._positions.get(place, 0)
        found = self.read.setdefault(place, [])
        for header, records in decode(data.records or b""):
            if header.next_offset > data.last_stable_offset:
                raise Violation(f"{place} shows {header.last_offset} beyond its last stable offset")
            if not header.base_offset <= position < header.next_offset:
                raise Violation(
                    f"{place}: read at {position}, got a batch of {header.base_offset}..{header.last_offset}"
                )
            while aborts and aborts[0][0] <= header.last_offset:
                aborting.add(aborts.pop(0)[1])
            if header.is_control:
                if records[0].key == b"\0\0\0\0":
                    aborting.discard(header.producer_id)
            elif not (header.is_transactional and header.producer_id in aborting):
                found += [(r.offset, r.value or b"") for r in records if r.offset >= position]
            position = header.next_offset
        self._positions[place] = position


async def check_transactions(world: World, book: Book, followed: WholeReader, rng: random.Random) -> None:
    """Once all is healed: each transaction is there whole or not at all, no one is open for ever, and who followed has
    seen what is there. Violation; does not return as long as a transaction is open."""
    last = WholeReader(world, "last-reader", rng, topic=followed.topic)
    await last.client.refresh([followed.topic])
    try:
        for place in last.client.places([followed.topic]):
            while not await last.step(place):
                await last.client.find([followed.topic])
    finally:
        await last.client.drop()
    for place, seen in followed.read.items():
        if seen != last.read.get(place, [])[: len(seen)]:
            there = last.read.get(place, [])
            odd = next((pair for pair in zip(seen, there, strict=False) if pair[0] != pair[1]), (seen[-1:], there[-1:]))
            raise Violation(f"{place}: a reader of committed records has seen {odd[0]}, where there is {odd[1]}")
    values = {place: [value for _, value in found] for place, found in last.read.items()}
    for sent in book.sent:
        _check_whole(sent, values)


def _check_whole(sent: Sent, values: dict[Place, list[bytes]]) -> None:
    counts = {
        value: values.get(place, []).count(value) for place, sent_there in sent.values.items() for value in sent_there
    }
    if any(count > 1 for count in counts.values()):
        raise Violation(f"transaction {sent.name} is there more than once: {counts}")
    is_there = set(counts.values())
    if len(is_there) > 1:
        raise Violation(f"transaction {sent.name} is there in part: {counts}, its outcome is {sent.outcome}")
    if sent.outcome is not None and counts and is_there != {int(sent.outcome)}:
        raise Violation(
            f"transaction {sent.name} was {'committed' if sent.outcome else 'aborted'}, and it is not so: {counts}"
        )
