import asyncio
from dataclasses import replace
from uuid import UUID

import pytest
from contracts.stream_metadata_contract import opened
from hypothesis import given
from hypothesis import strategies as st
from support.group_rows import GroupRows

from streamlake.cluster.store.database import Database
from streamlake.cluster.store.groups import OffsetRow
from streamlake.cluster.store.stream_metadata import NEVER_OPENED, SqlStreamMetadata
from streamlake.cluster.store.table_progress import TableProgress
from streamlake.cluster.store.topic_rows import PartitionInfo, TopicInfo
from streamlake.cluster.topics import TopicLimits, check_name
from streamlake.core.errors import Exists, Fenced, Invalid, NotFound, OutcomeUnknown, Unavailable
from streamlake.s3stream.metadata import OpenAt, StreamTrim

ENABLE = "streamlake.table.enable"


async def holds(cluster) -> dict[int, int | None]:
    rows = await TableProgress(cluster.database, cluster.identity).load()
    return {row.partition: row.hold_offset for row in rows}


def same(a: list[TopicInfo], b: list[TopicInfo]) -> bool:
    return [(t.name, t.id, dict(t.configs), t.partitions) for t in a] == [
        (t.name, t.id, dict(t.configs), t.partitions) for t in b
    ]


async def test_create_and_look_up(cluster) -> None:
    topics = await cluster.topics()
    orders = await topics.create("orders", 3, {"retention.ms": "1000"})
    assert orders.partitions == (PartitionInfo(0, 1, 0), PartitionInfo(1, 2, 0), PartitionInfo(2, 3, 0))
    assert orders.configs == {"retention.ms": "1000"}
    clicks = await topics.create("clicks", 1, {})
    assert topics.get("orders") == topics.by_id(orders.id) == orders
    assert topics.all() == [clicks, orders]
    assert topics.get("none") is None
    assert topics.by_id(UUID(int=0)) is None
    assert topics.revision == 2
    assert same((await cluster.topics()).all(), topics.all())


async def test_a_topic_is_created_once(cluster) -> None:
    topics = await cluster.topics()
    outcomes = await asyncio.gather(*[topics.create("orders", 1, {}) for _ in range(3)], return_exceptions=True)
    assert [type(o).__name__ for o in outcomes] == ["TopicInfo", "Exists", "Exists"]
    with pytest.raises(Exists):
        topics.check_create("orders", 1, {})
    assert topics.revision == 1


async def test_names_that_differ_in_dot_and_underscore_collide(cluster) -> None:
    topics = await cluster.topics()
    await topics.create("a.b_c", 1, {})
    with pytest.raises(Invalid, match=r"collides with the existing topic 'a.b_c'"):
        await topics.create("a_b.c", 1, {})
    with pytest.raises(Invalid, match=r"collides with the existing topic 'a.b_c'"):
        topics.check_free("a_b.c")
    await topics.create("a-b-c", 1, {})
    await topics.delete("a.b_c")
    topics.check_free("a_b.c")


@pytest.mark.parametrize("name", ["", ".", "..", "a b", "a/b", "ä", "x" * 250, "a\n", "a\0"])
def test_illegal_names(name: str) -> None:
    with pytest.raises(Invalid):
        check_name(name)


@given(st.from_regex(r"[a-zA-Z0-9_\-][a-zA-Z0-9._\-]{0,248}", fullmatch=True))
def test_legal_names(name: str) -> None:
    check_name(name)


async def test_limits_on_partitions(cluster) -> None:
    topics = await cluster.topics(limits=TopicLimits(partitions_per_topic_max=4, partitions_max=6))
    for count in (0, -1, 5):
        with pytest.raises(Invalid, match="from 1 to 4"):
            await topics.create("a", count, {})
    await topics.create("a", 4, {})
    with pytest.raises(Invalid, match="has 4 of at most 6"):
        await topics.create("b", 3, {})
    await topics.create("b", 1, {})
    with pytest.raises(Invalid, match="has 5 of at most 6"):
        await topics.add_partitions("b", 3)
    await topics.delete("a")
    await topics.add_partitions("b", 3)
    with pytest.raises(Invalid, match="at most 4"):
        await topics.add_partitions("b", 5)


