"""Kafka's rules for transactional ids: case by case, and under any order of requests of producers and zombies."""

from dataclasses import replace
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlake.coordinator import transaction as machine
from streamlake.coordinator.transaction import (
    EPOCH_LAST,
    NO_EPOCH,
    NO_ID,
    PREPARED,
    V1,
    V2,
    Participant,
    Producer,
    State,
    Step,
    Transaction,
    TxnError,
    store_error,
)
from streamlake.core.errors import Closed, Fenced, OutcomeUnknown, Unavailable

E = TxnError
P0, P1 = Participant(UUID(int=1), 0), Participant(UUID(int=1), 1)
NONE: frozenset = frozenset()
TIMEOUT_MS = 60_000


def fresh(**changes: object) -> Transaction:
    return replace(Transaction(7, 0, TIMEOUT_MS), **changes)


def ongoing(**changes: object) -> Transaction:
    facts = {"state": State.ONGOING, "number": 1, "started_ms": 1_000, "partitions": frozenset({P0})}
    return fresh(**(facts | changes))


def prepared(commit: bool = True, version: int = V1, of: Transaction | None = None) -> Transaction:
    known = of or ongoing()
    after = machine.end(known, known.producer, commit, version, 99, 2_000).after
    assert after is not None
    return after


def add(known: Transaction | None, producer: Producer, *partitions: Participant, version: int = V1) -> Step:
    return machine.add(known, producer, frozenset(partitions), NONE, 5_000, version)


# -- InitProducerId ----------------------------------------------------------------------------------------------------


def test_a_new_transactional_id_begins_at_epoch_0() -> None:
    assert machine.init(None, 5_000, None, 7) == Step(E.NONE, Transaction(7, 0, 5_000))
    assert machine.init(None, 5_000, Producer(3, 2), 7) == Step(E.NONE, Transaction(7, 0, 5_000))


@pytest.mark.parametrize("state", [State.EMPTY, State.COMPLETE_COMMIT, State.COMPLETE_ABORT])
def test_whoever_comes_next_fences_the_one_before(state: State) -> None:
    error, after = machine.init(fresh(state=state, epoch=4, number=3, last_epoch=3), 9_000, None, 99)
    assert (error, after) == (E.NONE, fresh(epoch=5, number=3, last_epoch=NO_EPOCH, timeout_ms=9_000))


def test_a_transaction_that_is_open_is_aborted_first() -> None:
    known = ongoing(epoch=4, last_epoch=3)
    error, after = machine.init(known, TIMEOUT_MS, None, 99)
    assert error is E.CONCURRENT_TRANSACTIONS
    assert after == replace(known, state=State.PREPARE_ABORT, epoch=5, last_epoch=NO_EPOCH)
    assert machine.init(after, TIMEOUT_MS, None, 99) == Step(E.CONCURRENT_TRANSACTIONS)
    assert machine.init(after.completed(), TIMEOUT_MS, None, 99).after == fresh(epoch=6, number=1)


def test_a_producer_goes_on_after_an_error() -> None:
    """KIP-360: it names what it had, and may ask twice."""
    error, after = machine.init(fresh(epoch=4), TIMEOUT_MS, Producer(7, 4), 99)
    assert (error, after) == (E.NONE, fresh(epoch=5, last_epoch=4))
    assert machine.init(after, TIMEOUT_MS, Producer(7, 4), 99) == Step(E.NONE, after)
    assert machine.init(after, TIMEOUT_MS, Producer(7, 3), 99) == Step(E.PRODUCER_FENCED)
    assert machine.init(after, TIMEOUT_MS, Producer(8, 5), 99) == Step(E.PRODUCER_FENCED)
    fenced = machine.init(after, TIMEOUT_MS, None, 99).after
    assert machine.init(fenced, TIMEOUT_MS, Producer(7, 5), 99) == Step(E.PRODUCER_FENCED), "another one came between"


def test_a_producer_goes_on_from_an_open_transaction() -> None:
    expected = Producer(7, 0)
    error, after = machine.init(ongoing(), TIMEOUT_MS, expected, 99)
    assert (error, after.state, after.epoch) == (E.CONCURRENT_TRANSACTIONS, State.PREPARE_ABORT, 1)
    assert machine.init(after, TIMEOUT_MS, expected, 99) == Step(E.CONCURRENT_TRANSACTIONS)
    error, after = machine.init(after.completed(), TIMEOUT_MS, expected, 99)
    assert (error, after.producer) == (E.NONE, Producer(7, 1))


