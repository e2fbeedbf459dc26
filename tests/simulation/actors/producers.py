"""Producers: they write down what they send before they send it, and what each answer promises.

A plain producer repeats a batch as it likes, so it may be stored several times. An idempotent one follows Kafka's Java
client: up to five requests in flight, sequence numbers per partition, the same batch again after any doubt; while the
oldest batch of a partition is repeated nothing new is sent for it. At `stop` both stop making records and go on until
every batch is settled.

Kafka lets a producer that a partition does not know begin at any sequence number. So if the first batch is refused for
a passing reason and the second, sent behind it, is taken, the first can never be stored. `cautious_start` (the default)
waits for the first answer of each partition before it sends more; switched off, this hole is in reach.
"""

import asyncio
import random
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from simulation.actors.client import Address, Client, Flights, World
from simulation.actors.values import AnyValues, Source
from simulation.checks.ledger import Attempt, Batch, Place, Series, Violation

from streamlake.core.errors import Unavailable
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.init_producer_id import InitProducerIdRequest
from streamlake.protocol.messages.produce import (
    PartitionProduceData,
    PartitionProduceResponse,
    ProduceRequest,
    TopicProduceData,
)
from streamlake.protocol.requests import api, encode_request
from streamlake.record.batch import CRC_AT, HEADER_BYTES
from streamlake.record.compression import Compression
from streamlake.record.decode import Record
from streamlake.record.encode import encode_batch

PRODUCE_VERSION = 13  # by topic id, so that a record never lands in a topic that was made again under its name
INIT_VERSION = 4
IN_FLIGHT_MAX = 5
HOUR_MS = 3_600_000

# The answer says that this request stored nothing; any other error leaves it open.
CERTAIN = frozenset({
    ErrorCode.CORRUPT_MESSAGE, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ErrorCode.UNKNOWN_TOPIC_ID,
    ErrorCode.MESSAGE_TOO_LARGE, ErrorCode.RECORD_LIST_TOO_LARGE, ErrorCode.INVALID_REQUIRED_ACKS,
    ErrorCode.INVALID_TIMESTAMP, ErrorCode.INVALID_REQUEST, ErrorCode.UNSUPPORTED_FOR_MESSAGE_FORMAT,
    ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, ErrorCode.INVALID_PRODUCER_EPOCH, ErrorCode.INVALID_RECORD,
    ErrorCode.NOT_ENOUGH_REPLICAS, ErrorCode.UNKNOWN_PRODUCER_ID,
})  # fmt: skip
# Never right for a batch that is as it should be.
NEVER = frozenset({
    ErrorCode.UNKNOWN_SERVER_ERROR, ErrorCode.CORRUPT_MESSAGE, ErrorCode.INVALID_RECORD, ErrorCode.INVALID_REQUEST,
    ErrorCode.INVALID_REQUIRED_ACKS, ErrorCode.UNSUPPORTED_FOR_MESSAGE_FORMAT, ErrorCode.INVALID_TIMESTAMP,
    ErrorCode.INVALID_PRODUCER_EPOCH, ErrorCode.UNKNOWN_PRODUCER_ID, ErrorCode.KAFKA_STORAGE_ERROR,
})  # fmt: skip
GONE = frozenset({ErrorCode.UNKNOWN_TOPIC_ID, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION})


@dataclass(eq=False, slots=True)
class Parcel:
    """A batch with its bytes."""

    batch: Batch
    data: bytes

    @property
    def place(self) -> Place:
        return self.batch.place


class Packer:
    """Makes batches: keys never used before, records from a source, timestamps of the clock, any compression."""

    def __init__(self, client: Client, source: Source, records_max: int) -> None:
        self._client = client
        self._source = source
        self._records_max = records_max
        self._made = 0

    def records(self) -> tuple[list[Record], list[object]]:
        rng, now_ms = self._client.rng, self._client.world.clock.now_ms()
        records, meanings = [], list[object]()
        for position in range(rng.randint(1, self._records_max)):
            key = f"{self._client.name}:{self._made}".encode()
            self._made += 1
            drawn = self._source.draw(key)
            records.append(Record(position, now_ms + rng.randrange(3), key, drawn.value, drawn.headers))
            meanings.append(drawn.meaning)
        return records, meanings

    def compression(self) -> Compression:
        return self._client.rng.choice(list(Compression))


