"""What operators ask for is a row that survives whoever took it; what cannot be is refused, and changes nothing."""

from dataclasses import dataclass
from typing import Any

import pytest
from contracts.stream_metadata_contract import opened
from support.members import controller, fence

from streamlake.cluster.store.administration import Administration, Move, Placed, pinned_partitions
from streamlake.cluster.store.membership import Membership
from streamlake.cluster.store.schema import DRAINING, LEFT, SERVING
from streamlake.cluster.store.slots import SLOTS, SlotStore
from streamlake.cluster.store.stream_metadata import SqlStreamMetadata
from streamlake.cluster.topics import TopicInfo, Topics
from streamlake.core.errors import Fenced, Invalid, NotFound


@dataclass
class World:
    """Nodes 0 to 2 serve; a topic with three partitions, of which node 0 has opened the first."""

    cluster: Any
    members: list[Membership]
    topics: Topics
    topic: TopicInfo

    def by(self, node: int) -> Administration:
        return Administration(self.cluster.database, self.members[node].identity)

    async def brokers(self) -> dict[int, tuple[str, bool, bool]]:
        return {b.node: (b.state, b.drained, b.is_available) for b in await self.members[0].brokers()}

    async def nodes(self) -> list[int | None]:
        await self.topics.refresh()
        topic = self.topics.get("t")
        assert topic is not None
        return [p.node for p in topic.partitions]

    async def open(self, index: int, node: int) -> None:
        member = self.members[node]
        metadata = SqlStreamMetadata(self.cluster.database, member.identity, await self.cluster.adopt(member.identity))
        await opened(metadata, [self.topic.partitions[index].stream_id], [0])


@pytest.fixture
async def world(cluster) -> World:
    members = [await cluster.member(node) for node in range(3)]
    for member in members:
        await member.serve()
    topics = await cluster.topics(members[0].identity)
    made = World(cluster, members, topics, await topics.create("t", 3, {}))
    await made.open(0, 0)
    return made


# -- drains ------------------------------------------------------------------------------------------------------------


async def test_a_node_that_is_drained_stays_so_until_it_is_told(world: World) -> None:
    await world.by(0).drain(1)
    await world.by(2).drain(1)
    assert (await world.brokers())[1] == (SERVING, True, False)
    world.members[1] = await world.cluster.member(1)
    await world.members[1].serve()
    assert (await world.brokers())[1] == (SERVING, True, False), "a restart changes nothing"
    await world.by(0).undrain(1)
    assert (await world.brokers())[1] == (SERVING, False, True)


async def test_a_drain_until_the_restart(world: World) -> None:
    await world.by(0).drain(1, until_restart=True)
    await world.by(0).drain(1, until_restart=True)
    assert (await world.brokers())[1] == (DRAINING, False, False)
    world.members[1] = await world.cluster.member(1)
    await world.members[1].serve()
    assert (await world.brokers())[1] == (SERVING, False, True)
    await world.by(0).drain(1, until_restart=True)
    await world.by(0).undrain(1)
    assert (await world.brokers())[1] == (SERVING, False, True)


async def test_a_broker_that_is_gone_is_not_called_back(world: World) -> None:
    await world.members[1].leave()
    await world.by(0).drain(1, until_restart=True)
    await world.by(0).undrain(1)
    assert (await world.brokers())[1] == (LEFT, False, False)


@pytest.mark.parametrize("until_restart", [True, False])
async def test_the_last_broker_cannot_be_drained(world: World, until_restart: bool) -> None:
    await world.by(0).drain(0)
    await world.members[2].leave()
    before = await world.cluster.dump()
    with pytest.raises(Invalid, match="no other broker is there"):
        await world.by(0).drain(1, until_restart=until_restart)
    assert await world.cluster.dump() == before
    await world.by(0).undrain(0)
    await world.by(0).drain(1, until_restart=until_restart)


async def test_nodes_that_are_not_there(world: World) -> None:
    for asked in (world.by(0).drain(7), world.by(0).undrain(7)):
        with pytest.raises(NotFound, match="no broker 7: the cluster has 0, 1, 2"):
            await asked


async def test_a_zombie_administers_nothing(world: World) -> None:
    zombie = world.by(1)
    await world.cluster.member(1)
    before = await world.cluster.dump()
    for asked in (zombie.drain(2), zombie.undrain(2), zombie.move({(world.topic.id, 0): 2})):
        with pytest.raises(Fenced):
            await asked
    assert await world.cluster.dump() == before


