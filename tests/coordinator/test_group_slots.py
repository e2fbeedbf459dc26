"""Groups whose slots come and go: two brokers that both live, of which one has the slot of a group."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest
from coordinator.test_consumer_members import heartbeat
from hypothesis import given, settings
from hypothesis import strategies as st
from support.members import next_process
from support.wait import DEADLINE_S, turns, until

from streamlake.cluster.slots import Slots
from streamlake.cluster.store.database import Database
from streamlake.cluster.store.groups import GroupStore, OffsetRow
from streamlake.cluster.store.slots import SlotStore, assign, slot_of
from streamlake.cluster.topics import Topics
from streamlake.coordinator import held_slots
from streamlake.coordinator.classic.api import GroupError, JoinRequest, LeavingMember, SyncRequest
from streamlake.coordinator.consumer.api import HeartbeatAnswer
from streamlake.coordinator.groups import Groups
from streamlake.coordinator.offsets import CommitRequest, Offsets
from streamlake.coordinator.settings import GroupSettings
from streamlake.core.clock import SystemClock
from streamlake.core.errors import Fenced, Unavailable
from streamlake.core.ids import Ids
from streamlake.core.tasks import InlineExecutor

E = GroupError
QUICK = GroupSettings(initial_rebalance_delay_ms=0, session_timeout_min_ms=1)
SLOT = slot_of("g")
ELSEWHERE = next(f"h{n}" for n in range(1_000) if slot_of(f"h{n}") != SLOT)


def member_of(group_id: str = "g", member_id: str = "", session_ms: int = 600_000) -> JoinRequest:
    protocols = (("range", b"r"),)
    timeouts = session_ms, session_ms
    return JoinRequest(group_id, member_id, None, "c", "/127.0.0.1", *timeouts, "consumer", protocols, False, True)


def alone(offset: int, group_id: str = "g") -> CommitRequest:
    return CommitRequest(group_id, "", None, -1, [OffsetRow("t", 0, offset, -1, "", 0)])


@dataclass
class Coordinator:
    """One broker."""

    node: int
    store: GroupStore
    slots: Slots
    groups: Groups
    offsets: Offsets

    async def member(self, group_id: str = "g") -> tuple[str, int]:
        """A stable group of one member, which gets all."""
        joined = await self.groups.join(member_of(group_id))
        assert joined.error is E.NONE
        sync = SyncRequest(
            group_id, joined.member_id, None, joined.generation, "consumer", "range", {joined.member_id: b"all"}
        )
        assert (await self.groups.sync(sync)).error is E.NONE
        return joined.member_id, joined.generation

    async def commit(self, offset: int, group_id: str = "g") -> GroupError:
        (result,) = await self.offsets.commit(alone(offset, group_id))
        return result

    async def loaded(self) -> None:
        await until(lambda: self.groups.list() is not E.COORDINATOR_LOAD_IN_PROGRESS, 0)


class Site:
    def __init__(self, database: Database) -> None:
        self.database = database
        self.clock = SystemClock()
        self.coordinators: list[Coordinator] = []

    async def start(self, node: int) -> Coordinator:
        identity = (await next_process(self.database, self.clock, Ids(node), node)).identity
        slots = Slots(SlotStore(self.database, identity), node)
        await slots.take_free()
        store = GroupStore(self.database, identity, slots.stale.set)
        groups = Groups(store, slots, self.clock, Ids(node), QUICK)
        offsets = Offsets(groups, store, self.clock, lambda topic, partition: True)
        await groups.start()
        self.coordinators.append(Coordinator(node, store, slots, groups, offsets))
        return self.coordinators[-1]

    async def assign(self, to: Coordinator, *told: Coordinator) -> None:
        """The slot of group g; `told` have heard of it."""
        await self.database.write(lambda connection: assign(connection, {SLOT: to.node}))
        for coordinator in told:
            await coordinator.slots.refresh()

    async def stop(self) -> None:
        for coordinator in self.coordinators:
            await coordinator.groups.stop()
        await self.database.close()


async def opened(nodes: int) -> Site:
    """The first one has all slots."""
    database = await Database.open("sqlite://", InlineExecutor(), SystemClock())
    site = Site(database)
    for node in range(nodes):
        await site.start(node)
    identity = (await next_process(database, site.clock, Ids(99), 99)).identity
    topics = Topics(database, identity, site.clock, Ids(99))
    await topics.refresh()
    await topics.create("t", 1, {})
    return site


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = await opened(nodes=2)
    yield site
    await site.stop()


# -- who is not the coordinator ----------------------------------------------------------------------------------------


async def test_who_does_not_have_the_slot_says_so(site) -> None:
    _, other = site.coordinators
    groups = other.groups
    assert (await groups.join(member_of())).error is E.NOT_COORDINATOR
    assert (await groups.join(member_of(member_id="m"))).error is E.NOT_COORDINATOR
    assert (await groups.sync(SyncRequest("g", "m", None, 1, None, None, {}))).error is E.NOT_COORDINATOR
    assert groups.heartbeat("g", "m", None, 1) is E.NOT_COORDINATOR
    assert await groups.leave("g", [LeavingMember("m", None)]) == (E.NOT_COORDINATOR, [])
    assert groups.describe("g") is E.NOT_COORDINATOR
    assert await groups.delete(["g"]) == {"g": E.NOT_COORDINATOR}
    assert await other.commit(1) is E.NOT_COORDINATOR
    assert await other.offsets.delete("g", [("t", 0)]) == (E.NOT_COORDINATOR, [])
    assert (await other.offsets.commit(CommitRequest("g", "m", None, 3, [])), groups.list()) == ([], [])
    assert (await groups.join(member_of(""))).error is E.INVALID_GROUP_ID
    assert groups.heartbeat("", "m", None, 1) is E.INVALID_GROUP_ID


async def test_any_broker_reads_committed_offsets(site) -> None:
    ours, other = site.coordinators
    assert await ours.commit(7) is E.NONE
    assert [row.offset for row in await other.offsets.fetch("g")] == [7]


# -- a slot that moves -------------------------------------------------------------------------------------------------


async def test_a_stable_group_goes_on_at_its_new_coordinator(site) -> None:
    old, new = site.coordinators
    member_id, generation = await old.member()
    await site.assign(new, old, new)
    await new.loaded()
    assert old.groups.heartbeat("g", member_id, None, generation) is E.NOT_COORDINATOR
    assert new.groups.heartbeat("g", member_id, None, generation) is E.NONE
    commit = CommitRequest("g", member_id, None, generation, [OffsetRow("t", 0, 5, -1, "", 0)])
    assert await new.offsets.commit(commit) == [E.NONE]
    assert [[listed.group_id for listed in c.groups.list()] for c in (old, new)] == [[], ["g"]]
    assert (len(old.groups), old.groups.metadata_bytes, old.groups.member_count) == (0, 0, 0)


async def test_other_slots_stay_where_they_are(site) -> None:
    old, new = site.coordinators
    here, there = await old.member(ELSEWHERE), await old.member()
    await site.assign(new, old, new)
    await new.loaded()
    assert old.groups.heartbeat(ELSEWHERE, here[0], None, here[1]) is E.NONE
    assert new.groups.heartbeat(ELSEWHERE, here[0], None, here[1]) is E.NOT_COORDINATOR
    assert new.groups.heartbeat("g", there[0], None, there[1]) is E.NONE


async def test_requests_that_wait_are_answered_when_the_slot_is_lost(site) -> None:
    old, new = site.coordinators
    await old.member()
    waiting = asyncio.create_task(old.groups.join(member_of()))  # until the first one joins again
    await asyncio.sleep(0)
    assert not waiting.done()
    await site.assign(new, old)
    assert (await waiting).error is E.NOT_COORDINATOR
    assert len(old.groups) == 0


async def test_a_broker_that_does_not_know_its_loss_writes_nothing_and_learns_of_it(site) -> None:
    old, new = site.coordinators
    member_id, generation = await old.member()
    assert await old.commit(1, ELSEWHERE) is E.NONE
    await site.assign(new, new)
    await new.loaded()
    commit = CommitRequest("g", member_id, None, generation, [OffsetRow("t", 0, 5, -1, "", 0)])
    assert await old.offsets.commit(commit) == [E.NOT_COORDINATOR]
    assert old.slots.stale.is_set()
    joined = await old.groups.join(member_of(member_id=member_id))  # it leads, so the group rebalances
    sync = SyncRequest("g", member_id, None, joined.generation, "consumer", "range", {member_id: b"all"})
    assert (await old.groups.sync(sync)).error is E.NOT_COORDINATOR
    assert new.groups.heartbeat("g", member_id, None, generation) is E.NONE
    assert await new.offsets.commit(commit) == [E.NONE]
    assert await old.commit(2, ELSEWHERE) is E.NONE, "its other slots are its own"


async def test_offsets_go_at_the_word_of_the_coordinator_only(site) -> None:
    """One that does not know that it lost the slot sees the group empty, and its offsets old: they are in use."""
    old, new = site.coordinators
    assert await old.commit(1) is E.NONE
    old.groups.settings = replace(QUICK, offsets_retention_ms=0)
    await site.assign(new, new)
    await new.loaded()
    await new.member()
    with pytest.raises(Fenced):
        await old.groups.expire()
    assert await old.offsets.delete("g", [("t", 0)]) == (E.NOT_COORDINATOR, [])
    assert [row.offset for row in await new.offsets.fetch("g")] == [1]
    assert old.slots.stale.is_set()


async def test_who_gets_a_slot_back_reads_its_groups_again(site) -> None:
    """It missed that another one had the slot: what it remembers of the group is old."""
    old, new = site.coordinators
    first, generation = await old.member()
    await site.assign(new, new)
    await new.loaded()
    await new.groups.leave("g", [LeavingMember(first, None)])
    second, later = await new.member()
    assert later > generation
    await site.assign(old, old, new)
    await old.loaded()
    assert old.groups.heartbeat("g", first, None, generation) is E.UNKNOWN_MEMBER_ID
    assert old.groups.heartbeat("g", second, None, later) is E.NONE
    assert await old.groups.delete(["g"]) == {"g": E.NON_EMPTY_GROUP}


async def test_a_save_that_is_under_way_when_the_slot_is_lost_ends_by_itself(site, monkeypatch) -> None:
    old, new = site.coordinators
    gate, save = asyncio.Event(), old.store.save_group

    async def slow(row, slot) -> None:
        await gate.wait()
        await save(row, slot)

    monkeypatch.setattr(old.store, "save_group", slow)
    joined = await old.groups.join(member_of())
    sync = SyncRequest("g", joined.member_id, None, joined.generation, "consumer", "range", {joined.member_id: b"x"})
    waiting = asyncio.create_task(old.groups.sync(sync))
    await asyncio.sleep(0)
    await site.assign(new, old, new)
    await new.loaded()
    assert (await waiting).error is E.NOT_COORDINATOR
    gate.set()
    await until(lambda: old.groups.failed_saves)
    assert len(old.groups) == 0
    assert old.groups.metadata_bytes == 0
    assert new.groups.describe("g") is E.GROUP_ID_NOT_FOUND


async def test_a_deletion_that_loses_its_slot_brings_nothing_back(site, monkeypatch) -> None:
    old, new = site.coordinators
    assert await old.commit(1) is E.NONE
    gate, delete = asyncio.Event(), old.store.delete_group

    async def slow(*args) -> bool:
        await gate.wait()
        return await delete(*args)

    monkeypatch.setattr(old.store, "delete_group", slow)
    deletion = asyncio.create_task(old.groups.delete(["g"]))
    await asyncio.sleep(0)
    await site.assign(new, old, new)
    await new.loaded()
    gate.set()
    assert await deletion == {"g": E.NOT_COORDINATOR}
    assert old.groups.describe("g") is E.NOT_COORDINATOR
    assert new.groups.describe("g").state == "Empty"
    assert [row.offset for row in await new.offsets.fetch("g")] == [1]


async def test_a_deletion_that_waits_behind_a_save_while_the_slot_is_lost(site, monkeypatch) -> None:
    old, new = site.coordinators
    assert await old.commit(1) is E.NONE
    entry = old.groups._entries["g"]
    await entry.lock.acquire()
    deletion = asyncio.create_task(old.groups.delete(["g"]))
    await asyncio.sleep(0)
    await site.assign(new, old, new)
    entry.lock.release()
    assert await deletion == {"g": E.NOT_COORDINATOR}


# -- loading -----------------------------------------------------------------------------------------------------------


async def test_until_its_groups_are_read_a_coordinator_asks_for_patience(site, monkeypatch) -> None:
    old, new = site.coordinators
    member_id, generation = await old.member()
    load, gate, failures = new.store.load_groups, asyncio.Event(), [Unavailable("down")] * 2
    monkeypatch.setattr(held_slots, "LOAD_RETRY_S", 0)

    async def slow(slots):
        await gate.wait()
        if failures:
            raise failures.pop()
        return await load(slots)

    monkeypatch.setattr(new.store, "load_groups", slow)
    await site.assign(new, old, new)
    loading = E.COORDINATOR_LOAD_IN_PROGRESS
    assert new.groups.heartbeat("g", member_id, None, generation) is loading
    assert (await new.groups.join(member_of())).error is loading
    assert await new.commit(1) is loading
    assert new.groups.describe("g") is loading
    assert new.groups.list() is loading
    assert await new.groups.delete(["g"]) == {"g": loading}
    assert new.groups.heartbeat(ELSEWHERE, "m", None, 1) is E.NOT_COORDINATOR
    gate.set()
    await new.loaded()
    assert new.groups.heartbeat("g", member_id, None, generation) is E.NONE


async def test_a_slot_that_is_lost_while_its_groups_are_read(site, monkeypatch) -> None:
    """And gained again: the first answer is of an epoch that is over."""
    old, new = site.coordinators
    await old.member()
    load, gates = new.store.load_groups, [asyncio.Event(), asyncio.Event()]
    asked = iter(gates)

    async def slow(slots):
        gate = next(asked)
        rows = await load(slots)
        await gate.wait()
        return rows

    monkeypatch.setattr(new.store, "load_groups", slow)
    await site.assign(new, old, new)
    await asyncio.sleep(0)
    await site.assign(old, old, new)
    await old.loaded()
    second, generation = await rejoined(old)
    await site.assign(new, old, new)
    gates[0].set()
    await turns()
    assert new.groups.describe("g") is E.COORDINATOR_LOAD_IN_PROGRESS
    gates[1].set()
    await new.loaded()
    assert new.groups.heartbeat("g", second, None, generation) is E.NONE


async def rejoined(coordinator: Coordinator) -> tuple[str, int]:
    """All members leave, and another one joins."""
    described = coordinator.groups.describe("g")
    await coordinator.groups.leave("g", [LeavingMember(m.member_id, None) for m in described.members])
    return await coordinator.member()


async def test_after_a_stop_nothing_follows_the_slots(site) -> None:
    old, new = site.coordinators
    await old.groups.stop()
    await site.assign(new, old, new)
    await new.loaded()
    assert (await old.groups.join(member_of("other"))).error is not None


# -- any order of events -----------------------------------------------------------------------------------------------

NODES = 3
events = st.one_of(
    st.tuples(st.just("assign"), st.integers(0, NODES - 1)),
    st.tuples(st.just("hear"), st.integers(0, NODES - 1)),
    st.tuples(st.just("commit"), st.integers(0, NODES - 1)),
    st.tuples(st.just("rebalance"), st.integers(0, NODES - 1)),
    st.tuples(st.just("breathe"), st.integers(1, 8)),
)


@settings(max_examples=60)
@given(st.lists(events, max_size=25))
def test_of_two_live_coordinators_only_the_owner_commits(story: list[tuple[str, int]]) -> None:
    """Whatever each of them has heard of: a write counts only at the broker that the slot is assigned to, in the state
    that it has read since."""
    asyncio.run(live(story))


async def live(story: list[tuple[str, int]]) -> None:
    site = await opened(NODES)
    owner, acked = 0, 0
    running: list[asyncio.Task[None]] = []
    generations: list[tuple[int, int]] = []  # that were saved, and the broker that said so

    async def commit(node: int, offset: int) -> None:
        nonlocal acked
        if await site.coordinators[node].commit(offset) is E.NONE:
            acked = max(acked, offset)

    async def rebalance(node: int) -> None:
        groups = site.coordinators[node].groups
        joined = await groups.join(member_of(session_ms=50))  # others wait so long for it if its leave is lost
        if joined.error is E.NONE:
            assignments = {joined.member_id: str(node).encode()}
            sync = SyncRequest("g", joined.member_id, None, joined.generation, "consumer", "range", assignments)
            synced = await groups.sync(sync)
            if synced.error is E.NONE:
                generations.append((joined.generation, node))
            await groups.leave("g", [LeavingMember(joined.member_id, None)])

    for number, (what, which) in enumerate(story, start=1):
        if what == "assign":
            await site.assign(site.coordinators[which])
            owner = which
        elif what == "hear":
            await site.coordinators[which].slots.refresh()
        elif what == "breathe":
            for _ in range(which):
                await asyncio.sleep(0)
        elif what == "commit":
            epoch_before = await current(site)
            await commit(which, number)
            if acked == number:
                assert which == owner, "a broker that had lost the slot acknowledged a commit"
                assert await stored(site) == number
            assert await current(site) == epoch_before
        else:
            running.append(asyncio.create_task(rebalance(which)))
    for coordinator in site.coordinators:
        await coordinator.slots.refresh()
        await coordinator.loaded()
    async with asyncio.timeout(DEADLINE_S):
        await asyncio.gather(*running)
    assert [made for made, _ in generations] == sorted(made for made, _ in generations), "a generation came back"
    assert len(set(generations)) == len({made for made, _ in generations}), "two brokers made one generation"
    assert await stored(site) == acked
    listed = [c.node for c in site.coordinators if any(g.group_id == "g" for g in c.groups.list())]
    assert listed in ([], [owner])
    await site.stop()


async def stored(site: Site) -> int:
    rows = await site.coordinators[0].offsets.fetch("g")
    return max((row.offset for row in rows), default=0)


async def current(site: Site) -> int:
    _, rows = await site.coordinators[0].slots._store.load()
    return next(row.epoch for row in rows if row.id == SLOT)


# -- groups of the consumer protocol -----------------------------------------------------------------------------------


async def beat(coordinator: Coordinator, member_id: str, epoch: int) -> HeartbeatAnswer | GroupError:
    request = heartbeat(member_id, epoch)
    entry = coordinator.groups.of_members("g", 0, joins=epoch == 0)
    return entry if isinstance(entry, GroupError) else await coordinator.groups.consumer_heartbeat(entry, request, None)


async def test_members_of_a_consumer_group_go_on_at_its_next_coordinator(site) -> None:
    first, other = site.coordinators
    joined = await beat(first, "m", 0)
    assert joined.error is E.NONE
    await site.assign(other, other)
    await other.loaded()
    assert (await beat(other, "m", joined.epoch)).epoch == joined.epoch
    late = await beat(first, "n", 0)
    assert late.error is E.NOT_COORDINATOR, "it does not know yet, but what it would store is fenced"
    assert [member.member_id for member in other.groups.describe_consumer("g").members] == ["m"]
    await first.slots.refresh()
    assert await beat(first, "m", joined.epoch) is E.NOT_COORDINATOR
    assert first.groups.check_fetch("g", "m", joined.epoch) is E.NOT_COORDINATOR
