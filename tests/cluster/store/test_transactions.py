from dataclasses import replace

import pytest
from support.members import next_process

from streamlake.cluster.slots import Slots
from streamlake.cluster.store import transactions as module
from streamlake.cluster.store.groups import GroupRow, GroupStore, OffsetRow
from streamlake.cluster.store.slots import SLOTS, SlotStore, assign, slot_of
from streamlake.cluster.store.transactions import TransactionStore, TxnRow
from streamlake.core.errors import Conflict, Fenced
from streamlake.core.ids import Ids

ROW = TxnRow("t-1", 7, 3, -1, 2, -1, 5, "Ongoing", 2, 60_000, 1_000, 1_500, b"\x00members")


def at(topic: str, partition: int, offset: int, **facts) -> OffsetRow:
    return OffsetRow(topic, partition, offset, **({"leader_epoch": -1, "metadata": "", "commit_ms": 5} | facts))


class Site:
    """A broker that has all slots."""

    def __init__(self, cluster, slots: Slots) -> None:
        self.cluster = cluster
        self.slots = slots
        self.ours = dict(slots.ours)
        self.store = TransactionStore(cluster.database, cluster.identity, slots.stale.set)
        self.groups = GroupStore(cluster.database, cluster.identity, slots.stale.set)

    async def save(self, row: TxnRow) -> None:
        await self.store.save(row, self.ours[slot_of(row.transactional_id)])

    async def decide(self, row: TxnRow, commit: bool) -> None:
        await self.store.decide(row, commit, self.ours[slot_of(row.transactional_id)])

    async def add(self, group_id: str, *offsets: OffsetRow, of: str = "t-1", check=lambda row: None) -> None:
        await self.store.add_offsets(of, group_id, offsets, self.ours[slot_of(group_id)], check)

    async def take_away(self, key: str) -> None:
        """Its slot is another broker's now."""
        await self.cluster.database.write(lambda connection: assign(connection, {slot_of(key): 9}))


@pytest.fixture
async def site(cluster) -> Site:
    topics = await cluster.topics()
    await topics.create("a", 3, {})
    await topics.create("b", 1, {})
    slots = Slots(SlotStore(cluster.database, cluster.identity), cluster.identity.node)
    await slots.take_free()
    return Site(cluster, slots)


async def test_rows_are_saved_whole_and_replaced(site) -> None:
    assert await site.store.get("t-1") is None
    await site.save(ROW)
    assert await site.store.get("t-1") == ROW
    newer = replace(ROW, epoch=4, state="Empty", members=b"")
    await site.save(newer)
    assert await site.store.get("t-1") == newer


async def test_rows_are_found_by_slot_state_and_producer(site) -> None:
    other = replace(ROW, transactional_id="t-2", producer_id=8, state="Empty")
    assert slot_of("t-1") != slot_of("t-2")
    await site.save(other)
    await site.save(ROW)
    assert await site.store.load(range(SLOTS)) == [ROW, other]
    assert await site.store.load(range(SLOTS), ["Ongoing", "PrepareAbort"]) == [ROW]
    assert await site.store.load([slot_of("t-2")]) == [other]
    assert await site.store.load([slot_of("t-2")], ["Ongoing"]) == []
    assert await site.store.of_producer(8) == other
    assert await site.store.of_producer(9) is None


async def test_offsets_are_pending_until_they_are_committed(site) -> None:
    await site.save(ROW)
    await site.groups.commit_offsets("g", [at("a", 0, 1)], site.ours[slot_of("g")])
    await site.add("g", at("a", 0, 6), at("b", 0, 7, leader_epoch=3, metadata="note"), at("gone", 0, 1))
    await site.add("g", at("a", 0, 8))
    assert await site.groups.fetch_with_pending("g") == ([at("a", 0, 1)], {("a", 0), ("b", 0)})
    assert await site.groups.fetch_offsets("g") == [at("a", 0, 1)]
    await site.decide(replace(ROW, state="PrepareCommit"), True)
    committed = [at("a", 0, 8), at("b", 0, 7, leader_epoch=3, metadata="note")]
    assert await site.groups.fetch_with_pending("g") == (committed, set())
    assert (await site.store.get("t-1")).state == "PrepareCommit"


async def test_offsets_that_a_transaction_is_to_replace_do_not_expire(site) -> None:
    """Should it abort, they are still what the group goes on from."""
    await site.save(ROW)
    slot = site.ours[slot_of("g")]
    await site.groups.commit_offsets("g", [at("a", 0, 1), at("a", 1, 1)], slot)
    await site.add("g", at("a", 0, 6))
    assert await site.groups.expire_offsets("g", 1_000, (), slot) == (1, False)
    assert await site.groups.fetch_with_pending("g") == ([at("a", 0, 1)], {("a", 0)})
    await site.groups.delete_offsets("g", [("a", 0)], slot)
    assert await site.groups.fetch_with_pending("g") == ([], {("a", 0)})
    assert not await site.groups.delete_group("g", slot, only_without_offsets=True)
    await site.decide(replace(ROW, state="CompleteCommit"), True)
    assert await site.groups.fetch_offsets("g") == [at("a", 0, 6)]