def test_a_zombie_that_goes_on_aborts_nothing() -> None:
    """Kafka lets it: KIP-360 looks at the epoch only when no transaction is open."""
    known = ongoing(epoch=5, last_epoch=4)
    for epoch in (3, 4, 6):
        assert machine.init(known, TIMEOUT_MS, Producer(7, epoch), 99) == Step(E.PRODUCER_FENCED)


def test_an_exhausted_producer_id_is_replaced() -> None:
    known = fresh(epoch=EPOCH_LAST, number=3)
    after = machine.init(known, TIMEOUT_MS, None, 99).after
    assert after == Transaction(99, 0, TIMEOUT_MS, last_id=7, last_epoch=NO_EPOCH, number=3)
    assert machine.init(after, TIMEOUT_MS, Producer(7, EPOCH_LAST), 100) == Step(E.PRODUCER_FENCED)
    after = machine.init(known, TIMEOUT_MS, Producer(7, EPOCH_LAST), 99).after
    assert after == Transaction(99, 0, TIMEOUT_MS, last_id=7, last_epoch=EPOCH_LAST, number=3)
    assert machine.init(after, TIMEOUT_MS, Producer(7, EPOCH_LAST), 100) == Step(E.NONE, after), "a retry"
    assert machine.init(after, TIMEOUT_MS, Producer(7, EPOCH_LAST - 1), 100) == Step(E.PRODUCER_FENCED)


def test_the_epoch_of_a_fence_is_given_to_nobody() -> None:
    expected = Producer(7, EPOCH_LAST)
    _, after = machine.init(ongoing(epoch=EPOCH_LAST), TIMEOUT_MS, expected, 99)
    assert after.epoch == EPOCH_LAST + 1
    again = machine.init(after.completed(), TIMEOUT_MS, expected, 99).after
    assert again.producer == Producer(99, 0)
    assert machine.init(again, TIMEOUT_MS, expected, 100) == Step(E.NONE, again)
    assert machine.init(after.completed(), TIMEOUT_MS, None, 99).after.producer == Producer(99, 0)


# -- partitions and groups ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [State.EMPTY, State.COMPLETE_COMMIT, State.COMPLETE_ABORT])
def test_the_first_partition_begins_a_transaction(state: State) -> None:
    error, after = add(fresh(state=state, number=3), Producer(7, 0), P0)
    assert (error, after) == (E.NONE, ongoing(number=4, started_ms=5_000))


def test_more_partitions_and_groups_join_it() -> None:
    assert add(ongoing(), Producer(7, 0), P0) == Step(E.NONE), "it is there"
    after = add(ongoing(), Producer(7, 0), P1).after
    assert after == ongoing(partitions=frozenset({P0, P1}))
    after = machine.add(after, Producer(7, 0), NONE, frozenset({"g"}), 6_000, V1).after
    assert after == ongoing(partitions=frozenset({P0, P1}), groups=frozenset({"g"}))
    assert machine.add(after, Producer(7, 0), NONE, frozenset({"g"}), 6_000, V1) == Step(E.NONE)


def test_a_transaction_has_a_limited_number_of_groups() -> None:
    groups = frozenset(str(number) for number in range(machine.GROUPS_MAX))
    after = machine.add(ongoing(), Producer(7, 0), NONE, groups, 0, V1).after
    assert machine.add(after, Producer(7, 0), NONE, frozenset({"more"}), 0, V1) == Step(E.INVALID_REQUEST)


