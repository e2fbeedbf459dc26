"""Transactional ids on the real metadata store; markers go to partitions that exist in this test alone."""

import asyncio
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, field
from uuid import UUID

import pytest
from support.members import next_process
from support.wait import turns, until

from streamlake.cluster.slots import Slots
from streamlake.cluster.store.database import Database
from streamlake.cluster.store.producer_ids import ProducerIdBlocks
from streamlake.cluster.store.slots import SLOTS, SlotStore, assign, slot_of
from streamlake.cluster.store.transactions import TransactionStore
from streamlake.coordinator import transactions as module
from streamlake.coordinator.producer_ids import ProducerIds
from streamlake.coordinator.settings import TransactionSettings
from streamlake.coordinator.stored_transaction import transaction_of
from streamlake.coordinator.transaction import V1, V2, Participant, Producer, State, Transaction, TxnError
from streamlake.coordinator.transactions import Ending, Transactions
from streamlake.core.errors import OutcomeUnknown, Unavailable
from streamlake.core.ids import Ids
from streamlake.core.tasks import InlineExecutor

E = TxnError
TOPIC = UUID(int=1)
P0, P1, P2 = (Participant(TOPIC, index) for index in range(3))
SLOT = slot_of("t")
MINUTE = 60_000


@dataclass
class Partitions:
    """Implements Markers: what came to each partition, in order. Those that are `away` cannot be reached."""

    came: dict[Participant, list[Ending]] = field(default_factory=dict)
    away: set[Participant] = field(default_factory=set)
    calls: int = 0

    async def write(self, ending: Ending, partitions: Collection[Participant]) -> Collection[Participant]:
        self.calls += 1
        await asyncio.sleep(0)
        reached = set(partitions) - self.away
        for partition in reached:
            self.came.setdefault(partition, []).append(ending)
        return reached


class FaultyStore:
    """The real store; the next write fails, before it or after it."""

    def __init__(self, store: TransactionStore) -> None:
        self._store = store
        self.before: Exception | None = None
        self.after: Exception | None = None
        self.writes = 0
        self.gate = asyncio.Event()
        self.gate.set()

    def __getattr__(self, name: str):
        return getattr(self._store, name)

    async def save(self, *args) -> None:
        await self._fail(self._store.save, *args)

    async def decide(self, *args) -> None:
        await self._fail(self._store.decide, *args)

    async def _fail(self, write, *args) -> None:
        await self.gate.wait()
        before, after, self.before, self.after = self.before, self.after, None, None
        if before:
            raise before
        await write(*args)
        self.writes += 1
        if after:
            raise after


@dataclass
class Coordinator:
    node: int
    store: FaultyStore
    slots: Slots
    transactions: Transactions
    partitions: Partitions

    async def init(self, key: str = "t", expected: Producer | None = None) -> Producer:
        error, producer = await self.transactions.init(key, MINUTE, expected)
        assert error is E.NONE
        return producer

    async def add(self, producer: Producer, *partitions: Participant, version: int = V1, key: str = "t") -> TxnError:
        error, _ = await self.transactions.add(key, producer, partitions, (), version)
        return error

    async def end(self, producer: Producer, commit: bool = True, version: int = V1, key: str = "t") -> TxnError:
        error, _ = await self.transactions.end(key, producer, commit, version)
        return error

    async def stored(self, key: str = "t") -> Transaction:
        row = await self.store.get(key)
        assert row is not None
        return transaction_of(row)

    async def state(self, key: str = "t") -> State:
        found = await self.transactions.describe(key)
        assert isinstance(found, Transaction)
        return found.state

    async def completed(self) -> None:
        await until(lambda: all(e.ending is None for e in self.transactions._entries.values()))


