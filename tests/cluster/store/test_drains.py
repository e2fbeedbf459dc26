"""A WAL is drained by those to whom it was given, in parts; only the last one is told that it may be discarded."""

from collections.abc import Sequence

import pytest
from contracts.stream_metadata_contract import opened, upload
from sqlalchemy import select
from support.members import controller, fence

from streamlake.cluster.store import schema
from streamlake.cluster.store.drains import DrainPart, Drains, drains_of
from streamlake.cluster.store.membership import Membership
from streamlake.cluster.store.stream_metadata import SqlStreamMetadata, create_streams
from streamlake.cluster.store.wals import WalKey, Wals, all_wals
from streamlake.core.errors import Conflict, Fenced, Unavailable
from streamlake.s3stream.metadata import StreamRange

URI = "object+s3://bucket"
DEAD = 5


class World:
    """Node 5 is dead, with a WAL and open streams; node 0 is the controller, node 1 another broker."""

    def __init__(self, cluster) -> None:
        self.cluster = cluster
        self.database = cluster.database

    async def begin(self) -> "World":
        self.dead = await self.cluster.member(DEAD)
        self.wal = await Wals(self.database, self.dead.identity).adopt(URI, continues=False)
        self.streams = list(await self.database.write(lambda c: create_streams(c, 4)))
        self.epochs = [s.epoch for s in await opened(self.of(self.dead, self.wal), self.streams, [0] * 4)]
        self.members = [await self.cluster.member(node) for node in (0, 1)]
        self.term = await controller(self.members[0])
        return self

    def of(self, member: Membership, wal: WalKey | None, part: DrainPart | None = None) -> SqlStreamMetadata:
        return SqlStreamMetadata(self.database, member.identity, wal, part)

    def drains(self, node: int) -> Drains:
        return Drains(self.database, self.members[node].identity)

    async def give(self, *nodes: int) -> None:
        await self.drains(0).give(self.term, self.wal, [self.members[n].identity for n in nodes])

    async def owners(self) -> Sequence[int | None]:
        s = schema.stream.c
        query = select(s.owner).where(s.id.in_(self.streams)).order_by(s.id)
        return await self.database.read(lambda c: list(c.execute(query).scalars()))


@pytest.fixture
async def world(cluster) -> World:
    return await World(cluster).begin()


async def test_the_wal_of_a_life_that_may_run_is_not_given(world: World) -> None:
    with pytest.raises(Conflict, match="fence its epoch"):
        await world.give(0)
    assert await world.drains(0).mine() == []


async def test_parts_are_given_done_and_forgotten(world: World) -> None:
    await fence(world.members[0], DEAD)
    await world.give(0, 1)
    await world.give(0, 1)  # again, by a controller that did not get its answer
    (first,), (second,) = await world.drains(0).mine(), await world.drains(1).mine()
    assert (first, second) == (DrainPart(world.wal, 0, 2), DrainPart(world.wal, 1, 2))
    assert [first.has(i) or second.has(i) for i in world.streams] == [True] * 4
    assert not await world.drains(0).finish(first), "the other part still needs the WAL"
    assert await world.owners() == [None if first.has(i) else DEAD for i in world.streams]
    await world.drains(0).forget(world.wal)
    assert len(await all_wals(world.database)) == 1, "it is not drained"
    assert await world.drains(1).finish(second)
    assert await world.owners() == [None] * 4
    await world.drains(1).forget(world.wal)
    await world.drains(1).forget(world.wal)
    assert await all_wals(world.database) == [] == await world.database.read(drains_of)


async def test_the_end_of_a_part_may_be_told_again(world: World) -> None:
    """The answer to the first time may be lost: whoever told the last one has to discard the WAL all the same."""
    await fence(world.members[0], DEAD)
    await world.give(0, 1)
    (first,), (second,) = await world.drains(0).mine(), await world.drains(1).mine()
    assert [await world.drains(0).finish(first) for _ in range(2)] == [False, False]
    assert [await world.drains(1).finish(second) for _ in range(2)] == [True, True]
    assert await world.drains(0).finish(first), "two that discard it do no harm"
    await world.drains(1).forget(world.wal)
    with pytest.raises(Fenced, match="discarded"):
        await world.drains(0).finish(first)


async def test_a_part_is_given_anew_when_its_drainer_is_dead(world: World) -> None:
    await fence(world.members[0], DEAD)
    await world.give(0, 1)
    (part,) = await world.drains(1).mine()
    await world.give(0)
    assert await world.drains(1).mine() == [part], "it may run"
    await fence(world.members[0], 1)
    await world.give(0)
    assert await world.drains(0).mine() == [DrainPart(world.wal, 0, 2), part]
    with pytest.raises(Fenced):
        await world.drains(1).finish(part)


async def test_a_wal_that_nobody_discarded_is_given_anew(world: World) -> None:
    await fence(world.members[0], DEAD)
    await world.give(1)
    (part,) = await world.drains(1).mine()
    assert await world.drains(1).finish(part)
    await fence(world.members[0], 1)
    await world.give(0)
    assert await world.drains(0).mine() == [part]
    assert await world.drains(0).finish(part)