def produce_request(client: Client, parcels: Sequence[Parcel], acks: int) -> ProduceRequest:
    data: dict[Place, bytes] = {parcel.place: parcel.data for parcel in parcels}
    topics: dict[object, list[Place]] = {}
    for place in data:
        topics.setdefault(place.topic_id, []).append(place)
    return ProduceRequest(
        acks=acks,
        timeout_ms=client.rng.choice([1_000, 5_000, 30_000]),
        topic_data=tuple(
            TopicProduceData(
                name=client.topic_name(places[0]),
                topic_id=places[0].topic_id,
                partition_data=tuple(PartitionProduceData(index=p.partition, records=data[p]) for p in places),
            )
            for places in topics.values()
        ),
    )


async def produce(
    client: Client, address: Address, parcels: Sequence[Parcel], acks: int
) -> Mapping[Place, PartitionProduceResponse]:
    """The answer for each partition. Unavailable: nobody knows."""
    request = produce_request(client, parcels, acks)
    answer = await client.call(address, ApiKey.PRODUCE, request, PRODUCE_VERSION)
    return {
        Place(topic.topic_id, partition.index): partition
        for topic in answer.responses
        for partition in topic.partition_responses
    }


def settle(attempt: Attempt, batch: Batch, answer: PartitionProduceResponse | None) -> ErrorCode:
    """Write down what the answer promises. Violation if it never may be given."""
    if answer is None:
        raise Violation(f"the answer leaves out {batch}")
    code = ErrorCode(answer.error_code)
    if code in NEVER and batch.legal:
        raise Violation(f"a good batch was refused with {code.name} ({answer.error_message}): {batch}")
    if code == ErrorCode.NONE:
        attempt.acked(answer.base_offset)
    elif code == ErrorCode.DUPLICATE_SEQUENCE_NUMBER:
        attempt.duplicate()
    elif code in CERTAIN:
        attempt.refused(code.name)
    else:
        attempt.unknown(code.name)
    return code


class PlainProducer:
    """Without a producer id. `pace_s`: the longest pause between requests. Some batches are broken on purpose, some
    requests want no answer (acks=0)."""

    def __init__(
        self,
        world: World,
        name: str,
        rng: random.Random,
        topics: Sequence[str],
        *,
        source: Source | None = None,
        records_max: int = 10,
        pace_s: float = 0.05,
        tries_max: int = 4,
        broken_share: float = 0.03,
    ) -> None:
        self._world = world
        self.client = Client(world, name, rng)
        self._topics = topics
        self._packer = Packer(self.client, source or AnyValues(rng), records_max)
        self._pace_s = pace_s
        self._tries_max = tries_max
        self._broken_share = broken_share
        self._flights = Flights(IN_FLIGHT_MAX)

    async def run(self) -> None:
        rng = self.client.rng
        await self.client.refresh(self._topics)
        try:
            while not self._world.stop.is_set():
                await self.client.now_and_then(self._topics)
                parcels = self._pack()
                if parcels:
                    acks = rng.choices([-1, 1, 0], [8, 2, 1])[0]
                    await self._flights.start(lambda p=parcels, a=acks: self._send(p, a))  # type: ignore[misc]
                else:
                    await self.client.find(self._topics)
                await self._world.pause(rng.uniform(0, self._pace_s))
            await self._flights.drain()
        finally:
            self._flights.give_up()
            await self.client.drop()

    def _pack(self) -> list[Parcel]:
        """Batches for one to three partitions that one broker leads."""
        client, rng = self.client, self.client.rng
        led = [place for place in client.places(self._topics) if place in client.leaders]
        if not led:
            return []
        first = rng.choice(led)
        together = [p for p in led if client.leaders[p].address == client.leaders[first].address and p != first]
        places = [first, *rng.sample(together, min(len(together), rng.randrange(3)))]
        return [self._parcel(place) for place in places]

    def _parcel(self, place: Place) -> Parcel:
        records, meanings = self._packer.records()
        legal = self.client.rng.random() >= self._broken_share
        data = encode_batch(records, compression=self._packer.compression())
        if not legal:
            data = broken(records, self.client.rng.randrange(3))
        batch = self._world.ledger.draft(self.client.name, place, records, None, meanings, legal=legal)
        return Parcel(batch, data)

    async def _send(self, parcels: list[Parcel], acks: int) -> None:
        """Send, and what was not acknowledged perhaps again, to whoever leads then."""
        for number in range(self._tries_max):
            address = self.client.leaders[parcels[0].place].address
            attempts = [self._world.ledger.attempt(parcel.batch) for parcel in parcels]
            if acks == 0:
                await fire(self.client, address, produce_request(self.client, parcels, acks))
                return
            failed = parcels
            try:
                answers = await produce(self.client, address, parcels, acks)
            except Unavailable as error:
                for attempt in attempts:
                    attempt.unknown(str(error))
            else:
                failed = []
                for attempt, parcel in zip(attempts, parcels, strict=True):
                    if settle(attempt, parcel.batch, answers.get(parcel.place)) != ErrorCode.NONE:
                        failed.append(parcel)
            again = [p for p in failed if p.batch.legal and not self._world.ledger.may_be_gone(p.place.topic_id)]
            if not again or self._world.stop.is_set() or number == self._tries_max - 1:
                return
            await self.client.find(self._topics)
            first = self.client.leaders[again[0].place].address
            parcels = [p for p in again if self.client.leaders[p.place].address == first]


