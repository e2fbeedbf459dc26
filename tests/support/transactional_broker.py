"""A broker's handlers over partitions on streams in memory, which take transactions of coordinators that a test sets."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from support.fake_stream import FakeStream
from support.log_bench import TOPIC, Bench
from support.produce_pair import _INFO, PARTITIONS, TOPIC_NAMED, Streams
from support.transactions import EPOCH, KnownTransactions
from support.two_brokers import NO_HANDOVERS, two_brokers

from streamlake.core.deadlines import Deadlines
from streamlake.core.ids import Ids
from streamlake.core.tasks import InlineExecutor
from streamlake.handlers.apis import HANDLERS, OF_BROKERS
from streamlake.handlers.fetch_session import FetchSessions
from streamlake.protocol.broker_messages import BrokerKey
from streamlake.protocol.messages import ApiKey, fetch, produce


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

    async def begin(self) -> None:
        """A transaction in every partition."""
        for index in range(PARTITIONS):
            assert (await self.produce(self.batch(), index)).error_code == 0

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