@pytest.mark.parametrize(
    ("known", "producer", "error"),
    [
        (None, Producer(7, 0), E.INVALID_PRODUCER_ID_MAPPING),
        (ongoing(), Producer(8, 0), E.INVALID_PRODUCER_ID_MAPPING),
        (ongoing(epoch=2), Producer(7, 1), E.PRODUCER_FENCED),
        (ongoing(epoch=2), Producer(7, 3), E.PRODUCER_FENCED),
        (prepared(), Producer(7, 0), E.CONCURRENT_TRANSACTIONS),
        (prepared(version=V2), Producer(7, 0), E.PRODUCER_FENCED),
        (prepared(version=V2), Producer(7, 1), E.CONCURRENT_TRANSACTIONS),
        (prepared(version=V2, of=ongoing(epoch=EPOCH_LAST)), Producer(99, 0), E.CONCURRENT_TRANSACTIONS),
        (prepared(version=V2, of=ongoing(epoch=EPOCH_LAST)), Producer(7, EPOCH_LAST), E.PRODUCER_FENCED),
    ],
)
def test_who_may_not_add(known: Transaction | None, producer: Producer, error: TxnError) -> None:
    assert add(known, producer, P1) == Step(error)
    assert machine.verify(known, producer, P0) is error
    assert machine.verify_group(known, producer, "g") is error


def test_what_is_verified() -> None:
    known = ongoing(groups=frozenset({"g"}))
    assert machine.verify(known, Producer(7, 0), P0) is E.NONE
    assert machine.verify(known, Producer(7, 0), P1) is E.TRANSACTION_ABORTABLE
    assert machine.verify(fresh(), Producer(7, 0), P0) is E.TRANSACTION_ABORTABLE
    assert machine.verify_group(known, Producer(7, 0), "g") is E.NONE
    assert machine.verify_group(known, Producer(7, 0), "h") is E.INVALID_TXN_STATE
    assert machine.verify_group(fresh(), Producer(7, 0), "g") is E.INVALID_TXN_STATE


# -- the end -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("commit", [True, False])
def test_version_1_ends_under_the_same_epoch(commit: bool) -> None:
    after = prepared(commit)
    state = State.PREPARE_COMMIT if commit else State.PREPARE_ABORT
    assert after == ongoing(state=state)
    for same, before, later in (
        (True, E.CONCURRENT_TRANSACTIONS, E.NONE),
        (False, E.INVALID_TXN_STATE, E.INVALID_TXN_STATE),
    ):
        asked = commit if same else not commit
        assert machine.end(after, Producer(7, 0), asked, V1, 99, 0) == Step(before)
        assert machine.end(after.completed(), Producer(7, 0), asked, V1, 99, 0) == Step(later)
    assert machine.end(after, Producer(7, 1), commit, V1, 99, 0) == Step(E.PRODUCER_FENCED)
    assert machine.end(fresh(), Producer(7, 0), commit, V1, 99, 0) == Step(E.INVALID_TXN_STATE)


@pytest.mark.parametrize("commit", [True, False])
def test_version_2_ends_under_the_next_epoch(commit: bool) -> None:
    after = prepared(commit, V2)
    assert (after.epoch, after.last_epoch, after.producer) == (1, 0, Producer(7, 1))
    done = after.completed()
    assert machine.end(after, Producer(7, 0), commit, V2, 99, 0) == Step(E.CONCURRENT_TRANSACTIONS), "a retry"
    assert machine.end(after, Producer(7, 0), not commit, V2, 99, 0) == Step(E.INVALID_TXN_STATE)
    assert machine.end(after, Producer(7, 1), commit, V2, 99, 0) == Step(E.PRODUCER_FENCED)
    assert machine.end(done, Producer(7, 0), commit, V2, 99, 0) == Step(E.NONE), "a retry"
    assert machine.end(done, Producer(7, 0), not commit, V2, 99, 0) == Step(E.INVALID_TXN_STATE)
    assert machine.end(done, Producer(7, 1), True, V2, 99, 0) == Step(E.INVALID_TXN_STATE), "none has begun"


def test_version_2_aborts_what_may_not_have_begun() -> None:
    for known in (fresh(), fresh(state=State.COMPLETE_COMMIT), fresh(state=State.COMPLETE_ABORT)):
        error, after = machine.end(known, Producer(7, 0), False, V2, 99, 8_000)
        assert (error, after.state, after.producer) == (E.NONE, State.COMPLETE_ABORT, Producer(7, 1))
        assert machine.end(after, Producer(7, 0), False, V2, 99, 0) == Step(E.NONE), "a retry"
        assert machine.end(known, Producer(7, 0), True, V2, 99, 0) == Step(E.INVALID_TXN_STATE)