class Site:
    def __init__(self, database: Database, clock) -> None:
        self.database = database
        self.clock = clock
        self.partitions = Partitions()
        self.coordinators: list[Coordinator] = []

    async def start(self, node: int, settings: TransactionSettings | None = None) -> Coordinator:
        identity = (await next_process(self.database, self.clock, Ids(node), node)).identity
        slots = Slots(SlotStore(self.database, identity), node)
        await slots.take_free()
        store = FaultyStore(TransactionStore(self.database, identity, slots.stale.set))
        producer_ids = ProducerIds(ProducerIdBlocks(self.database, identity))
        transactions = Transactions(store, slots, producer_ids, self.partitions, self.clock, Ids(node), settings)
        await transactions.start()
        self.coordinators.append(Coordinator(node, store, slots, transactions, self.partitions))
        return self.coordinators[-1]

    async def assign(self, to: Coordinator, *told: Coordinator) -> None:
        """The slot of id t; `told` have heard of it."""
        await self.database.write(lambda connection: assign(connection, {SLOT: to.node}))
        for coordinator in told:
            await coordinator.slots.refresh()
        await until(lambda: not any(c.transactions._held.loading for c in told))


@pytest.fixture
async def site(clock) -> AsyncIterator[Site]:
    site = Site(await Database.open("sqlite://", InlineExecutor(), clock), clock)
    yield site
    for coordinator in site.coordinators:
        await coordinator.transactions.stop()
    await site.database.close()


@pytest.fixture
async def one(site) -> Coordinator:
    return await site.start(0)


@pytest.fixture
def impatient(monkeypatch) -> None:
    monkeypatch.setattr(module, "ENDING_PATIENCE_S", 0.0)


# -- the life of a transaction -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("commit", "version"), [(True, V1), (False, V1), (True, V2), (False, V2)])
async def test_a_transaction_is_ended_in_all_its_partitions(one, commit: bool, version: int) -> None:
    producer = await one.init()
    assert producer == Producer(producer.id, 0)
    assert await one.add(producer, P0, P1, version=version) is E.NONE
    assert await one.transactions.add("t", producer, [P2], ["g"], version) == (E.NONE, 1)
    assert (await one.stored()).state is State.ONGOING
    error, after = await one.transactions.end("t", producer, commit, version)
    assert (error, after) == (E.NONE, Producer(producer.id, version - 1))
    await one.completed()
    marker = Ending("t", Producer(producer.id, version - 1), 1, 1, commit, version)
    assert one.partitions.came == {P0: [marker], P1: [marker], P2: [marker]}
    assert await one.state() is (State.COMPLETE_COMMIT if commit else State.COMPLETE_ABORT)
    assert (one.transactions.commits, one.transactions.aborts) == (int(commit), int(not commit))
    assert await one.transactions.add("t", after, [P1], (), version) == (E.NONE, 2), "the next one"


async def test_an_end_is_answered_when_it_is_decided(one) -> None:
    """Markers may take long; the client need not wait for them."""
    one.partitions.away = {P1}
    producer = await one.init()
    await one.add(producer, P0, P1)
    assert await one.end(producer) is E.NONE
    await until(lambda: P0 in one.partitions.came)
    assert await one.state() is State.PREPARE_COMMIT
    one.partitions.away = set()
    await one.completed()
    assert len(one.partitions.came[P0]) == 1, "who has its marker is not asked again"
    assert await one.state() is State.COMPLETE_COMMIT


async def test_a_transaction_takes_two_writes(one) -> None:
    producer = await one.init()
    before = one.store.writes
    for _ in range(5):
        await one.add(producer, P0)
        await one.end(producer)
        await one.completed()
    assert one.store.writes - before == 10


async def test_the_next_transaction_waits_for_the_markers_of_the_last_one(one, impatient) -> None:
    one.partitions.away = {P0}
    producer = await one.init()
    await one.add(producer, P0)
    await one.end(producer)
    assert await one.add(producer, P0) is E.CONCURRENT_TRANSACTIONS
    assert await one.end(producer) is E.CONCURRENT_TRANSACTIONS
    assert await one.transactions.init("t", MINUTE, None) == (E.CONCURRENT_TRANSACTIONS, Producer(-1, -1))


