import asyncio

import pytest
from support.subscriptions import subscription

from streamlake.cluster.store.fences import SlotEpoch
from streamlake.cluster.store.groups import GroupRow, GroupStore, OffsetRow
from streamlake.coordinator.classic.api import GroupError, LeavingMember, SyncRequest, store_error
from streamlake.coordinator.groups import Groups
from streamlake.coordinator.settings import GroupSettings
from streamlake.core.clock import SystemClock
from streamlake.core.errors import Closed, Fenced, OutcomeUnknown, Unavailable

E = GroupError
QUICK = GroupSettings(initial_rebalance_delay_ms=0, session_timeout_min_ms=1)
DAY_MS = 24 * 3_600_000


class FaultyStore:
    """The real store, with a gate before each save of a group and errors on demand."""

    def __init__(self, store: GroupStore) -> None:
        self.store = store
        self.gate = asyncio.Event()
        self.gate.set()
        self.saving = asyncio.Event()
        self.error: Exception | None = None
        self.log: list[str] = []

    def __getattr__(self, name):
        return getattr(self.store, name)

    async def save_group(self, row: GroupRow, slot: SlotEpoch) -> None:
        self.log.append(f"save {row.group_id} {row.generation}")
        self.saving.set()
        await self.gate.wait()
        if self.error:
            raise self.error
        await self.store.save_group(row, slot)

    async def delete_group(self, group_id: str, slot: SlotEpoch, only_without_offsets: bool = False) -> bool:
        self.log.append(f"delete {group_id}")
        if self.error:
            raise self.error
        return await self.store.delete_group(group_id, slot, only_without_offsets)


@pytest.fixture
def store(metadata) -> FaultyStore:
    return FaultyStore(metadata.groups)


@pytest.fixture
async def groups(metadata, store):
    groups = Groups(store, metadata.slots, metadata.clock, metadata.ids, QUICK)
    await groups.start()
    yield groups
    await groups.stop()


@pytest.fixture
def member(join_request):
    """Joins and syncs alone; (member id, generation)."""

    async def member(groups, group_id="g", **changes):
        joined = await groups.join(join_request(group_id=group_id, require_known_member_id=False, **changes))
        assert joined.error is E.NONE
        synced = await groups.sync(sync(joined, {joined.member_id: b"all"}, group_id))
        assert synced.assignment == b"all"
        return joined.member_id, joined.generation

    return member


def sync(joined, assignments=None, group_id="g") -> SyncRequest:
    return SyncRequest(
        group_id, joined.member_id, None, joined.generation, "consumer", joined.protocol, assignments or {}
    )


async def empty_group(groups, metadata, member, group_id: str) -> None:
    """A group whose only member has left, durably."""
    member_id, _ = await member(groups, group_id)
    await groups.leave(group_id, [LeavingMember(member_id, None)])
    while any(row.leader for row in await metadata.stored_groups() if row.group_id == group_id):
        await asyncio.sleep(0)


async def test_one_member(groups, metadata, member):
    member_id, generation = await member(groups)
    (row,) = await metadata.stored_groups()
    assert (row.group_id, row.generation, row.protocol, row.leader) == ("g", generation, "range", member_id)
    assert row.updated_ms == metadata.clock.ms
    assert groups.heartbeat("g", member_id, None, generation) is E.NONE
    assert groups.member_count == 1
    assert groups.metadata_bytes > 0
    assert await groups.leave("g", [LeavingMember(member_id, None), LeavingMember("x", None)]) == (
        E.NONE,
        [E.NONE, E.UNKNOWN_MEMBER_ID],
    )
    assert groups.metadata_bytes == 0


async def test_a_restart_forces_no_rebalance(groups, metadata, member):
    member_id, generation = await member(groups)
    await groups.stop()
    again = Groups(metadata.groups, metadata.slots, metadata.clock, metadata.ids, QUICK)
    await again.start()
    assert again.heartbeat("g", member_id, None, generation) is E.NONE
    assert again.describe("g") == groups.describe("g")
    await again.stop()


