"""Coordinators of transactional ids are asked, this broker's own and another one, over a real socket."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from support.members import next_process
from support.peer_server import SECRET, PeerServer

from streamlake.broker.peers import Peers
from streamlake.broker.transactions import ClusterTransactions
from streamlake.cluster.brokers import Brokers
from streamlake.cluster.slots import Slots
from streamlake.cluster.store.database import Database
from streamlake.cluster.store.fences import BrokerIdentity
from streamlake.cluster.store.membership import BeatView
from streamlake.cluster.store.slots import SlotStore, slot_of
from streamlake.cluster.store.transactions import TransactionStore
from streamlake.coordinator.stored_transaction import row_of
from streamlake.coordinator.transaction import V2, Participant, Producer, State, Transaction, TxnError
from streamlake.core.clock import SystemClock
from streamlake.core.errors import Unavailable
from streamlake.core.ids import Ids
from streamlake.core.tasks import InlineExecutor, Supervisor
from streamlake.log.transactions_port import Outcome, Told, Verdict, Verified

TOPIC = UUID(int=1)
HERE, THERE, NOWHERE = "here", "there", "nowhere"


class Known:
    """What a coordinator answers; `asked` are the questions."""

    def __init__(self) -> None:
        self.answer = TxnError.NONE, 4
        self.asked: list[tuple[Any, ...]] = []

    async def add(self, *asked: Any) -> tuple[TxnError, int]:
        self.asked.append(("add", *asked))
        return self.answer

    async def verify(self, *asked: Any) -> tuple[TxnError, int]:
        self.asked.append(("verify", *asked))
        return self.answer


class Site:
    def __init__(self, database: Database, store: TransactionStore, slot: Any, server: PeerServer) -> None:
        self.store = store
        self.slot = slot
        self.server = server
        self.here, self.there = Known(), Known()
        server.more["transactions"] = self.there
        self.brokers = Brokers(BrokerIdentity("c", 1, 4), "127.0.0.1", 1)
        self.brokers.seen(BeatView(0, (server.info,)))
        self.tasks = Supervisor()
        self.peers = Peers(self.brokers, SECRET, self.tasks)
        slots: Any = SimpleNamespace(coordinator_of={HERE: 1, THERE: 2}.get)
        here: Any = self.here
        self.transactions = ClusterTransactions(1, slots, here, store, self.peers, self.tasks)

    async def verify(self, key: str, partition: int = 0, may_add: bool = False) -> Verified:
        return await self.transactions.verify(key, 7, 3, TOPIC, partition, may_add=may_add)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    clock, server = SystemClock(), PeerServer(2)
    database = await Database.open("sqlite://", InlineExecutor(), clock)
    identity = (await next_process(database, clock, Ids(1), 1)).identity
    slots = Slots(SlotStore(database, identity), 1)
    await slots.take_free()
    store = TransactionStore(database, identity, slots.stale.set)
    site = Site(database, store, slots.ours[slot_of("t")], server)
    await server.start()
    yield site
    await site.peers.close()
    await site.tasks.stop()
    await server.stop()
    await database.close()


@pytest.mark.parametrize("key", [HERE, THERE])
async def test_the_coordinator_of_the_id_is_asked(site: Site, key: str) -> None:
    known = site.here if key == HERE else site.there
    assert await site.verify(key) == Verified(Verdict.OPEN, 4)
    assert await site.verify(key, may_add=True) == Verified(Verdict.OPEN, 4)
    assert await site.transactions.join_group(key, Producer(7, 3), "g") is TxnError.NONE
    assert known.asked == [
        ("verify", key, Producer(7, 3), Participant(TOPIC, 0)),
        ("add", key, Producer(7, 3), (Participant(TOPIC, 0),), (), V2),
        ("add", key, Producer(7, 3), (), ("g",), V2),
    ]


@pytest.mark.parametrize("key", [HERE, THERE])
@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (TxnError.CONCURRENT_TRANSACTIONS, Verdict.ENDING),
        (TxnError.PRODUCER_FENCED, Verdict.FENCED),
        (TxnError.INVALID_PRODUCER_ID_MAPPING, Verdict.UNKNOWN_PRODUCER),
        (TxnError.TRANSACTION_ABORTABLE, Verdict.NOT_OPEN),
        (TxnError.NOT_COORDINATOR, Verdict.UNAVAILABLE),
        (TxnError.COORDINATOR_LOAD_IN_PROGRESS, Verdict.UNAVAILABLE),
    ],
)
async def test_what_its_answers_mean(site: Site, key: str, error: TxnError, verdict: Verdict) -> None:
    (site.here if key == HERE else site.there).answer = error, -1
    assert await site.verify(key) == Verified(verdict)
    assert await site.transactions.join_group(key, Producer(7, 3), "g") is error


async def test_questions_that_come_together_share_requests(site: Site) -> None:
    answers = await asyncio.gather(*(site.verify(THERE, index, may_add=True) for index in range(50)))
    assert set(answers) == {Verified(Verdict.OPEN, 4)}
    assert site.server.listener.counters.requests["join_transactions"] <= 2
    assert len(site.there.asked) == 50


async def test_a_coordinator_that_cannot_be_asked(site: Site) -> None:
    assert await site.verify(NOWHERE) == Verified(Verdict.UNAVAILABLE)
    site.brokers.seen(BeatView(0, ()))
    assert await site.verify(THERE) == Verified(Verdict.UNAVAILABLE)
    assert await site.transactions.join_group(THERE, Producer(7, 3), "g") is TxnError.COORDINATOR_NOT_AVAILABLE


ONGOING = Transaction(
    7, 3, 1, number=5, state=State.ONGOING, partitions=frozenset({Participant(TOPIC, 0), Participant(TOPIC, 1)})
)


def changed(**facts: Any) -> Transaction:
    values = {field: getattr(ONGOING, field) for field in Transaction.__dataclass_fields__}
    return Transaction(**(values | facts))


@pytest.mark.parametrize(
    ("txn", "epoch", "partition", "told"),
    [
        (None, 3, 0, Told(Outcome.ENDED)),
        (ONGOING, 3, 0, Told(Outcome.ONGOING, 5)),
        (ONGOING, 3, 2, Told(Outcome.ENDED)),
        (ONGOING, 2, 0, Told(Outcome.ENDED)),
        (ONGOING, 4, 0, Told(Outcome.ENDED)),
        (changed(state=State.PREPARE_COMMIT), 3, 0, Told(Outcome.PREPARED, 5)),
        (changed(state=State.PREPARE_ABORT, epoch=4), 3, 1, Told(Outcome.PREPARED, 5)),
        (changed(state=State.PREPARE_ABORT, epoch=4), 2, 1, Told(Outcome.ENDED)),
        (changed(state=State.PREPARE_COMMIT, epoch=2**15 - 1, next_id=9), 2**15 - 2, 0, Told(Outcome.PREPARED, 5)),
        (changed(state=State.COMPLETE_COMMIT), 3, 0, Told(Outcome.ENDED)),
        (changed(state=State.EMPTY), 3, 0, Told(Outcome.ENDED)),
        (changed(producer_id=8), 3, 0, Told(Outcome.ENDED)),
    ],
)
async def test_what_became_of_a_transaction(
    site: Site, txn: Transaction | None, epoch: int, partition: int, told: Told
) -> None:
    if txn is not None:
        await site.store.save(row_of("t", txn, 0), site.slot)
    assert await site.transactions.outcome(7, epoch, TOPIC, partition) == told


async def test_a_store_that_is_away_says_nothing_of_a_transaction(site: Site, monkeypatch) -> None:
    async def fail(_: int) -> None:
        raise Unavailable("away")

    monkeypatch.setattr(site.store, "of_producer", fail)
    assert await site.transactions.outcome(7, 3, TOPIC, 0) == Told(Outcome.UNAVAILABLE)