async def test_add_partitions(cluster) -> None:
    topics = await cluster.topics()
    before = await topics.create("orders", 2, {ENABLE: "true"})
    after = await topics.add_partitions("orders", 4)
    assert after.partitions == (*before.partitions, PartitionInfo(2, 3, 0), PartitionInfo(3, 4, 0))
    assert topics.get("orders") == after
    assert await holds(cluster) == {0: 0, 1: 0, 2: 0, 3: 0}
    for total in (4, 3, 0, -1):
        with pytest.raises(Invalid, match="has 4 partitions already"):
            await topics.add_partitions("orders", total)
    with pytest.raises(NotFound):
        await topics.add_partitions("none", 4)


async def test_alter_configs(cluster) -> None:
    topics = await cluster.topics()
    await topics.create("orders", 1, {"retention.ms": "1", "retention.bytes": "2"})
    after = await topics.alter_configs("orders", {"max.message.bytes": "3"}, ["retention.ms"])
    assert after.configs == {"retention.bytes": "2", "max.message.bytes": "3"}
    assert same((await cluster.topics()).all(), [after])
    before = topics.revision
    with pytest.raises(Invalid, match=r"retention\.ms"):
        await topics.alter_configs("orders", {"retention.ms": "soon", "retention.bytes": "9"})
    with pytest.raises(Invalid, match=r"did you mean retention\.ms"):
        topics.check_alter_configs("orders", {"retention.m": "1"})
    with pytest.raises(NotFound):
        await topics.alter_configs("none", {})
    with pytest.raises(NotFound):
        topics.check_alter_configs("none", {})
    assert (topics.revision, topics.get("orders")) == (before, after)
    assert same((await cluster.topics()).all(), [after])


async def test_configs_that_belong_together_may_be_set_one_after_the_other(cluster) -> None:
    topics = await cluster.topics()
    await topics.create("orders", 1, {"automq.table.topic.convert.value.type": "by_schema_id"})
    after = await topics.alter_configs("orders", {"streamlake.table.transform.value.type": "flatten"})
    assert after.configs == {
        "streamlake.table.convert.value.type": "by_schema_id",
        "streamlake.table.transform.value.type": "flatten",
    }
    with pytest.raises(Invalid, match="flatten needs records with fields"):
        await topics.alter_configs("orders", {}, ["automq.table.topic.convert.value.type"])


async def test_deleting_takes_everything_with_it(cluster) -> None:
    topics = await cluster.topics()
    groups = await GroupRows.of(cluster.database, cluster.identity)
    metadata = SqlStreamMetadata(cluster.database, cluster.identity, None)
    orders = await topics.create("orders", 2, {ENABLE: "true"})
    await topics.create("kept", 1, {ENABLE: "true"})
    await opened(metadata, [p.stream_id for p in orders.partitions], [0, 0])
    offset = OffsetRow("orders", 0, 5, -1, "", 1)
    await groups.commit("g", [offset, OffsetRow("kept", 0, 6, -1, "", 1)])

    assert (await topics.delete("orders")).id == orders.id
    assert [t.name for t in topics.all()] == ["kept"]
    assert [row.topic for row in await groups.fetch_offsets("g")] == ["kept"]
    dump = await cluster.dump()
    assert (
        len(dump["stream"]) == len(dump["partition"]) == len(dump["topic_config"]) == len(dump["table_progress"]) == 1
    )
    assert dump["stream_epoch"] == []

    again = await topics.create("orders", 1, {})
    await groups.commit("g", [])
    assert [row.topic for row in await groups.fetch_offsets("g")] == ["kept"], "offsets of a former topic came back"
    assert again.id != orders.id
    assert again.partitions[0].stream_id not in {p.stream_id for p in orders.partitions}

    assert await topics.delete(again.id) == again
    for gone in ("orders", again.id):
        with pytest.raises(NotFound):
            await topics.delete(gone)