async def test_the_assignment_is_durable_before_anybody_hears_of_it(groups, metadata, store, join_request):
    joined = await groups.join(join_request(require_known_member_id=False))
    store.gate.clear()
    waiting = asyncio.create_task(groups.sync(sync(joined, {joined.member_id: b"x"})))
    await store.saving.wait()
    await asyncio.sleep(0)
    assert not waiting.done()
    assert await metadata.stored_groups() == []
    store.gate.set()
    assert (await waiting).error is E.NONE


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Unavailable("no"), E.COORDINATOR_NOT_AVAILABLE),
        (OutcomeUnknown("?"), E.COORDINATOR_NOT_AVAILABLE),
        (Fenced("zombie"), E.NOT_COORDINATOR),
        (Closed("closed"), E.NOT_COORDINATOR),
    ],
)
async def test_an_assignment_that_cannot_be_saved_is_refused(groups, store, join_request, error, kind):
    assert store_error(error) is kind
    joined = await groups.join(join_request(require_known_member_id=False))
    store.error = error
    assert (await groups.sync(sync(joined))).error is kind
    assert groups.failed_saves == 1
    assert groups.heartbeat("g", joined.member_id, None, 1) is E.REBALANCE_IN_PROGRESS


async def test_a_silent_member_expires_by_the_loops_own_timer(metadata, join_request):
    groups = Groups(metadata.groups, metadata.slots, SystemClock(), metadata.ids, QUICK)
    await groups.start()
    gone = await groups.join(join_request(require_known_member_id=False, session_timeout_ms=500))
    (await groups.sync(sync(gone)))
    joined = await groups.join(join_request(require_known_member_id=False))
    assert joined.generation == gone.generation + 1
    assert [m.member_id for m in joined.members] == [joined.member_id]
    assert groups.expired_members == 1
    await groups.stop()


async def test_the_initial_delay_ends_by_the_loops_own_timer(metadata, join_request):
    settings = GroupSettings(initial_rebalance_delay_ms=20)
    groups = Groups(metadata.groups, metadata.slots, SystemClock(), metadata.ids, settings)
    await groups.start()
    a, b = await asyncio.gather(*[groups.join(join_request(require_known_member_id=False)) for _ in range(2)])
    assert a.generation == b.generation == 1
    assert a.leader == b.leader
    await groups.stop()


async def test_a_group_that_nobody_joined_is_forgotten(metadata, join_request):
    groups = Groups(metadata.groups, metadata.slots, SystemClock(), metadata.ids, QUICK)
    await groups.start()
    assert (await groups.join(join_request(session_timeout_ms=10_000_000))).error is E.INVALID_SESSION_TIMEOUT
    assert len(groups) == 0
    pending = await groups.join(join_request(session_timeout_ms=500))
    assert (pending.error, len(groups)) == (E.MEMBER_ID_REQUIRED, 1)
    while len(groups):
        await asyncio.sleep(0.005)
    assert await metadata.stored_groups() == []
    await groups.stop()


async def test_requests_to_no_group(groups, join_request):
    assert (await groups.join(join_request(group_id=""))).error is E.INVALID_GROUP_ID
    assert (await groups.join(join_request("m", group_id="no"))).error is E.UNKNOWN_MEMBER_ID
    assert (await groups.sync(SyncRequest("no", "m", None, 1, None, None, {}))).error is E.UNKNOWN_MEMBER_ID
    assert (await groups.sync(SyncRequest("", "m", None, 1, None, None, {}))).error is E.INVALID_GROUP_ID
    assert groups.heartbeat("no", "m", None, 1) is E.UNKNOWN_MEMBER_ID
    assert await groups.leave("", []) == (E.INVALID_GROUP_ID, [])
    assert await groups.leave("no", [LeavingMember("m", None)]) == (E.NONE, [E.UNKNOWN_MEMBER_ID])
    assert groups.describe("no") is E.GROUP_ID_NOT_FOUND
    assert await groups.delete(["", "no", "no"]) == {"": E.GROUP_ID_NOT_FOUND, "no": E.GROUP_ID_NOT_FOUND}