async def test_a_request_waits_a_moment_for_markers(one) -> None:
    one.partitions.away = {P0}
    producer = await one.init()
    await one.add(producer, P0)
    await one.end(producer)
    adding = asyncio.create_task(one.transactions.add("t", producer, [P1], (), V1))
    await turns(20)
    assert not adding.done()
    one.partitions.away = set()
    assert await adding == (E.NONE, 2)


async def test_requests_that_wait_for_one_another_share_a_write(one) -> None:
    producer = await one.init()
    before = one.store.writes
    one.store.gate.clear()
    many = [Participant(TOPIC, index) for index in range(20)]
    adding = [asyncio.create_task(one.transactions.add("t", producer, [p], (), V2)) for p in many]
    await turns(20)
    one.store.gate.set()
    assert await asyncio.gather(*adding) == [(E.NONE, 1)] * 20
    assert one.store.writes - before <= 2
    assert (await one.stored()).partitions == frozenset(many)


async def test_whoever_comes_next_aborts_what_is_open(one) -> None:
    zombie = await one.init()
    await one.add(zombie, P0)
    producer = await one.init()
    assert producer == Producer(zombie.id, 2)
    assert [(e.commit, e.producer.epoch) for e in one.partitions.came[P0]] == [(False, 1)]
    assert await one.add(zombie, P1) is E.PRODUCER_FENCED
    assert await one.end(zombie) is E.PRODUCER_FENCED
    assert await one.add(producer, P1) is E.NONE


async def test_what_is_verified(one) -> None:
    verify = one.transactions.verify
    producer = await one.init()
    assert await verify("t", producer, P0) == (E.TRANSACTION_ABORTABLE, -1)
    await one.add(producer, P0)
    assert await verify("t", producer, P0) == (E.NONE, 1)
    assert await verify("t", Producer(producer.id, 5), P0) == (E.PRODUCER_FENCED, -1)
    assert await verify("other", producer, P0) == (E.INVALID_PRODUCER_ID_MAPPING, -1)


@pytest.mark.parametrize(("timeout_ms", "error"), [(0, False), (-1, False), (5_000, True), (5_001, False)])
async def test_timeouts_have_a_limit(site, timeout_ms: int, error: bool) -> None:
    one = await site.start(0, TransactionSettings(timeout_max_ms=5_000))
    found, _ = await one.transactions.init("t", timeout_ms, None)
    assert found is (E.NONE if error else E.INVALID_TRANSACTION_TIMEOUT)


async def test_ids_in_memory_have_a_limit(site) -> None:
    one = await site.start(0, TransactionSettings(transactions_max=1))
    producer = await one.init()
    assert (await one.transactions.init("u", MINUTE, None))[0] is E.COORDINATOR_NOT_AVAILABLE
    await one.add(producer, P0)
    site.clock.ms += 50_000
    await one.transactions.tick()
    assert (await one.transactions.init("u", MINUTE, None))[0] is E.COORDINATOR_NOT_AVAILABLE, "its id is in use"
    await one.end(producer)
    await one.completed()
    await one.add(producer, P0)
    await one.end(producer, commit=False)
    await one.completed()
    site.clock.ms += 6_000
    await one.transactions.tick()
    await until(lambda: not any(e.is_busy for e in one.transactions._entries.values()))
    site.clock.ms += 61_000
    await one.transactions.tick()
    assert (await one.transactions.init("u", MINUTE, None))[0] is E.NONE
    assert await one.stored("t") == Transaction(producer.id, 0, MINUTE, number=2, state=State.COMPLETE_ABORT,
        started_ms=(await one.stored("t")).started_ms)  # fmt: skip


# -- time --------------------------------------------------------------------------------------------------------------


async def test_a_transaction_that_takes_too_long_is_aborted(site, one) -> None:
    producer = await one.init()
    await one.add(producer, P0, P1)
    site.clock.ms += MINUTE - 1
    await one.transactions.tick()
    await turns(20)
    assert await one.state() is State.ONGOING
    site.clock.ms += 1
    await one.transactions.tick()
    await until(lambda: one.transactions.timeouts)
    await one.completed()
    assert [[(e.commit, e.producer.epoch) for e in came] for came in one.partitions.came.values()] == [[(False, 1)]] * 2
    assert await one.end(producer) is E.PRODUCER_FENCED
    assert await one.init() == Producer(producer.id, 2)


