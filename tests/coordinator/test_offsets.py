import asyncio

import pytest
from support.subscriptions import subscription

from streamlake.cluster.store.groups import OffsetRow
from streamlake.coordinator.classic.api import GroupError, LeavingMember, SyncRequest
from streamlake.coordinator.groups import Groups
from streamlake.coordinator.offsets import CommitRequest, Offsets
from streamlake.coordinator.settings import GroupSettings
from streamlake.core.errors import Fenced, OutcomeUnknown

E = GroupError


class SlowStore:
    """The real store; commits of offsets wait at a gate before anything is written, or fail."""

    def __init__(self, store) -> None:
        self.store = store
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None

    def __getattr__(self, name):
        return getattr(self.store, name)

    async def commit_offsets(self, group_id, offsets, slot) -> None:
        await self.gate.wait()
        if self.error:
            raise self.error
        await self.store.commit_offsets(group_id, offsets, slot)


@pytest.fixture
async def store(metadata) -> SlowStore:
    return SlowStore(metadata.groups)


@pytest.fixture
async def groups(metadata, store):
    groups = Groups(store, metadata.slots, metadata.clock, metadata.ids, GroupSettings(initial_rebalance_delay_ms=0))
    await groups.start()
    yield groups
    await groups.stop()


@pytest.fixture
def offsets(metadata, store, groups) -> Offsets:
    return Offsets(groups, store, metadata.clock, metadata.has_partition)


def row(offset: int, partition: int = 0, topic: str = "t", metadata: str = "", commit_ms: int = 0) -> OffsetRow:
    return OffsetRow(topic, partition, offset, 3, metadata, commit_ms)


def alone(*rows: OffsetRow, group_id: str = "alone") -> CommitRequest:
    return CommitRequest(group_id, "", None, -1, rows)


async def stable(groups, join_request) -> tuple[str, int]:
    joined = await groups.join(join_request(require_known_member_id=False))
    await groups.sync(SyncRequest("g", joined.member_id, None, joined.generation, None, None, {}))
    return joined.member_id, joined.generation


async def test_a_member_commits_and_finds_it_again(groups, offsets, clock, join_request):
    member_id, generation = await stable(groups, join_request)
    rows = [row(5, metadata="m"), row(7, partition=1)]
    assert await offsets.commit(CommitRequest("g", member_id, None, generation, rows)) == [E.NONE, E.NONE]
    found = await offsets.fetch("g")
    assert found == [row(5, metadata="m", commit_ms=clock.ms), row(7, partition=1, commit_ms=clock.ms)]
    assert await offsets.fetch("g", [("t", 1), ("t", 2), ("no", 0)]) == found[1:]
    assert offsets.commits == 1


async def test_offsets_survive_a_restart(groups, offsets, metadata, join_request):
    member_id, generation = await stable(groups, join_request)
    await offsets.commit(CommitRequest("g", member_id, None, generation, [row(5)]))
    await groups.stop()
    again = Groups(metadata.groups, metadata.slots, metadata.clock, metadata.ids)
    await again.start()
    reopened = Offsets(again, metadata.groups, metadata.clock, metadata.has_partition)
    assert [r.offset for r in await reopened.fetch("g")] == [5]
    assert await reopened.commit(CommitRequest("g", member_id, None, generation, [row(6)])) == [E.NONE]
    assert [r.offset for r in await reopened.fetch("g")] == [6]
    await again.stop()


async def test_a_commit_and_a_leave_in_one_go(groups, offsets, store, join_request):
    """Hazard C15: the commit is admitted before it waits for the store, so what follows cannot refuse it."""
    member_id, generation = await stable(groups, join_request)
    store.gate.clear()
    commit = asyncio.create_task(offsets.commit(CommitRequest("g", member_id, None, generation, [row(5)])))
    leave = asyncio.create_task(groups.leave("g", [LeavingMember(member_id, None)]))
    assert await leave == (E.NONE, [E.NONE])
    assert not commit.done()
    store.gate.set()
    assert await commit == [E.NONE]
    assert [r.offset for r in await offsets.fetch("g")] == [5]