async def test_a_drain_that_lost_its_part_commits_nothing(world: World) -> None:
    """It lives, and only the row of its part says that another one has it."""
    await fence(world.members[0], DEAD)
    await world.give(1)
    (part,) = await world.drains(1).mine()
    old = world.of(world.members[1], None, part)
    world.members[1] = await world.cluster.member(1)
    world.members.append(await world.cluster.member(2))
    old._identity = world.members[2].identity
    before = await world.cluster.dump()
    with pytest.raises(Fenced, match="given to another broker"):
        await old.trim_wal(7)
    object_id = await old.prepare_object(1000)
    with pytest.raises(Fenced, match="given to another broker"):
        ranges = [StreamRange(world.streams[0], world.epochs[0], 0, 10)]
        await old.commit_object(object_id, 1, ranges, [], 0)
    after = await world.cluster.dump()
    assert (before["stream"], before["wal"]) == (after["stream"], after["wal"])


async def test_a_node_that_returned_keeps_what_it_opened_in_its_new_life(world: World) -> None:
    """The drain of its former life ends later: `release-newer-life`."""
    await fence(world.members[0], DEAD)
    await world.give(0)
    back = await world.cluster.member(DEAD)
    wal = await Wals(world.database, back.identity).adopt(URI, continues=False)
    with pytest.raises(Unavailable, match="belongs to epoch 1 of broker 5"):
        await opened(world.of(back, wal), world.streams[:1], [0])
    (other,) = await world.database.write(lambda c: create_streams(c, 1))
    await opened(world.of(back, wal), [other], [0])
    world.streams.append(other)
    (part,) = await world.drains(0).mine()
    await upload(world.of(world.members[0], None, part), StreamRange(world.streams[0], world.epochs[0], 0, 10))
    await world.drains(0).finish(part)
    assert await world.owners() == [None] * 4 + [DEAD]
    (state,) = await opened(world.of(back, wal), world.streams[:1], [10])
    assert state.epoch == world.epochs[0] + 1


async def test_a_node_takes_the_wals_of_its_former_lives_unless_they_were_given(world: World) -> None:
    back = await world.cluster.member(DEAD)
    ours = Drains(world.database, back.identity)
    await ours.claim_own([world.wal])
    assert await ours.mine() == [DrainPart(world.wal, 0, 1)]
    await world.give(0)
    assert await ours.mine() == [DrainPart(world.wal, 0, 1)]
    again = await world.cluster.member(DEAD)
    await world.give(0)
    await Drains(world.database, again.identity).claim_own([world.wal])
    assert await Drains(world.database, again.identity).mine() == []
    assert await world.drains(0).mine() == [DrainPart(world.wal, 0, 1)]


async def test_a_node_goes_on_with_what_its_former_lives_were_given(world: World) -> None:
    """Else it would serve, though it cannot read what it has to drain: a WAL on the disk of another machine."""
    back = await world.cluster.member(DEAD)
    await Drains(world.database, back.identity).claim_own([world.wal])
    again = await world.cluster.member(DEAD)
    await Drains(world.database, again.identity).claim_own([world.wal])
    assert await Drains(world.database, again.identity).mine() == [DrainPart(world.wal, 0, 1)]
    assert await Drains(world.database, back.identity).mine() == []


async def test_a_wal_that_goes_on_is_drained_by_nobody(world: World) -> None:
    """A node that was to be drained starts with its old configuration again."""
    node = await world.cluster.member(7)
    file = await Wals(world.database, node.identity).adopt("file:///data", continues=True)
    node = await world.cluster.member(7)
    drains = Drains(world.database, node.identity)
    await drains.claim_own([file])
    (part,) = await drains.mine()
    node = await world.cluster.member(7)
    await Wals(world.database, node.identity).adopt("file:///data", continues=True)
    assert [row.part for row in await world.database.read(drains_of)] == []
    with pytest.raises(Fenced):
        await world.of(node, None, part).trim_wal(1)


async def test_what_may_be_swept_lies_below_every_wal_that_is_listed(world: World) -> None:
    drains = world.drains(0)
    assert await drains.first_undrained(DEAD) == world.wal.epoch
    await fence(world.members[0], DEAD)
    back = await world.cluster.member(DEAD)
    await Wals(world.database, back.identity).adopt(URI, continues=False)
    assert await drains.first_undrained(DEAD) == world.wal.epoch, "the former life is not drained yet"
    await world.give(0)
    (part,) = await drains.mine()
    await drains.finish(part)
    assert await drains.first_undrained(DEAD) == world.wal.epoch
    await drains.forget(world.wal)
    assert await drains.first_undrained(DEAD) == back.identity.epoch


async def test_a_drain_that_is_done_again_adds_nothing_to_streams_of_others(world: World) -> None:
    """Found by simulation: on a shared disk a zombie had added records, which it never acknowledged, after the drain
    that gave its streams free. A second drain, as the answer to the first one was lost, found them."""
    await fence(world.members[0], DEAD)
    await world.give(1)
    (part,) = await world.drains(1).mine()
    await world.drains(1).finish(part)
    wal = await Wals(world.database, world.members[0].identity).adopt("object", continues=False)
    (state, _) = await opened(world.of(world.members[0], wal), world.streams[:2], [0, 0])
    await fence(world.members[0], 1)
    await world.give(0)
    again = world.of(world.members[0], None, part)
    assert await again.stream_states() == [], "nothing of it is to be drained"
    object_id = await again.prepare_object(1000)
    for stream_id, epoch in ((world.streams[0], state.epoch), (world.streams[2], world.epochs[2])):
        with pytest.raises(Fenced, match="do not belong to the lives whose WAL is drained"):
            await again.commit_object(object_id, 1, [StreamRange(stream_id, epoch, 0, 10)], [], 0)