async def test_that_all_markers_are_written_is_stored_in_the_end(site, one) -> None:
    producer = await one.init()
    await one.add(producer, P0)
    await one.end(producer)
    await one.completed()
    await one.transactions.tick()
    assert (await one.stored()).state is State.PREPARE_COMMIT, "the next write has it, too"
    site.clock.ms += 5_000
    await one.transactions.tick()
    await until(lambda: not any(e.is_busy for e in one.transactions._entries.values()))
    assert (await one.stored()).state is State.COMPLETE_COMMIT
    writes = one.store.writes
    site.clock.ms += 5_000
    await one.transactions.tick()
    assert one.store.writes == writes


async def test_ids_that_nobody_uses_are_forgotten(site) -> None:
    one = await site.start(0, TransactionSettings(id_expiration_ms=1_000))
    producer, other = await one.init(), await one.init("u")
    await one.add(other, P0, key="u")
    site.clock.ms += 999
    assert await one.transactions.expire() == 0
    site.clock.ms += 1
    assert await one.transactions.expire() == 1
    assert await one.add(producer, P0) is E.INVALID_PRODUCER_ID_MAPPING
    assert (await one.init()).id != producer.id
    assert await one.end(other, key="u") is E.NONE, "a transaction that is open is not forgotten"


# -- writes that fail --------------------------------------------------------------------------------------------------


async def test_nothing_is_answered_that_is_not_durable(one) -> None:
    producer = await one.init()
    one.store.before = Unavailable("no")
    assert await one.add(producer, P0) is E.COORDINATOR_NOT_AVAILABLE
    assert await one.state() is State.EMPTY
    await one.add(producer, P0)
    one.store.before = Unavailable("no")
    assert await one.end(producer) is E.COORDINATOR_NOT_AVAILABLE
    assert await one.state() is State.ONGOING
    assert await one.end(producer) is E.NONE
    assert one.transactions.failures == 2


@pytest.mark.parametrize("landed", [True, False])
async def test_after_an_unknown_outcome_it_is_read_back(one, landed: bool) -> None:
    """A client may ask for the other outcome then, which must not be decided behind the one that is durable."""
    producer = await one.init()
    await one.add(producer, P0)
    one.store.after, one.store.before = (OutcomeUnknown(""), None) if landed else (None, OutcomeUnknown(""))
    assert await one.end(producer, commit=True) is E.COORDINATOR_NOT_AVAILABLE
    error = await one.end(producer, commit=False)
    await one.completed()
    assert error is (E.INVALID_TXN_STATE if landed else E.NONE)
    assert [e.commit for e in one.partitions.came[P0]] == [landed]


async def test_a_decision_that_landed_unheard_is_carried_out(site, one) -> None:
    """Also if its client never asks again."""
    producer = await one.init()
    await one.add(producer, P0)
    one.store.after = OutcomeUnknown("")
    assert await one.end(producer) is E.COORDINATOR_NOT_AVAILABLE
    await one.transactions.tick()
    await until(lambda: P0 in one.partitions.came)
    assert [e.commit for e in one.partitions.came[P0]] == [True]


async def test_a_request_that_is_cancelled_leaves_no_doubt(one) -> None:
    producer = await one.init()
    one.store.gate.clear()
    adding = asyncio.create_task(one.transactions.add("t", producer, [P0], (), V1))
    await turns(5)
    adding.cancel()
    await turns(5)
    one.store.gate.set()
    assert await one.state() is State.EMPTY
    assert await one.add(producer, P0) is E.NONE


# -- slots that move ---------------------------------------------------------------------------------------------------