def test_version_2_replaces_an_exhausted_producer_id() -> None:
    last = Producer(7, EPOCH_LAST)
    after = prepared(True, V2, ongoing(epoch=EPOCH_LAST))
    assert (after.producer_id, after.epoch, after.producer) == (7, EPOCH_LAST + 1, Producer(99, 0))
    assert machine.end(after, last, True, V2, 100, 0) == Step(E.CONCURRENT_TRANSACTIONS)
    assert machine.init(after, TIMEOUT_MS, Producer(99, 0), 100) == Step(E.CONCURRENT_TRANSACTIONS)
    done = after.completed()
    assert (done.producer, done.next_id, done.last_id) == (Producer(99, 0), NO_ID, 7)
    assert machine.end(done, last, True, V2, 100, 0) == Step(E.NONE)
    assert machine.end(done, last, False, V2, 100, 0) == Step(E.INVALID_TXN_STATE)
    assert machine.end(done, Producer(7, 3), True, V2, 100, 0) == Step(E.INVALID_PRODUCER_ID_MAPPING)
    assert add(done, Producer(99, 0), P1).error is E.NONE


def test_who_may_not_end_it() -> None:
    for version in (V1, V2):
        assert machine.end(None, Producer(7, 0), True, version, 99, 0) == Step(E.INVALID_PRODUCER_ID_MAPPING)
        assert machine.end(ongoing(), Producer(8, 0), True, version, 99, 0) == Step(E.INVALID_PRODUCER_ID_MAPPING)
        for epoch in (1, 3):
            known = ongoing(epoch=2, last_epoch=1)
            assert machine.end(known, Producer(7, epoch), True, version, 99, 0) == Step(E.PRODUCER_FENCED)
            empty = fresh(epoch=2, last_epoch=1)
            assert machine.end(empty, Producer(7, epoch), True, version, 99, 0) == Step(E.PRODUCER_FENCED)


def test_without_partitions_there_is_nothing_to_wait_for() -> None:
    known = ongoing(partitions=NONE, groups=frozenset({"g"}))
    after = machine.end(known, known.producer, True, V1, 99, 0).after
    assert (after.state, after.groups) == (State.COMPLETE_COMMIT, NONE)
    assert machine.init(known, TIMEOUT_MS, None, 99).after.state is State.COMPLETE_ABORT


def test_a_transaction_that_takes_too_long_is_aborted() -> None:
    known = ongoing(started_ms=1_000)
    assert machine.expire(known, 1_000 + TIMEOUT_MS - 1).after is None
    after = machine.expire(known, 1_000 + TIMEOUT_MS).after
    assert (after.state, after.epoch) == (State.PREPARE_ABORT, 1)
    assert machine.expire(after, 10**9).after is None
    for version in (V1, V2):
        for known in (after, after.completed()):
            for commit in (True, False):
                assert machine.end(known, Producer(7, 0), commit, version, 99, 0) == Step(E.PRODUCER_FENCED)


def test_errors_of_the_store() -> None:
    assert store_error(Fenced("")) is store_error(Closed("")) is E.NOT_COORDINATOR
    assert store_error(Unavailable("")) is store_error(OutcomeUnknown("")) is E.COORDINATOR_NOT_AVAILABLE


# -- any order of requests ---------------------------------------------------------------------------------------------


class Client:
    """A producer as it knows itself. It may be a zombie, and ask again for what it was answered."""

    def __init__(self, version: int) -> None:
        self.version = version
        self.producer: Producer | None = None
        self.is_open = False  # it has begun a transaction that it has not ended
        self.asked: tuple[Producer, bool] | None = None  # its last EndTxn


