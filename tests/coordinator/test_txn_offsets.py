"""Offsets within transactions, on the real metadata store."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from streamlake.cluster.store.groups import OffsetRow
from streamlake.cluster.store.transactions import TransactionStore
from streamlake.coordinator.classic.api import GroupError, SyncRequest
from streamlake.coordinator.groups import Groups
from streamlake.coordinator.offsets import CommitRequest, Offsets
from streamlake.coordinator.settings import GroupSettings
from streamlake.coordinator.stored_transaction import row_of
from streamlake.coordinator.transaction import Producer, State, Transaction, TxnError
from streamlake.coordinator.txn_offsets import InTransaction, TxnOffsets
from streamlake.core.errors import Fenced, Unavailable

E, T = GroupError, TxnError
OPEN = Transaction(7, 3, 60_000, number=2, state=State.ONGOING, started_ms=1, groups=frozenset({"g"}))
PRODUCER = Producer(7, 3)


@dataclass
class Coordinators:
    """Of transactional ids: what they answer to a group that joins."""

    answer: TxnError = T.NONE
    asked: list[tuple[str, Producer, str]] = field(default_factory=list)

    async def join(self, *asked) -> TxnError:
        self.asked.append(asked)
        return self.answer


class Site:
    def __init__(self, metadata) -> None:
        self.metadata = metadata
        self.store = TransactionStore(metadata.database, metadata.identity, metadata.slots.stale.set)
        settings = GroupSettings(initial_rebalance_delay_ms=0)
        self.groups = Groups(metadata.groups, metadata.slots, metadata.clock, metadata.ids, settings)
        offsets = Offsets(self.groups, metadata.groups, metadata.clock, metadata.has_partition)
        self.coordinators = Coordinators()
        self.offsets = TxnOffsets(self.groups, offsets, self.store, self.coordinators.join)

    async def save(self, txn: Transaction) -> None:
        await self.store.save(row_of("t", txn, 0), self.metadata.slot("t"))

    async def commit(self, *rows: OffsetRow, member=("", None, -1), may_add: bool = False, group: str = "g"):
        within = InTransaction("t", PRODUCER, may_add)
        return list(await self.offsets.commit(CommitRequest(group, *member, rows or (row(5),)), within))

    async def pending(self, group: str = "g") -> set[tuple[str, int]]:
        return (await self.metadata.groups.fetch_with_pending(group))[1]


def row(offset: int, partition: int = 0, topic: str = "t", metadata: str = "") -> OffsetRow:
    return OffsetRow(topic, partition, offset, 3, metadata, 0)


@pytest.fixture
async def site(metadata) -> AsyncIterator[Site]:
    site = Site(metadata)
    await site.groups.start()
    yield site
    await site.groups.stop()


async def test_they_wait_for_the_decision(site, metadata) -> None:
    await site.save(OPEN)
    assert await site.commit(row(5), row(6, 1), row(7, 9), row(8, metadata="m" * 5_000)) == [
        E.NONE,
        E.NONE,
        E.UNKNOWN_TOPIC_OR_PARTITION,
        E.OFFSET_METADATA_TOO_LARGE,
    ]
    assert site.coordinators.asked == []
    assert await site.pending() == {("t", 0), ("t", 1)}
    assert [group.group_id for group in await metadata.stored_groups()] == ["g"], "else its offsets never expire"
    await site.store.decide(row_of("t", OPEN, 0), True, metadata.slot("t"))
    found = await metadata.groups.fetch_offsets("g")
    assert [(offset.partition, offset.offset, offset.commit_ms) for offset in found] == [
        (0, 5, metadata.clock.ms),
        (1, 6, metadata.clock.ms),
    ]


@pytest.mark.parametrize(
    ("txn", "error"),
    [
        (None, T.INVALID_PRODUCER_ID_MAPPING),
        (Transaction(8, 3, 1, state=State.ONGOING, groups=frozenset({"g"})), T.INVALID_PRODUCER_ID_MAPPING),
        (Transaction(7, 4, 1, state=State.ONGOING, groups=frozenset({"g"})), T.PRODUCER_FENCED),
        (Transaction(7, 3, 1, state=State.ONGOING), T.INVALID_TXN_STATE),
        (Transaction(7, 3, 1, state=State.COMPLETE_COMMIT), T.INVALID_TXN_STATE),
        (Transaction(7, 3, 1, state=State.PREPARE_COMMIT, groups=frozenset({"g"})), T.CONCURRENT_TRANSACTIONS),
    ],
)
async def test_what_is_not_open_takes_none(site, txn: Transaction | None, error: TxnError) -> None:
    if txn:
        await site.save(txn)
    assert await site.commit() == [error]
    assert await site.pending() == set()


async def test_the_group_joins_first_if_its_client_counts_on_it(site) -> None:
    await site.save(OPEN)
    assert await site.commit(may_add=True) == [E.NONE]
    assert site.coordinators.asked == [("t", PRODUCER, "g")]
    site.coordinators.answer = T.PRODUCER_FENCED
    assert await site.commit(row(9, 1), may_add=True) == [T.PRODUCER_FENCED]
    assert await site.pending() == {("t", 0)}


async def test_who_is_no_member_commits_nothing(site, join_request) -> None:
    await site.save(OPEN)
    joined = await site.groups.join(join_request(require_known_member_id=False))
    ours = (joined.member_id, None, joined.generation)
    assert await site.commit(member=ours) == [E.NONE], "also before the group has its assignment"
    await site.groups.sync(SyncRequest("g", joined.member_id, None, joined.generation, None, None, {}))
    assert await site.commit(member=ours) == [E.NONE]
    assert await site.commit(member=("other", None, joined.generation)) == [E.UNKNOWN_MEMBER_ID]
    assert await site.commit(member=(joined.member_id, None, joined.generation + 1)) == [E.ILLEGAL_GENERATION]
    assert await site.commit() == [E.NONE], "clients of before KIP-447 know the name of the group only"
    assert await site.commit(member=("m", None, 3), group="h") == [E.GROUP_ID_NOT_FOUND]


async def test_a_store_that_fails(site, monkeypatch) -> None:
    await site.save(OPEN)
    for error, told in ((Unavailable("away"), E.COORDINATOR_NOT_AVAILABLE), (Fenced("lost"), E.NOT_COORDINATOR)):

        async def fail(*_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(site.store, "add_offsets", fail)
        assert await site.commit() == [told]
    monkeypatch.undo()
    assert await site.commit() == [E.NONE]


async def test_a_group_that_cannot_be_stored_takes_none(site, metadata, monkeypatch) -> None:
    await site.save(OPEN)

    async def fail(*_: object) -> None:
        raise Unavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(metadata.groups, "save_group", fail)
        assert await site.commit() == [E.COORDINATOR_NOT_AVAILABLE]
    assert await site.pending() == set()
    assert await site.commit() == [E.NONE]
    assert [group.group_id for group in await metadata.stored_groups()] == ["g"]


async def test_who_does_not_have_the_group_touches_no_transaction(site, metadata, monkeypatch) -> None:
    await site.save(OPEN)
    monkeypatch.setattr(site.groups._held, "epochs", {})
    assert await site.commit(may_add=True) == [E.NOT_COORDINATOR]
    assert site.coordinators.asked == []