def broken(records: Sequence[Record], kind: int) -> bytes:
    """A batch that a broker must refuse: wrong CRC, a record that is cut, or a time in the far future."""
    if kind == 0:
        data = bytearray(encode_batch(records))
        data[CRC_AT] ^= 0xFF
        return bytes(data)
    if kind == 1:
        whole = encode_batch(records)
        return whole[: HEADER_BYTES + 1]
    return encode_batch([record._replace(timestamp=record.timestamp + 100 * HOUR_MS) for record in records])


async def fire(client: Client, address: Address, request: ProduceRequest) -> None:
    """Send a request that has no answer, on a connection of its own, and hang up."""
    frame = encode_request(api(ApiKey.PRODUCE), PRODUCE_VERSION, 0, client.name, request)
    try:
        transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, *address)
    except OSError:
        return
    transport.writelines(frame)
    transport.close()


@dataclass(eq=False, slots=True)
class Item:
    parcel: Parcel
    number: int  # of the batch within its series
    in_flight: bool = False
    first: bool = False  # when it was last sent, everything before it was settled
    doubtful: bool = False  # an answer said so, or none came: it must be sent again


@dataclass(eq=False, slots=True)
class Line:
    """What is not settled of one partition, oldest first."""

    series: Series
    sequence: int = 0  # of the next new batch
    batches: int = 0  # made so far
    known: bool = False  # the partition has acknowledged something of this series
    given_up: bool = False  # what was dropped would be a hole before whatever came next
    items: deque[Item] = field(default_factory=deque)

    def give_up(self) -> None:
        self.given_up = True
        self.items.clear()

    def sendable(self, cautious_start: bool) -> Item | None:
        """As in the Java client, what is doubtful goes first and alone, and at most five batches are beyond the last
        one that is settled: a partition recognises no more than five when they come again."""
        for position, item in enumerate(self.items):
            if item.number - self.items[0].number >= IN_FLIGHT_MAX:
                return None
            if position and cautious_start and not self.known:
                return None
            if not item.in_flight:
                return item if position == 0 or not item.doubtful else None
            if item.doubtful:
                return None
        return None