async def test_enabling_the_table_sets_the_hold_in_the_same_transaction(cluster) -> None:
    """Hazard C12. The hold is where the log starts now; it is there whenever the config is."""
    topics = await cluster.topics()
    metadata = SqlStreamMetadata(cluster.database, cluster.identity, None)
    orders = await topics.create("orders", 2, {})
    assert await holds(cluster) == {}
    await metadata.trim_streams([StreamTrim(orders.partitions[1].stream_id, NEVER_OPENED, 40, None)])
    commits = cluster.database.commits
    await topics.alter_configs("orders", {ENABLE: "true"})
    assert cluster.database.commits == commits + 1
    assert await holds(cluster) == {0: 0, 1: 40}
    # Other configs leave it where it is; switching off lets go; switching on holds again, from the log start of then.
    await metadata.trim_streams([StreamTrim(orders.partitions[1].stream_id, NEVER_OPENED, 50, None)])
    await topics.alter_configs("orders", {"retention.ms": "5"})
    assert await holds(cluster) == {0: 0, 1: 40}
    await topics.alter_configs("orders", {}, [ENABLE])
    assert await holds(cluster) == {0: None, 1: None}
    await topics.alter_configs("orders", {ENABLE: "true"})
    assert await holds(cluster) == {0: 0, 1: 50}


async def test_a_config_that_fails_sets_no_hold(cluster) -> None:
    topics = await cluster.topics()
    await topics.create("orders", 1, {})
    with pytest.raises(Invalid):
        await topics.alter_configs("orders", {ENABLE: "true", "streamlake.table.partition.by": "[week(ts)]"})
    assert await holds(cluster) == {}


async def test_others_see_who_has_opened_a_partition_under_which_epoch(cluster, monkeypatch) -> None:
    monkeypatch.setattr(Database, "is_ours_alone", False)
    ours, theirs = await cluster.topics(), await cluster.topics()
    assigned = (await ours.create("orders", 2, {})).partitions
    opener = await cluster.metadata(node=5)
    (state,) = await opened(opener, [assigned[1].stream_id], [0])
    await theirs.refresh()
    assert theirs.revision == ours.revision + 1
    now = replace(assigned[1], epoch=state.epoch, owner=5, owner_epoch=opener._identity.epoch)
    assert theirs.get("orders").partitions == (assigned[0], now)
    (refused,) = await (await cluster.metadata(node=6)).open_streams([OpenAt(assigned[1].stream_id, 0)])
    assert isinstance(refused, Unavailable)
    await theirs.refresh()
    assert theirs.revision == ours.revision + 1, "a try tells nobody anything"


async def test_a_broker_alone_tells_nobody_what_it_opens(cluster) -> None:
    """It would read all its topics once more."""
    if not cluster.database.is_ours_alone:
        return
    topics = await cluster.topics()
    (partition,) = (await topics.create("orders", 1, {})).partitions
    await opened(await cluster.metadata(), [partition.stream_id], [0])
    assert (await cluster.topics()).revision == topics.revision


async def test_a_zombie_changes_nothing(cluster) -> None:
    zombie = await cluster.topics()
    await zombie.create("orders", 1, {})
    await cluster.register()
    before = await cluster.dump()
    for attempt in (
        lambda: zombie.create("more", 1, {}),
        lambda: zombie.delete("orders"),
        lambda: zombie.add_partitions("orders", 2),
        lambda: zombie.alter_configs("orders", {"retention.ms": "1"}),
    ):
        with pytest.raises(Fenced):
            await attempt()
    assert await cluster.dump() == before


async def test_an_operation_returns_when_its_followers_have_applied_it(cluster) -> None:
    topics = await cluster.topics()
    seen = []

    async def apply() -> None:
        await asyncio.sleep(0)
        seen.append(topics.revision)

    topics.followers.append(apply)
    made = await topics.create("t", 1, {})
    assert seen == [1]
    await topics.add_partitions("t", 2)
    await topics.alter_configs("t", {"retention.ms": "1"})
    await topics.delete(made.id)
    assert seen == [1, 2, 3, 4]


