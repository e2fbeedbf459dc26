import asyncio

import pytest
from support.members import fence, next_process

from streamlake.cluster.store.fences import BrokerIdentity
from streamlake.cluster.store.groups import GroupStore, OffsetRow
from streamlake.cluster.store.membership import Membership
from streamlake.cluster.store.migrations.versions import v0007_slots
from streamlake.cluster.store.slots import SLOTS, SlotRow, SlotStore, assign, slot_of
from streamlake.core.errors import Fenced
from streamlake.core.ids import Ids

ALL = list(range(SLOTS))


def test_the_slot_of_a_group_never_changes() -> None:
    """`consumer_group.slot` has it, and so have the rows of clusters that run."""
    assert [slot_of(group_id) for group_id in ("", "123456789", "orders", "grüße")] == [0, 131, 138, 48]
    assert v0007_slots.SLOTS == SLOTS


def test_groups_spread_over_all_slots() -> None:
    counts = [0] * SLOTS
    for number in range(SLOTS * 100):
        counts[slot_of(f"consumers-{number}")] += 1
    assert min(counts) > 50
    assert max(counts) < 200


class Brokers:
    """Processes of several nodes on one store."""

    def __init__(self, database, clock) -> None:
        self.database = database
        self.clock = clock

    async def start(self, node: int) -> tuple[Membership, SlotStore]:
        membership = await next_process(self.database, self.clock, Ids(node), node)
        return membership, SlotStore(self.database, membership.identity)

    async def assign(self, nodes: dict[int, int]) -> None:
        await self.database.write(lambda connection: assign(connection, nodes))

    async def holders(self) -> dict[int, int]:
        """Slots of each node."""
        _, rows = await SlotStore(self.database, BrokerIdentity("", 0, 0)).load()
        counts: dict[int, int] = {}
        for row in rows:
            counts[row.node] = counts.get(row.node, 0) + 1
        return counts


@pytest.fixture
def brokers(database, clock) -> Brokers:
    return Brokers(database, clock)


async def test_the_first_broker_takes_all_slots(brokers) -> None:
    _, store = await brokers.start(3)
    revision, rows = await store.load()
    assert rows == []
    assert await store.take_free() == SLOTS
    later, rows = await store.load()
    assert rows == [SlotRow(slot, 3, 1) for slot in ALL]
    assert later == revision + 1, "others see by the revision that something has changed"


async def test_a_second_one_leaves_them_to_the_living(brokers) -> None:
    await (await brokers.start(0))[1].take_free()
    _, store = await brokers.start(1)
    before = await store.load()
    assert await store.take_free() == 0
    assert await store.load() == before, "and no image is read again for nothing"


async def test_a_broker_that_returns_goes_on_with_its_slots(brokers) -> None:
    """Its former process is fenced by the epoch of the node."""
    _, store = await brokers.start(0)
    await store.take_free()
    before = await store.load()
    _, again = await brokers.start(0)
    assert await again.take_free() == 0
    assert await again.load() == before


async def test_slots_of_who_left_or_was_fenced_are_taken(brokers) -> None:
    memberships = {}
    for node in (0, 1, 2):
        memberships[node], store = await brokers.start(node)
        await store.take_free()
    await brokers.assign({slot: slot % 3 for slot in ALL})
    await memberships[0].leave()
    await fence(memberships[2], 1)
    _, store = await brokers.start(5)
    assert await store.take_free() == sum(slot % 3 < 2 for slot in ALL)
    _, rows = await store.load()
    assert rows == [SlotRow(s, 2, 2) if s % 3 == 2 else SlotRow(s, 5, 3) for s in ALL]


async def test_brokers_that_start_at_once_take_each_slot_once(brokers) -> None:
    stores = [(await brokers.start(node))[1] for node in range(4)]
    taken = await asyncio.gather(*[store.take_free() for store in stores])
    assert sorted(taken) == [0, 0, 0, SLOTS]
    _, rows = await stores[0].load()
    assert {row.epoch for row in rows} == {1}


async def test_each_assignment_is_another_epoch(brokers) -> None:
    _, store = await brokers.start(0)
    await brokers.assign({7: 0})
    await brokers.assign({7: 1, 9: 1})
    await brokers.assign({7: 1})
    assert (await store.load())[1] == [SlotRow(7, 1, 3), SlotRow(9, 1, 1)]
    before = await store.load()
    await brokers.assign({})
    assert await store.load() == before


async def test_a_zombie_takes_nothing(brokers) -> None:
    _, old = await brokers.start(0)
    await brokers.start(0)
    with pytest.raises(Fenced):
        await old.take_free()
    assert await brokers.holders() == {}


async def test_who_lost_a_slot_writes_nothing_of_its_groups(brokers, cluster) -> None:
    """Both brokers live: only the epoch of the slot tells them apart."""
    await (await cluster.topics()).create("t", 1, {})
    fenced = []
    first, first_slots = await brokers.start(0)
    second, second_slots = await brokers.start(1)
    old = GroupStore(brokers.database, first.identity, lambda: fenced.append(0))
    new = GroupStore(brokers.database, second.identity, lambda: fenced.append(1))
    slot = slot_of("g")
    await brokers.assign({slot: 0})
    (held,) = [row.fence for row in (await first_slots.load())[1]]
    await old.commit_offsets("g", [OffsetRow("t", 0, 1, -1, "", 0)], held)
    await brokers.assign({slot: 1})
    before = await cluster.dump()
    for attempt in (
        lambda: old.commit_offsets("g", [OffsetRow("t", 0, 2, -1, "", 0)], held),
        lambda: old.delete_group("g", held),
    ):
        with pytest.raises(Fenced, match=rf"slot {slot} was assigned again: its epoch is 2"):
            await attempt()
    assert await cluster.dump() == before
    assert fenced == [0, 0]
    (taken,) = [row.fence for row in (await second_slots.load())[1]]
    await new.commit_offsets("g", [OffsetRow("t", 0, 3, -1, "", 0)], taken)
    assert [row.offset for row in await old.fetch_offsets("g")] == [3], "any broker reads them"
    assert fenced == [0, 0]