async def test_offsets_of_an_aborted_transaction_go(site) -> None:
    await site.save(ROW)
    await site.add("g", at("a", 0, 6))
    await site.decide(replace(ROW, state="PrepareAbort"), False)
    assert await site.groups.fetch_with_pending("g") == ([], set())


async def test_a_decision_commits_the_offsets_of_its_own_transaction_only(site) -> None:
    await site.save(ROW)
    await site.save(replace(ROW, transactional_id="t-2", producer_id=8))
    await site.add("g", at("a", 0, 6))
    await site.add("h", at("a", 0, 9))
    await site.add("g", at("a", 1, 3), of="t-2")
    await site.decide(replace(ROW, state="CompleteCommit"), True)
    assert await site.groups.fetch_with_pending("g") == ([at("a", 0, 6)], {("a", 1)})
    assert await site.groups.fetch_offsets("h") == [at("a", 0, 9)]


async def test_offsets_join_only_what_is_open(site) -> None:
    def refuse(row: TxnRow | None) -> None:
        if row is None or row.state != "Ongoing":
            raise Conflict("it is not open")

    with pytest.raises(Conflict, match="not open"):
        await site.add("g", at("a", 0, 6), check=refuse)
    await site.save(ROW)
    await site.add("g", at("a", 0, 6), check=refuse)
    await site.decide(replace(ROW, state="PrepareCommit"), True)
    with pytest.raises(Conflict, match="not open"):
        await site.add("g", at("a", 0, 7), check=refuse)
    assert await site.groups.fetch_with_pending("g") == ([at("a", 0, 6)], set())


async def test_pending_offsets_go_with_their_topic(site) -> None:
    topics = await site.cluster.topics()
    await site.save(ROW)
    await site.add("g", at("a", 0, 6), at("b", 0, 7))
    await topics.delete("a")
    assert await site.groups.fetch_with_pending("g") == ([], {("b", 0)})
    await site.decide(replace(ROW, state="PrepareCommit"), True)
    assert await site.groups.fetch_offsets("g") == [at("b", 0, 7)]


async def test_a_group_is_not_deleted_while_a_transaction_is_to_commit_its_offsets(site) -> None:
    slot = site.ours[slot_of("g")]
    row = GroupRow("g", 1, "", None, None, b"", 5)
    await site.groups.save_group(row, slot)
    await site.save(ROW)
    await site.add("g", at("a", 0, 6))
    assert await site.groups.delete_group("g", slot) is False
    assert await site.groups.load_groups([slot.slot]) == [row]
    await site.decide(replace(ROW, state="PrepareAbort"), False)
    assert await site.groups.delete_group("g", slot) is True
    assert await site.groups.load_groups([slot.slot]) == []


@pytest.mark.parametrize("what", ["save", "decide", "read back", "expire"])
async def test_who_has_lost_the_slot_of_the_id_writes_nothing(site, what: str) -> None:
    await site.save(replace(ROW, state="Empty"))
    await site.add("g", at("a", 0, 6))
    before = await site.cluster.dump()
    await site.take_away("t-1")
    slot = site.ours[slot_of("t-1")]
    with pytest.raises(Fenced):
        if what == "save":
            await site.save(replace(ROW, epoch=9))
        elif what == "decide":
            await site.decide(replace(ROW, epoch=9), True)
        elif what == "read back":
            await site.store.read_back("t-1", slot)
        else:
            await site.store.delete_expired([slot], ["Empty"], 10**9)
    after = await site.cluster.dump()
    assert all(before[table] == after[table] for table in ("txn", "txn_offset", "consumer_offset"))
    assert site.slots.stale.is_set()


async def test_who_has_lost_the_slot_of_the_group_adds_nothing(site) -> None:
    await site.save(ROW)
    await site.take_away("g")
    with pytest.raises(Fenced):
        await site.add("g", at("a", 0, 6))
    assert await site.groups.fetch_with_pending("g") == ([], set())


async def test_a_broker_that_was_taken_over_writes_nothing(site) -> None:
    await next_process(site.cluster.database, site.cluster.clock, Ids(8), site.cluster.identity.node)
    with pytest.raises(Fenced):
        await site.save(ROW)


async def test_what_is_read_back(site) -> None:
    slot = site.ours[slot_of("t-1")]
    assert await site.store.read_back("t-1", slot) is None
    await site.save(ROW)
    assert await site.store.read_back("t-1", slot) == ROW


async def test_ids_that_nobody_uses_are_forgotten(site, monkeypatch) -> None:
    monkeypatch.setattr(module, "EXPIRED_ROWS_MAX", 3)
    rows = [replace(ROW, transactional_id=f"e-{n}", state="Empty", updated_ms=100 + n) for n in range(6)]
    for row in [*rows, replace(ROW, updated_ms=100)]:
        await site.save(row)
    slots = list(site.ours.values())
    assert await site.store.delete_expired(slots, ["Empty", "CompleteCommit"], 104) == ["e-0", "e-1", "e-2"]
    assert await site.store.delete_expired(slots, ["Empty", "CompleteCommit"], 104) == ["e-3", "e-4"]
    assert await site.store.delete_expired(slots, ["Empty", "CompleteCommit"], 104) == []
    assert [row.transactional_id for row in await site.store.load(range(SLOTS))] == ["e-5", "t-1"]