class World:
    """One transactional id, several clients, and what each decision was."""

    def __init__(self, start_epoch: int) -> None:
        self.known: Transaction | None = None
        self.start_epoch = start_epoch
        self.ids = iter(range(100, 10_000))
        self.decided: dict[int, bool] = {}
        self.producers: list[Producer] = []  # each that a client was told, in order
        self.now_ms = 0

    def take(self, step: Step, *, by: Producer | None = None) -> TxnError:
        """Make it durable. `by`: only the newest producer may change anything."""
        before, after = self.known, step.after
        if after is None:
            return step.error
        if before is not None:
            if by is not None:
                assert by == before.producer, "a producer that was fenced has changed something"
            assert before.state not in PREPARED, "a decision was changed before it was carried out"
            assert after.number - before.number in (0, 1)
            began = after.number > before.number
            assert began == (after.state is State.ONGOING and before.state is not State.ONGOING)
            assert (after.producer_id != before.producer_id) or after.epoch >= before.epoch
            assert after.producer_id == before.producer_id or before.is_exhausted
            assert 0 <= after.epoch <= EPOCH_LAST + 1
            ended = before.state is State.ONGOING and after.state is not State.ONGOING
            if ended:
                assert after.state is not State.EMPTY
                assert self.decided.setdefault(after.number, after.is_commit) == after.is_commit
        elif self.start_epoch:
            after = replace(after, epoch=self.start_epoch)
        self.known = after
        return step.error

    def tell(self, client: Client) -> None:
        assert self.known is not None
        client.producer = self.known.producer
        assert client.producer.epoch <= EPOCH_LAST
        self.producers.append(client.producer)

    def act(self, client: Client, what: str, flag: bool) -> None:
        mine = client.producer
        if what == "init" or mine is None:
            expected = mine if flag else None
            if self.take(machine.init(self.known, TIMEOUT_MS, expected, next(self.ids))) is E.NONE:
                self.tell(client)
                client.is_open = False
        elif what == "add":
            partition = P1 if flag else P0
            step = machine.add(self.known, mine, frozenset({partition}), NONE, self.now_ms, client.version)
            if self.take(step, by=mine) is E.NONE:
                assert self.known.includes(partition)
                assert machine.verify(self.known, mine, partition) is E.NONE
                client.is_open = True
        elif what == "end":
            if client.version == V1 and not client.is_open:
                return  # its client asks for nothing then
            known = self.known
            step = machine.end(known, mine, flag, client.version, next(self.ids), self.now_ms)
            if self.take(step, by=mine) is E.NONE:
                if client.is_open and step.after is not None:
                    assert self.decided[known.number] is flag
                if client.version == V2:
                    self.tell(client)
                client.is_open = False
                client.asked = (mine, flag)
        elif what == "end again" and client.asked:
            producer, commit = client.asked
            step = machine.end(self.known, producer, commit, client.version, next(self.ids), self.now_ms)
            if client.version == V2 or not client.is_open:
                self.no_second_answer(client, producer, commit, step)
        elif what == "complete" and self.known.state in PREPARED:
            self.known = self.known.completed()
        elif what == "wait":
            self.now_ms += TIMEOUT_MS // 2 if flag else TIMEOUT_MS
            self.take(machine.expire(self.known, self.now_ms))

    def no_second_answer(self, client: Client, producer: Producer, commit: bool, step: Step) -> None:
        """Of a request that was answered before: it changes nothing, and is told the same unless somebody came since.
        A first EndTxn of version 2 that had nothing to abort is the same as its retry."""
        if step.error is E.NONE and step.after is None and client.version == V2:
            assert self.known.producer == client.producer
            assert self.known.is_commit is commit
        assert step.after is None or (client.version == V1 and producer == self.known.producer)


requests = st.tuples(
    st.integers(0, 2),
    st.sampled_from(["init", "add", "add", "end", "end", "end again", "complete", "complete", "wait"]),
    st.booleans(),
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(requests, max_size=60),
    st.sampled_from([0, EPOCH_LAST - 2, EPOCH_LAST]),
    st.sampled_from([(V1, V1, V1), (V2, V2, V2), (V1, V2, V2)]),
)
def test_any_order_of_requests(story: list[tuple[int, str, bool]], start_epoch: int, versions: tuple[int, ...]) -> None:
    """What is decided stays decided; only the newest producer changes anything; no producer is given twice, but to
    those who ask again for their own."""
    world, clients = World(start_epoch), [Client(version) for version in versions]
    for who, what, flag in story:
        if world.known is None:
            what = "init"
        world.act(clients[who], what, flag)
        holders = [client for client in clients if client.producer == world.known.producer]
        assert len(holders) <= 1, "two clients have the same epoch"