async def test_new_topics_and_free_slots_pass_a_drained_node_by(world: World) -> None:
    await world.by(0).drain(1)
    more = await world.topics.create("more", 4, {})
    assert [p.node for p in more.partitions] == [0, 2, 0, 2]
    drained, other = [SlotStore(world.cluster.database, world.members[node].identity) for node in (1, 2)]
    assert await drained.take_free() == 0
    assert await other.take_free() == SLOTS


# -- moves -------------------------------------------------------------------------------------------------------------


async def test_a_partition_is_under_way_until_its_owner_gives_it_up(world: World) -> None:
    before = await world.nodes()
    revision = world.topics.revision
    await world.by(1).move({(world.topic.id, 0): 2, (world.topic.id, 1): 0})
    assert await world.nodes() == [2, 0, before[2]]
    assert world.topics.revision == revision + 1, "others notice it"
    assert await world.by(0).moves() == [Move(world.topic.id, 0, 0, 2)], "nobody has the other one open"
    await world.open(1, 0)
    assert await world.by(0).moves() == [Move(world.topic.id, 0, 0, 2)]


async def test_a_move_can_be_cancelled_as_long_as_it_is_under_way(world: World) -> None:
    key, other = (world.topic.id, 0), (world.topic.id, 1)
    await world.by(1).move({key: 2})
    assert await world.by(1).cancel({key, other}) == {key}
    assert (await world.nodes())[0] == 0
    assert await world.by(1).moves() == []
    assert await world.by(1).cancel({key}) == set()


async def test_a_partition_that_was_moved_stays_until_the_controller_moves_it(world: World) -> None:
    key = (world.topic.id, 0)
    await world.by(1).move({key: 2, (world.topic.id, 99): 2})
    assert await world.cluster.database.read(pinned_partitions) == {key}
    term = await controller(world.members[0])
    await world.topics.assign(term, {key: 1})  # by a picture of before the move
    assert await world.cluster.database.read(pinned_partitions) == {key}
    await world.topics.refresh()
    await world.topics.assign(term, {key: 1})
    assert await world.cluster.database.read(pinned_partitions) == set()
    await world.by(1).move({key: 2})
    await world.by(1).cancel({key})
    assert await world.cluster.database.read(pinned_partitions) == set()


@pytest.mark.parametrize("why", ["not there", "drained", "left", "draining"])
async def test_where_a_partition_cannot_go(world: World, why: str) -> None:
    node = 9 if why == "not there" else 2
    if why == "drained":
        await world.by(0).drain(2)
    elif why == "left":
        await world.members[2].leave()
    elif why == "draining":
        await world.members[2].drain()
    before = await world.cluster.dump()
    with pytest.raises(Invalid, match=f"broker {node} is {why}"):
        await world.by(0).move({(world.topic.id, 0): 1, (world.topic.id, 1): node})
    assert await world.cluster.dump() == before


async def test_nothing_to_move_is_no_change(world: World) -> None:
    before = await world.cluster.dump()
    await world.by(0).move({})
    assert await world.cluster.dump() == before


# -- status ------------------------------------------------------------------------------------------------------------


async def test_what_each_broker_has(world: World) -> None:
    await SlotStore(world.cluster.database, world.members[0].identity).take_free()
    await world.by(0).move({(world.topic.id, 0): 2, (world.topic.id, 1): 1, (world.topic.id, 2): 2})
    status = await world.by(1).status()
    epoch = world.members[0].identity.epoch
    expected = {Placed(2, 0, epoch, 1), Placed(1, None, 0, 1), Placed(2, None, 0, 1)}
    assert set(status.placed) == expected and len(status.placed) == 3
    assert [status.assigned(node) for node in range(3)] == [0, 1, 2]
    assert [status.owned(node) for node in range(3)] == [1, 0, 0]
    assert [status.is_empty(node) for node in range(3)] == [False, False, False]
    assert status.slots == {0: SLOTS}
    assert sorted(status.view.brokers) == [0, 1, 2]
    await fence(world.members[1], 0)
    assert not (await world.by(1).status()).is_empty(0), "its WAL has the last records of a partition"
