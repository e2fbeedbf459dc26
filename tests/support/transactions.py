"""Transactions as a log sees them: coordinators whose answers a test sets, and a broker's handlers on streams in memory."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from support.fake_stream import FakeStream
from support.log_bench import TOPIC, Bench
from support.produce_pair import _INFO, PARTITIONS, TOPIC_NAMED, Streams
from support.two_brokers import NO_HANDOVERS, two_brokers

from streamlake.core.deadlines import Deadlines
from streamlake.core.ids import Ids
from streamlake.core.tasks import InlineExecutor
from streamlake.handlers.apis import HANDLERS, OF_BROKERS
from streamlake.handlers.fetch_session import FetchSessions
from streamlake.log.partition import Ended, Partition
from streamlake.log.transactions import TransactionEnd
from streamlake.log.transactions_port import Outcome, Told, Verdict, Verified
from streamlake.protocol.broker_messages import BrokerKey
from streamlake.protocol.messages import ApiKey, fetch, produce

EPOCH = 0


class KnownTransactions:
    """Implements `TransactionsPort`. Every question is kept; what was not set is OPEN, and ONGOING, of number 1."""

    def __init__(self) -> None:
        self.verified = Verified(Verdict.OPEN, 1)
        self.told: dict[int, Told] = {}  # by producer id
        self.asked: list[tuple[str, int, int, int, bool]] = []
        self.asked_outcomes: list[tuple[int, int, int]] = []
        self.before_answer: Callable[[], None] = lambda: None

    async def verify(
        self,
        transactional_id: str,
        producer_id: int,
        producer_epoch: int,
        topic_id: UUID,
        partition: int,
        *,
        may_add: bool,
    ) -> Verified:
        self.asked.append((transactional_id, producer_id, producer_epoch, partition, may_add))
        await asyncio.sleep(0)
        self.before_answer()
        return self.verified

    async def outcome(self, producer_id: int, producer_epoch: int, topic_id: UUID, partition: int) -> Told:
        self.asked_outcomes.append((producer_id, producer_epoch, partition))
        await asyncio.sleep(0)
        self.before_answer()
        return self.told.get(producer_id, Told(Outcome.ONGOING, 1))


def begin(partition: Partition, producer: int = 1, epoch: int = EPOCH, number: int = 1) -> None:
    """The partition knows that it is part of an open transaction."""
    guard = partition.transactions.guards.take(producer, epoch, 0)
    partition.transactions.guards.confirm(guard, number)


def end(partition: Partition, producer: int = 1, *, commit: bool, epoch: int = EPOCH, **rest: Any) -> Ended:
    return partition.end_transaction(TransactionEnd(producer, epoch, rest.pop("coordinator_epoch", 0), commit, **rest))


class Exchange:
    """One request, as a handler sees it."""

    def __init__(self, body: Any, version: int, peer: Any = None) -> None:
        self.body, self.version, self.peer = body, version, peer
        self.client_id, self.client_host, self.work_bytes = "test", "localhost", 0
        self.is_released = False
        self.answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.answer, self.fail = self.answered.set_result, self.answered.set_exception

    def release(self) -> None:
        self.is_released = True

    def thread_started(self) -> None: ...

    def thread_ended(self) -> None: ...


class TransactionalBroker:
    """`start`, then `ask`. Streams become durable at once unless told otherwise."""

    def __init__(self) -> None:
        self.bench = Bench()
        self.transactions = KnownTransactions()
        self.streams = [FakeStream(stream_id=n) for n in range(PARTITIONS)]
        self.room = Streams()

    async def start(self, **settings: Any) -> "TransactionalBroker":
        for stream in self.streams:
            stream.auto_durable = True
        self.partitions = [await self.bench.open(stream, **settings) for stream in self.streams]
        for index, partition in enumerate(self.partitions):
            partition.index = index
        self.ctx: Any = SimpleNamespace(
            brokers=two_brokers(),
            topics=SimpleNamespace(by_id={TOPIC: _INFO}.get, get={TOPIC_NAMED.name: _INFO}.get),
            logs=SimpleNamespace(get=lambda _, n: self.partitions[n] if 0 <= n < PARTITIONS else None),
            handovers=NO_HANDOVERS,
            streams=self.room,
            deadlines=Deadlines(asyncio.get_running_loop()),
            checks=InlineExecutor(),
            fetch_sessions=FetchSessions(Ids(1)),
            connection_memory=SimpleNamespace(free_bytes=1 << 30),
            transactions_port=self.transactions,
        )
        return self

    async def ask(self, key: ApiKey | BrokerKey, request: Any, version: int, peer: Any = None) -> Any:
        exchange = Exchange(request, version, peer)
        (handler,) = [h for h in (*HANDLERS, *OF_BROKERS) if h.api.key == key]
        if handler.begin is not None and handler.begin(self.ctx, exchange):
            return await exchange.answered
        return await handler.handle(self.ctx, exchange)

    async def produce(
        self, records: bytes, index: int = 0, *, version: int = 9, transactional_id: str | None = "t"
    ) -> produce.PartitionProduceResponse:
        data = produce.PartitionProduceData(index=index, records=records)
        topic = produce.TopicProduceData(name=TOPIC_NAMED.name, partition_data=(data,))
        request = produce.ProduceRequest(
            transactional_id=transactional_id, acks=-1, timeout_ms=60_000, topic_data=(topic,)
        )
        answer = await self.ask(ApiKey.PRODUCE, request, version)
        found: produce.PartitionProduceResponse = answer.responses[0].partition_responses[0]
        return found

    async def fetch(self, offset: int, index: int = 0, *, committed: bool = True, wait_ms: int = 0) -> Any:
        wanted = fetch.FetchPartition(partition=index, fetch_offset=offset, partition_max_bytes=1 << 20)
        request = fetch.FetchRequest(
            max_wait_ms=wait_ms,
            min_bytes=1,
            max_bytes=1 << 20,
            isolation_level=int(committed),
            topics=(fetch.FetchTopic(topic=TOPIC_NAMED.name, partitions=(wanted,)),),
        )
        answer = await self.ask(ApiKey.FETCH, request, 12)
        return answer.responses[0].partitions[0]

    def batch(self, sequence: int = 0, count: int = 1, *, producer: int = 1, epoch: int = EPOCH) -> bytes:
        """Of a transaction."""
        return self.bench.batch(
            count, producer_id=producer, producer_epoch=epoch, base_sequence=sequence, transactional=True
        )


@contextmanager
def slow(broker: TransactionalBroker) -> Iterator[None]:
    """Nothing becomes durable inside."""
    for stream in broker.streams:
        stream.auto_durable = False
    yield
    for stream in broker.streams:
        stream.auto_durable = True
        stream.make_durable()