class IdempotentProducer:
    """`crash_share`: how often, per round, it forgets all and begins anew under another id or epoch."""

    def __init__(
        self,
        world: World,
        name: str,
        rng: random.Random,
        topics: Sequence[str],
        *,
        source: Source | None = None,
        records_max: int = 10,
        pace_s: float = 0.05,
        crash_share: float = 0.002,
        cautious_start: bool = True,
    ) -> None:
        self._world = world
        self.client = Client(world, name, rng)
        self._topics = topics
        self._packer = Packer(self.client, source or AnyValues(rng), records_max)
        self._pace_s = pace_s
        self._crash_share = crash_share
        self._cautious_start = cautious_start
        self._flights = Flights(IN_FLIGHT_MAX)
        self._lines: dict[Place, Line] = {}
        self._producer_id = -1
        self._epoch = 0

    async def run(self) -> None:
        rng, stop = self.client.rng, self._world.stop
        await self.client.refresh(self._topics)
        try:
            await self._begin()
            while not stop.is_set() or any(line.items for line in self._lines.values()):
                if not stop.is_set():
                    await self.client.now_and_then(self._topics)
                    self._draw()
                    if rng.random() < self._crash_share:
                        await self._crash()
                await self._send_all()
                await self._flights.changed(rng.uniform(0, self._pace_s))
            await self._flights.drain()
        finally:
            self._flights.give_up()
            await self.client.drop()

    async def _begin(self) -> None:
        """A new producer id, from any broker."""
        while not self._world.stop.is_set():
            address = self.client.some_address()
            try:
                if address is not None:
                    request = InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=60_000)
                    answer = await self.client.call(address, ApiKey.INIT_PRODUCER_ID, request, INIT_VERSION)
                    if answer.error_code == ErrorCode.NONE:
                        self._world.ledger.gave_producer_id(answer.producer_id)
                        self._producer_id, self._epoch = answer.producer_id, answer.producer_epoch
                        return
            except Unavailable:
                pass
            await self.client.find(self._topics)

    async def _crash(self) -> None:
        """What is under way may still be stored; nobody will repeat it."""
        self._flights.give_up()
        await self.client.drop()
        self._lines.clear()
        if self.client.rng.random() < 0.5:
            self._epoch += 1  # as the Java client does when a batch was given up (KIP-360)
        else:
            await self._begin()

    def _draw(self) -> None:
        places = self.client.places(self._topics)
        if not places:
            return
        for place in self.client.rng.sample(places, min(len(places), self.client.rng.randrange(4))):
            line = self._lines.get(place)
            if line is None:
                line = self._lines[place] = Line(Series(self._producer_id, self._epoch))
            if not line.given_up and len(line.items) < 2 * IN_FLIGHT_MAX:
                self._pack(line, place)

    def _pack(self, line: Line, place: Place) -> None:
        records, meanings = self._packer.records()
        data = encode_batch(
            records,
            compression=self._packer.compression(),
            producer_id=line.series.producer_id,
            producer_epoch=line.series.epoch,
            base_sequence=line.sequence,
        )
        line.sequence += len(records)
        batch = self._world.ledger.draft(self.client.name, place, records, line.series, meanings)
        line.items.append(Item(Parcel(batch, data), line.batches))
        line.batches += 1

    async def _send_all(self) -> None:
        """One request to each leader that has something to get; partitions in any order."""
        ready: dict[Address, list[Item]] = {}
        homeless = False
        for place, line in list(self._lines.items()):
            item = line.sendable(self._cautious_start)
            if item is None:
                continue
            leader = self.client.leaders.get(place)
            if leader is None and self._world.ledger.may_be_gone(place.topic_id):
                line.give_up()
            elif leader is None:
                homeless = True
            else:
                ready.setdefault(leader.address, []).append(item)
        for address, items in ready.items():
            self.client.rng.shuffle(items)
            for item in items:
                item.in_flight = True
                item.first = self._lines[item.parcel.place].items[0] is item
            await self._flights.start(lambda a=address, i=items: self._send(a, i))  # type: ignore[misc]
        if homeless:
            await self.client.find(self._topics)

    async def _send(self, address: Address, items: list[Item]) -> None:
        attempts = [self._world.ledger.attempt(item.parcel.batch) for item in items]
        acks = self.client.rng.choices([-1, 1], [9, 1])[0]
        try:
            answers = await produce(self.client, address, [item.parcel for item in items], acks)
        except Unavailable as error:
            for attempt, item in zip(attempts, items, strict=True):
                attempt.unknown(str(error))
                item.doubtful = True
        else:
            for attempt, item in zip(attempts, items, strict=True):
                code = settle(attempt, item.parcel.batch, answers.get(item.parcel.place))
                item.doubtful = not self._settled(item, code)
        if any(item.doubtful for item in items):
            await self.client.find(self._topics)
        for item in items:
            item.in_flight = False

    def _settled(self, item: Item, code: ErrorCode) -> bool:
        """Whether nothing is left to do for this batch."""
        place = item.parcel.place
        line = self._lines.get(place)
        if line is None or item not in line.items:
            return True  # given up meanwhile
        if code in (ErrorCode.NONE, ErrorCode.DUPLICATE_SEQUENCE_NUMBER):
            line.items.remove(item)
            line.known = True
            return True
        if code in GONE and self._world.ledger.may_be_gone(place.topic_id):
            line.give_up()
            return True
        # As of when it was sent: by now a newer leader may have taken the ones before it, of which this one, that
        # was superseded meanwhile, knows nothing. What is settled before a request is known to whom it is sent.
        if code == ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER and item.first:
            raise Violation(
                f"everything before it is acknowledged, and yet {item.parcel.batch} does not follow: the log has lost "
                "an acknowledged batch, or taken a later one before it"
            )
        if code == ErrorCode.MESSAGE_TOO_LARGE:
            raise Violation(f"the topic does not take what this test sends: {item.parcel.batch}")
        return False