async def test_who_does_not_have_the_slot_says_so(site, one) -> None:
    other = await site.start(1)
    producer = await one.init()
    t = other.transactions
    assert (await t.init("t", MINUTE, None))[0] is E.NOT_COORDINATOR
    assert (await t.add("t", producer, [P0], (), V1))[0] is E.NOT_COORDINATOR
    assert (await t.verify("t", producer, P0))[0] is E.NOT_COORDINATOR
    assert (await t.end("t", producer, True, V1))[0] is E.NOT_COORDINATOR
    assert await t.describe("t") is E.NOT_COORDINATOR
    assert await t.list() == []


@pytest.mark.parametrize("commit", [True, False])
async def test_the_new_owner_of_a_slot_carries_out_what_is_decided(site, one, commit: bool) -> None:
    other = await site.start(1)
    one.partitions.away = {P1}
    producer = await one.init()
    await one.add(producer, P0, P1)
    await one.end(producer, commit)
    await until(lambda: P0 in one.partitions.came)
    await site.assign(other, one, other)
    one.partitions.away = set()
    await other.completed()
    assert [e.commit for e in one.partitions.came[P1]] == [commit]
    assert {e.coordinator_epoch for e in one.partitions.came[P1]} == {2}
    assert await other.add(producer, P0) is E.NONE
    assert await one.add(producer, P0) is E.NOT_COORDINATOR


async def test_the_new_owner_watches_over_the_time_of_what_is_open(site, one) -> None:
    other = await site.start(1)
    producer = await one.init()
    await one.add(producer, P0)
    site.clock.ms += MINUTE
    await site.assign(other, one, other)
    await other.transactions.tick()
    await until(lambda: P0 in one.partitions.came)
    assert [(e.commit, e.coordinator_epoch) for e in one.partitions.came[P0]] == [(False, 2)]


async def test_a_zombie_decides_nothing(site, one) -> None:
    """It does not know that it has lost the slot. What the new owner decides stands."""
    other = await site.start(1)
    producer = await one.init()
    await one.add(producer, P0)
    await site.assign(other, other)
    assert await one.end(producer, commit=False) is E.NOT_COORDINATOR
    assert one.slots.stale.is_set()
    assert await other.end(producer, commit=True) is E.NONE
    await other.completed()
    assert [e.commit for e in one.partitions.came[P0]] == [True]


async def test_who_waits_is_answered_when_the_slot_is_lost(site, one) -> None:
    other = await site.start(1)
    one.partitions.away = {P0}
    producer = await one.init()
    await one.add(producer, P0)
    await one.end(producer)
    waiting = asyncio.create_task(one.transactions.add("t", producer, [P1], (), V1))
    await turns(20)
    await site.assign(other, one)
    assert await waiting == (E.NOT_COORDINATOR, -1)


async def test_a_restart_goes_on_with_everything(site) -> None:
    first = await site.start(0)
    first.partitions.away = {P0}
    producer = await first.init()
    await first.add(producer, P0)
    await first.end(producer)
    await first.transactions.stop()
    first.partitions.away = set()
    second = await site.start(0)
    await second.completed()
    assert [e.commit for e in first.partitions.came[P0]] == [True]
    assert await second.add(producer, P1) is E.NONE
    assert (await second.stored()).number == 2


async def test_ids_are_listed_as_they_are(site, one) -> None:
    other = await site.start(1)
    producers = {key: await one.init(key) for key in ("t", "u", "v")}
    await one.add(producers["u"], P0, key="u")
    await one.add(producers["v"], P0, key="v")
    await one.end(producers["v"], key="v")
    await one.completed()
    now_ms = site.clock.ms
    listed = await one.transactions.list()
    assert [(each.transactional_id, each.state, each.started_ms) for each in listed] == [
        ("t", State.EMPTY, -1),
        ("u", State.ONGOING, now_ms),
        ("v", State.COMPLETE_COMMIT, -1),
    ]
    assert await other.transactions.list() == []
    assert await one.transactions.describe("none") is E.TRANSACTIONAL_ID_NOT_FOUND
    assert set(one.slots.ours) == set(range(SLOTS))