async def test_nobody_sees_an_offset_before_it_is_durable(groups, offsets, store):
    await offsets.commit(alone(row(1)))
    store.gate.clear()
    commit = asyncio.create_task(offsets.commit(alone(row(2))))
    await asyncio.sleep(0)
    assert [r.offset for r in await offsets.fetch("alone")] == [1]
    store.gate.set()
    await commit
    assert [r.offset for r in await offsets.fetch("alone")] == [2]


async def test_commits_that_wait_share_a_transaction(offsets, metadata):
    await offsets.commit(alone(row(0)))
    before = metadata.database.commits
    results = await asyncio.gather(*[offsets.commit(alone(row(n))) for n in range(20)])
    assert results == [[E.NONE]] * 20
    assert metadata.database.commits == before + 1
    assert [r.offset for r in await offsets.fetch("alone")] == [19], "in their order"


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"generation": 9}, E.ILLEGAL_GENERATION),
        ({"member_id": "nobody"}, E.UNKNOWN_MEMBER_ID),
        ({"group_instance_id": "nobody"}, E.UNKNOWN_MEMBER_ID),
        ({"member_id": "", "generation": -1}, E.UNKNOWN_MEMBER_ID),
        ({"group_id": "none"}, E.GROUP_ID_NOT_FOUND),
    ],
)
async def test_who_may_not_commit(groups, offsets, join_request, changes, error):
    member_id, generation = await stable(groups, join_request)
    values = {"group_id": "g", "member_id": member_id, "group_instance_id": None, "generation": generation, **changes}
    assert await offsets.commit(CommitRequest(**values, offsets=[row(1), row(2, 1)])) == [error, error]
    assert await offsets.fetch("g") == []


async def test_each_offset_is_judged_by_itself(offsets):
    rows = [row(1, topic="no"), row(2, partition=3), row(3, metadata="ä" * 2049), row(4, metadata="ä" * 2048)]
    assert await offsets.commit(alone(*rows)) == [
        E.UNKNOWN_TOPIC_OR_PARTITION,
        E.UNKNOWN_TOPIC_OR_PARTITION,
        E.OFFSET_METADATA_TOO_LARGE,
        E.NONE,
    ]
    assert [r.offset for r in await offsets.fetch("alone")] == [4]


async def test_a_consumer_without_a_group_makes_one(groups, offsets, metadata):
    assert await offsets.commit(alone(row(1))) == [E.NONE]
    assert [g.group_id for g in groups.list()] == ["alone"]
    assert [r.group_id for r in await metadata.stored_groups()] == ["alone"]


async def test_a_refused_commit_makes_no_group(groups, offsets):
    assert await offsets.commit(alone(row(1, topic="no"))) == [E.UNKNOWN_TOPIC_OR_PARTITION]
    assert await offsets.commit(alone()) == []
    assert len(groups) == 0


async def test_too_many_groups(metadata, store):
    groups = Groups(store, metadata.slots, metadata.clock, metadata.ids, GroupSettings(groups_max=1))
    await groups.start()
    offsets = Offsets(groups, store, metadata.clock, metadata.has_partition)
    assert await offsets.commit(alone(row(1))) == [E.NONE]
    assert await offsets.commit(alone(row(1), group_id="b")) == [E.COORDINATOR_NOT_AVAILABLE]


async def test_a_failed_commit_says_so_and_the_next_one_works(groups, offsets, store, metadata):
    store.error = OutcomeUnknown("the answer was lost")
    assert await offsets.commit(alone(row(1, topic="no"), row(1))) == [
        E.UNKNOWN_TOPIC_OR_PARTITION,
        E.COORDINATOR_NOT_AVAILABLE,
    ]
    assert offsets.failed_commits == 1
    store.error = Fenced("zombie")
    assert await offsets.commit(alone(row(1))) == [E.NOT_COORDINATOR]
    store.error = None
    assert await offsets.commit(alone(row(1))) == [E.NONE]
    assert [r.group_id for r in await metadata.stored_groups()] == ["alone"]


