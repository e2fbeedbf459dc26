"""Who opens a partition asks about its open transactions, and aborts those that nobody will end."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from support.log_bench import log_settings
from support.transactional_broker import TransactionalBroker
from support.transactions import begin, end
from support.wait import DEADLINE_S

from streamlake.broker import hanging_transactions
from streamlake.broker.hanging_transactions import HangingTransactions
from streamlake.log.manager import LogManager, Opening
from streamlake.log.partition import Partition
from streamlake.log.transactions_port import Outcome, Told


class Bench:
    """A partition that was opened with the open transactions of producers 1 and 2."""

    def __init__(self, broker: TransactionalBroker) -> None:
        self.broker = broker
        self.port = broker.transactions
        self.logs = LogManager(broker.bench.clock, broker.bench.executor)
        self.hanging = HangingTransactions(self.logs, broker.room, self.port)  # type: ignore[arg-type]

    async def open(self) -> Partition:
        stream = self.broker.streams[0].reopen()
        stream.auto_durable = True
        (partition,) = await self.logs.open([Opening(stream, self.broker.bench.topic, 0, log_settings())])
        assert isinstance(partition, Partition)
        return partition

    async def until(self, condition) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                await asyncio.sleep(0.001)


@pytest.fixture
async def bench(monkeypatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(hanging_transactions, "RETRY_S", 0.001)
    broker = await TransactionalBroker().start()
    for producer in (1, 2):
        assert (await broker.produce(broker.batch(producer=producer))).error_code == 0
    bench = Bench(broker)
    running = asyncio.create_task(bench.hanging.run())
    yield bench
    running.cancel()


async def test_what_goes_on_waits_for_its_marker_and_what_does_not_is_aborted(bench) -> None:
    bench.port.told = {1: Told(Outcome.PREPARED, 5), 2: Told(Outcome.ENDED)}
    partition = await bench.open()
    await bench.until(lambda: bench.hanging.aborted)
    assert [(producer, t.number) for producer, t in partition.transactions.open.items()] == [(1, 5)]
    assert partition.transactions.aborted.within(0, 99) == [(2, 1)]
    assert bench.port.asked_outcomes == [(1, 0, 0), (2, 0, 0)]
    assert end(partition, 1, commit=True, number=5).appended_bytes


async def test_it_asks_until_it_is_told(bench) -> None:
    bench.port.told = dict.fromkeys((1, 2), Told(Outcome.UNAVAILABLE))
    partition = await bench.open()
    await bench.until(lambda: len(bench.port.asked_outcomes) > 6)
    assert len(partition.transactions.open) == 2
    bench.port.told = dict.fromkeys((1, 2), Told(Outcome.ENDED))
    await bench.until(lambda: bench.hanging.aborted == 2)
    assert partition.last_stable_offset == partition.high_watermark == 4


async def test_the_next_transaction_is_not_aborted_in_place_of_the_one_that_was_asked_about(bench) -> None:
    bench.port.told = {1: Told(Outcome.ENDED), 2: Told(Outcome.ONGOING, 3)}
    partition: Partition | None = None

    def the_marker_comes() -> None:
        assert partition is not None
        if partition.transactions.open.get(1).first_offset == 0:
            end(partition, 1, commit=True)
            begin(partition, 1, number=2)
            batch = bench.broker.batch(1)
            partition.append(partition.check(memoryview(batch)))

    bench.port.before_answer = the_marker_comes
    partition = await bench.open()
    await bench.until(lambda: len(bench.port.asked_outcomes) == 2 and not bench.hanging._unasked)
    assert [producer for producer, _ in partition.transactions.open.items()] == [2, 1]
    assert len(partition.transactions.aborted) == 0


async def test_what_is_open_for_long_is_asked_about_again(bench, monkeypatch) -> None:
    partition = await bench.open()
    await bench.until(lambda: len(bench.port.asked_outcomes) == 2 and not bench.hanging._unasked)
    assert bench.hanging._open_for_long() == []
    found = bench.hanging._open_for_long()
    assert [asked.producer_id for asked in found] == [1, 2]
    bench.port.told = {1: Told(Outcome.ONGOING, 2), 2: Told(Outcome.ONGOING, 1)}
    assert await bench.hanging._ask_all(found)
    assert [producer for producer, _ in partition.transactions.open.items()] == [2], "number 1 has ended before 2 began"