async def test_too_many_groups_and_too_many_bytes_are_pushed_back(metadata, join_request):
    small = GroupSettings(initial_rebalance_delay_ms=0, groups_max=2, metadata_bytes_max=100)
    groups = Groups(metadata.groups, metadata.slots, metadata.clock, metadata.ids, small)
    await groups.start()

    async def join(group_id, size=1):
        request = join_request(group_id=group_id, require_known_member_id=False, protocols=(("range", b"x" * size),))
        return await groups.join(request)

    assert (await join("a", 101)).error is E.COORDINATOR_NOT_AVAILABLE
    assert len(groups) == 0
    joined = await join("a", 50)
    assert joined.error is E.NONE
    big = sync(joined, {joined.member_id: bytes(60)}, "a")
    assert (await groups.sync(big)).error is E.COORDINATOR_NOT_AVAILABLE
    assert (await join("b")).error is E.NONE
    assert (await join("c")).error is E.COORDINATOR_NOT_AVAILABLE
    assert groups.refused_joins == 3
    await groups.stop()


async def test_list(groups, member, join_request):
    await member(groups, "stable")
    await groups.join(join_request(group_id="pending"))
    assert [(g.group_id, g.state, g.protocol_type, g.group_type) for g in groups.list()] == [
        ("pending", "Empty", "", "classic"),
        ("stable", "Stable", "consumer", "classic"),
    ]
    assert [g.group_id for g in groups.list(["sTaBLe"])] == ["stable"]
    assert groups.list(types=["consumer"]) == []
    assert len(groups.list(types=["Classic"])) == 2


async def test_stop_answers_whoever_waits(metadata, join_request, member):
    groups = Groups(metadata.groups, metadata.slots, metadata.clock, metadata.ids, QUICK)
    await groups.start()
    await member(groups)
    waiting = asyncio.create_task(groups.join(join_request(require_known_member_id=False)))
    await asyncio.sleep(0)
    await groups.stop()
    assert (await waiting).error is E.NOT_COORDINATOR


async def test_stop_answers_whoever_waits_for_a_save(groups, store, join_request):
    joined = await groups.join(join_request(require_known_member_id=False))
    store.gate.clear()
    waiting = asyncio.create_task(groups.sync(sync(joined)))
    await store.saving.wait()
    await groups.stop()
    assert (await waiting).error is E.COORDINATOR_NOT_AVAILABLE


async def test_a_lost_connection_harms_nobody(groups, join_request, member):
    first, _ = await member(groups)
    waiting = asyncio.create_task(groups.join(join_request(require_known_member_id=False)))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (await groups.join(join_request(first))).generation == 2


async def test_damaged_members_join_again(metadata, join_request):
    await metadata.groups.save_group(GroupRow("g", 7, "consumer", "range", "m", b"rubbish", 1), metadata.slot("g"))
    groups = Groups(metadata.groups, metadata.slots, metadata.clock, metadata.ids, QUICK)
    await groups.start()
    assert groups.describe("g").state == "Empty"
    assert (await groups.join(join_request(require_known_member_id=False))).generation == 8
    await groups.stop()


# --- deletion


async def test_only_empty_groups_are_deleted(groups, metadata, member):
    await member(groups, "busy")
    await empty_group(groups, metadata, member, "idle")
    await metadata.groups.commit_offsets("idle", [OffsetRow("t", 0, 5, -1, "", 0)], metadata.slot("idle"))
    assert await groups.delete(["busy", "idle", "none"]) == {
        "busy": E.NON_EMPTY_GROUP,
        "idle": E.NONE,
        "none": E.GROUP_ID_NOT_FOUND,
    }
    assert [row.group_id for row in await metadata.stored_groups()] == ["busy"]
    assert await metadata.groups.fetch_offsets("idle") == []
    assert groups.describe("idle") is E.GROUP_ID_NOT_FOUND