async def test_a_first_commit_and_a_deletion_at_once_leave_nothing_half(groups, offsets, store, metadata):
    store.gate.clear()
    commit = asyncio.create_task(offsets.commit(alone(row(1))))
    await asyncio.sleep(0)
    deletion = asyncio.create_task(groups.delete(["alone"]))
    await asyncio.sleep(0)
    store.gate.set()
    assert await commit == [E.NONE]
    assert await deletion == {"alone": E.NONE}
    assert await metadata.stored_groups() == []
    assert await metadata.groups.fetch_offsets("alone") == []


async def test_a_commit_right_after_a_deletion_stays(groups, offsets, metadata):
    await offsets.commit(alone(row(1)))
    deletion = asyncio.create_task(groups.delete(["alone"]))
    commit = asyncio.create_task(offsets.commit(alone(row(2))))
    await asyncio.gather(deletion, commit)
    expected = [2] if groups.describe("alone") is not E.GROUP_ID_NOT_FOUND else []
    assert [r.offset for r in await metadata.groups.fetch_offsets("alone")] == expected
    assert len(await metadata.stored_groups()) == len(expected)


async def test_a_store_that_fails(offsets, groups, metadata):
    await offsets.commit(alone(row(1)))
    await metadata.database.close()
    assert await offsets.fetch("alone") is E.NOT_COORDINATOR


async def test_offsets_go_with_their_topic(offsets, metadata):
    await offsets.commit(alone(row(1)))
    await metadata.topics.delete("t")
    await metadata.topics.create("t", 1, {})
    assert await offsets.fetch("alone") == []


# --- OffsetDelete


async def test_offsets_of_topics_that_a_group_reads_stay(groups, offsets, metadata, join_request):
    await metadata.topics.create("left", 1, {})
    protocols = (("range", subscription("t")),)
    joined = await groups.join(join_request(require_known_member_id=False, protocols=protocols))
    of_all = CommitRequest("g", "", None, -1, [row(5), row(6, topic="left")])
    busy = E.GROUP_SUBSCRIBED_TO_TOPIC
    wanted = [("left", 0), ("t", 0)]
    assert await offsets.delete("g", wanted) == (E.NONE, [E.NONE, busy]), "its assignment is on its way"
    await groups.sync(SyncRequest("g", joined.member_id, None, joined.generation, None, None, {}))
    await metadata.groups.commit_offsets("g", of_all.offsets, metadata.slot("g"))
    assert await offsets.delete("g", wanted) == (E.NONE, [E.NONE, busy])
    assert [found.topic for found in await offsets.fetch("g")] == ["t"]
    await groups.leave("g", [LeavingMember(joined.member_id, None)])
    assert await offsets.delete("g", wanted) == (E.NONE, [E.NONE, E.NONE])
    assert await offsets.fetch("g") == []
    assert groups.describe("g").state == "Empty"


async def test_offsets_of_groups_that_nobody_can_read_stay(groups, offsets, join_request):
    await groups.join(join_request(require_known_member_id=False))
    assert await offsets.delete("g", [("t", 0)]) == (E.NONE, [E.GROUP_SUBSCRIBED_TO_TOPIC])
    await groups.join(join_request(group_id="c", require_known_member_id=False, protocol_type="connect"))
    assert await offsets.delete("c", [("t", 0)]) == (E.NON_EMPTY_GROUP, [])
    assert await offsets.delete("none", [("t", 0)]) == (E.GROUP_ID_NOT_FOUND, [])
    assert await offsets.delete("", [("t", 0)]) == (E.INVALID_GROUP_ID, [])


async def test_a_commit_behind_a_deletion_stays(offsets):
    await offsets.commit(alone(row(1)))
    deleted, committed = await asyncio.gather(offsets.delete("alone", [("t", 0)]), offsets.commit(alone(row(2))))
    assert (deleted, committed) == ((E.NONE, [E.NONE]), [E.NONE])
    assert [found.offset for found in await offsets.fetch("alone")] == [2]


async def test_a_deletion_that_fails_says_so(offsets, store, monkeypatch):
    await offsets.commit(alone(row(1)))

    async def away(*args) -> None:
        raise OutcomeUnknown("?")

    monkeypatch.setattr(store, "delete_offsets", away, raising=False)
    assert await offsets.delete("alone", [("t", 0)]) == (E.COORDINATOR_NOT_AVAILABLE, [])