async def test_listeners_hear_each_change_in_the_order_of_revisions(cluster) -> None:
    topics = await cluster.topics()
    heard = []
    topics.listeners.append(lambda change: heard.append((change.revision, change.before, change.after, topics.all())))
    made = await asyncio.gather(*[topics.create(f"t{i}", 1, {}) for i in range(3)])
    changed = await topics.alter_configs("t1", {"retention.ms": "1"})
    await topics.delete("t0")
    assert [(revision, before, after) for revision, before, after, _ in heard] == [
        (1, None, made[0]),
        (2, None, made[1]),
        (3, None, made[2]),
        (4, made[1], changed),
        (5, made[0], None),
    ]
    assert heard[-1][-1] == [changed, made[2]]


async def test_the_image_follows_even_if_the_caller_left(cluster) -> None:
    topics = await cluster.topics()
    creating = asyncio.ensure_future(topics.create("orders", 1, {}))
    await asyncio.sleep(0)  # the write is queued
    creating.cancel()
    await asyncio.gather(creating, return_exceptions=True)
    assert creating.cancelled()
    other = await topics.create("other", 1, {})
    assert [t.name for t in topics.all()] == ["orders", "other"]
    assert other.partitions[0].stream_id == 2


async def test_changes_of_others_are_found(cluster) -> None:
    ours = await cluster.topics()
    theirs = await cluster.topics(await cluster.register(5))
    first = await ours.create("first", 1, {})
    heard = []
    ours.listeners.append(lambda change: heard.append((change.before, change.after)))
    await theirs.refresh()
    await theirs.delete("first")
    again = await theirs.create("first", 2, {})
    assert ours.get("first") == first  # nobody told us yet
    mine = await ours.create("mine", 1, {})  # its revision shows that something is missing
    assert heard == [(first, None), (None, again), (None, mine)]
    assert same(ours.all(), (await cluster.topics()).all())
    assert ours.revision == 4


async def test_a_lost_answer_is_read_back(cluster, monkeypatch) -> None:
    topics = await cluster.topics()
    heard = []
    topics.listeners.append(lambda change: heard.append(change.after.name))
    real = cluster.database.write

    def applied_then_unknown(fn, *fences):
        answer = asyncio.get_running_loop().create_future()
        real(fn, *fences).add_done_callback(lambda _: answer.set_exception(OutcomeUnknown("lost")))
        return answer

    monkeypatch.setattr(cluster.database, "write", applied_then_unknown)
    with pytest.raises(OutcomeUnknown):
        await topics.create("orders", 1, {})
    monkeypatch.undo()
    assert heard == ["orders"]
    with pytest.raises(Exists):
        await topics.create("orders", 1, {})


async def test_revisions_are_taken_last(cluster, monkeypatch) -> None:
    """Hazard C20: taken earlier, another broker's later revision could become visible first."""
    from sqlalchemy import event

    topics = await cluster.topics()
    await topics.create("orders", 1, {})
    written = []
    event.listen(
        cluster.database._engine,
        "after_cursor_execute",
        lambda conn, cursor, statement, *rest: written.append(statement.split("(")[0].strip()),
    )
    await topics.create("more", 1, {ENABLE: "true"})
    await topics.add_partitions("orders", 2)
    await topics.alter_configs("orders", {ENABLE: "true"})
    await topics.delete("orders")
    writes = [s for s in written if s.split()[0] in ("INSERT", "UPDATE", "DELETE")]
    last = [at for at, s in enumerate(written) if s.startswith("UPDATE cluster")]
    assert len(last) == 4
    for at in last:
        assert written[at + 1] == "INSERT INTO change"
        assert written[at + 2 : at + 3] in ([], ["BEGIN IMMEDIATE"]) or written[at + 2].startswith(
            ("RELEASE", "SELECT")
        )
    assert writes.count("DELETE FROM stream WHERE stream.id IN") == 1