async def test_a_deletion_that_fails_leaves_the_group(groups, store, metadata, member):
    await empty_group(groups, metadata, member, "g")
    store.error = Unavailable("no")
    assert await groups.delete(["g"]) == {"g": E.COORDINATOR_NOT_AVAILABLE}
    assert groups.describe("g").state == "Empty"
    store.error = None
    assert await groups.delete(["g"]) == {"g": E.NONE}


async def test_a_save_under_way_does_not_bring_a_deleted_group_back(groups, metadata, store, member):
    member_id, _ = await member(groups)
    store.gate.clear()
    store.saving.clear()
    await groups.leave("g", [LeavingMember(member_id, None)])
    await store.saving.wait()
    deletion = asyncio.create_task(groups.delete(["g"]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    store.gate.set()
    assert await deletion == {"g": E.NONE}
    assert store.log == ["save g 1", "save g 2", "delete g"]
    assert await metadata.stored_groups() == []


async def test_a_join_while_a_deletion_waits_keeps_the_group(groups, store, member, join_request):
    member_id, _ = await member(groups)
    store.gate.clear()
    store.saving.clear()
    await groups.leave("g", [LeavingMember(member_id, None)])
    await store.saving.wait()
    deletion = asyncio.create_task(groups.delete(["g"]))
    await asyncio.sleep(0)
    joined = await groups.join(join_request(require_known_member_id=False))
    store.gate.set()
    assert await deletion == {"g": E.NON_EMPTY_GROUP}
    assert (await groups.sync(sync(joined))).error is E.NONE


# --- offsets that expire


async def commit(metadata, group_id: str, *ages_ms: int, topic: str = "t") -> None:
    """An offset of each partition, committed so long ago; the offset is its partition."""
    rows = [OffsetRow(topic, p, p, -1, "", metadata.clock.ms - age_ms) for p, age_ms in enumerate(ages_ms)]
    await metadata.groups.commit_offsets(group_id, rows, metadata.slot(group_id))


async def committed(metadata, group_id: str) -> list[tuple[str, int]]:
    return [(row.topic, row.partition) for row in await metadata.groups.fetch_offsets(group_id)]


async def test_empty_groups_expire_with_their_offsets(groups, metadata, clock, member):
    await member(groups, "busy", session_timeout_ms=1_800_000)
    await empty_group(groups, metadata, member, "idle")
    await commit(metadata, "idle", -DAY_MS)
    clock.ms += 7 * DAY_MS
    assert await groups.expire() == 0, "its last commit is younger"
    clock.ms += DAY_MS - 1
    assert await groups.expire() == 0
    clock.ms += 1
    assert await groups.expire() == 1
    assert [g.group_id for g in groups.list()] == ["busy"]
    assert await committed(metadata, "idle") == []
    assert [row.group_id for row in await metadata.stored_groups()] == ["busy"]


async def test_each_offset_of_an_empty_group_expires_alone(groups, metadata, clock, member):
    await empty_group(groups, metadata, member, "idle")
    await commit(metadata, "idle", 0, -DAY_MS)
    clock.ms += 7 * DAY_MS
    assert await groups.expire() == 0
    assert await committed(metadata, "idle") == [("t", 1)]
    assert groups.describe("idle").state == "Empty"


async def test_a_group_without_members_and_offsets_goes(groups, metadata, member, join_request):
    """As in Kafka, at the next look: nobody could find out what it is good for."""
    await empty_group(groups, metadata, member, "idle")
    await groups.join(join_request(group_id="joining"))  # a client has a member id, and is about to join
    assert await groups.expire() == 1
    assert [g.group_id for g in groups.list()] == ["joining"]


async def test_a_group_is_empty_only_since_its_last_member_left(groups, metadata, clock, member):
    member_id, _ = await member(groups, "old", session_timeout_ms=1_800_000)
    await commit(metadata, "old", 0)
    clock.ms += 8 * DAY_MS
    await groups.leave("old", [LeavingMember(member_id, None)])
    clock.ms += 7 * DAY_MS - 1
    assert await groups.expire() == 0
    clock.ms += 1
    assert await groups.expire() == 1


async def test_how_long_a_group_was_empty_survives_a_restart(groups, metadata, clock, member):
    await empty_group(groups, metadata, member, "idle")
    await commit(metadata, "idle", 0)
    clock.ms += 4 * DAY_MS
    again = Groups(metadata.groups, metadata.slots, clock, metadata.ids, QUICK)
    await again.start()
    clock.ms += 3 * DAY_MS - 1
    assert await again.expire() == 0
    clock.ms += 1
    assert await again.expire() == 1
    await again.stop()


async def test_members_that_were_lost_find_their_offsets(metadata):
    await metadata.groups.save_group(GroupRow("g", 7, "consumer", "range", "m", b"rubbish", 1), metadata.slot("g"))
    await commit(metadata, "g", 30 * DAY_MS)
    groups = Groups(metadata.groups, metadata.slots, metadata.clock, metadata.ids, QUICK)
    await groups.start()
    assert await groups.expire() == 0
    assert await committed(metadata, "g") == [("t", 0)]
    await groups.stop()


async def test_offsets_of_topics_that_a_live_group_left_expire(groups, metadata, join_request, member):
    await metadata.topics.create("left", 2, {})
    await member(groups, "g", protocols=(("range", subscription("t", "other")),))
    for topic in ("t", "left"):
        await commit(metadata, "g", 30 * DAY_MS, 0, topic=topic)
    assert await groups.expire() == 0
    assert await committed(metadata, "g") == [("left", 1), ("t", 0), ("t", 1)]
    # While it rebalances nobody knows what it will subscribe to.
    await commit(metadata, "g", 30 * DAY_MS, topic="left")
    waiting = asyncio.create_task(groups.join(join_request(require_known_member_id=False)))
    await asyncio.sleep(0)
    assert groups.describe("g").state == "PreparingRebalance"
    assert await groups.expire() == 0
    assert ("left", 0) in await committed(metadata, "g")
    waiting.cancel()


@pytest.mark.parametrize(("kind", "blob"), [("consumer", b"unreadable"), ("connect", subscription())])
async def test_offsets_of_other_live_groups_stay(groups, metadata, join_request, kind, blob):
    joining = join_request(require_known_member_id=False, protocol_type=kind, protocols=(("range", blob),))
    joined = await groups.join(joining)
    assert (await groups.sync(SyncRequest("g", joined.member_id, None, 1, kind, "range", {}))).error is E.NONE
    await commit(metadata, "g", 30 * DAY_MS)
    assert await groups.expire() == 0
    assert groups.describe("g").state == "Stable"
    assert await committed(metadata, "g") == [("t", 0)]


async def test_a_commit_while_offsets_expire_stays(groups, metadata, store, clock, member, monkeypatch):
    """One comes before the old offset is deleted, one right behind."""
    await empty_group(groups, metadata, member, "g")
    await commit(metadata, "g", 0, 0, 0)
    clock.ms += 7 * DAY_MS
    expire = metadata.groups.expire_offsets

    async def between(group_id, until_ms, kept, slot):
        young = [OffsetRow("t", p, 7, -1, "", clock.ms) for p in (0, 1)]
        await metadata.groups.commit_offsets(group_id, young[:1], slot)
        expired, _ = await asyncio.gather(
            expire(group_id, until_ms, kept, slot), metadata.groups.commit_offsets(group_id, young[1:], slot)
        )
        return expired

    monkeypatch.setattr(store, "expire_offsets", between, raising=False)
    assert await groups.expire() == 0
    assert [(row.partition, row.offset) for row in await metadata.groups.fetch_offsets("g")] == [(0, 7), (1, 7)]
    assert groups.describe("g").state == "Empty"


async def test_a_commit_before_an_empty_group_goes_keeps_it(groups, metadata, store, member, monkeypatch):
    await empty_group(groups, metadata, member, "g")
    delete = metadata.groups.delete_group

    async def late(*args):
        await commit(metadata, "g", 0)
        return await delete(*args)

    monkeypatch.setattr(store, "delete_group", late)
    assert await groups.expire() == 0
    assert groups.describe("g").state == "Empty"
    assert await committed(metadata, "g") == [("t", 0)]
