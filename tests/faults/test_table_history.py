"""Other engines and people change the table's history: expiry, rollback, drop, re-creation."""

from uuid import UUID

import pytest
from pyiceberg.table.refs import SnapshotRefType
from pyiceberg.table.update import (
    AssertTableUUID,
    RemovePropertiesUpdate,
    RemoveSnapshotRefUpdate,
    RemoveSnapshotsUpdate,
    SetSnapshotRefUpdate,
)
from support.table_world import CLUSTER, TOPIC, World, good

from streamlake.core.errors import Conflict, Invalid
from streamlake.table.commit.machine import Owner
from streamlake.table.commit.progress import PROGRESS, TAG
from streamlake.table.task.topic_table import TopicTable


async def filled() -> World:
    world = World()
    for _ in range(3):
        world.log.produce(0, good(range(5)))
        await world.life().drain()
    return world


def change(world: World, *updates: object) -> None:
    table = world.load()
    world.catalog.inner.commit_table(table, (AssertTableUUID(uuid=table.metadata.table_uuid),), updates)


def expire_all_but_head(world: World, *, tag: bool) -> None:
    """As a foreign engine does it: a compaction on top, then only its snapshot stays."""
    table = world.load()
    table.overwrite(table.scan().to_arrow())
    metadata = world.load().metadata
    head = metadata.current_snapshot().snapshot_id
    keep = {head} if not tag else {head, metadata.refs[TAG].snapshot_id}
    change(
        world,
        RemoveSnapshotsUpdate(snapshot_ids=[s.snapshot_id for s in metadata.snapshots if s.snapshot_id not in keep]),
    )


@pytest.mark.parametrize("tag", [True, False], ids=["tag kept", "property only"])
async def test_foreign_expiry_to_one_snapshot_then_a_restart(tag: bool) -> None:
    world = await filled()
    expire_all_but_head(world, tag=tag)
    assert (TAG in world.load().metadata.refs) == tag
    world.log.produce(0, good(range(5)))
    await world.life().drain()
    world.check()


async def test_no_trace_of_our_commits_stops_the_table() -> None:
    world = await filled()
    expire_all_but_head(world, tag=False)
    change(world, RemovePropertiesUpdate(removals=[PROGRESS]))
    with pytest.raises(Invalid, match="no longer shows what StreamLake committed"):
        await world.life().drain()
    assert len(world.rows()) == 15


async def test_a_rollback_to_a_snapshot_of_ours_is_filled_up_again() -> None:
    world = await filled()
    snapshots = [s for s in world.load().metadata.snapshots if s.summary["added-records"]]
    change(
        world, SetSnapshotRefUpdate(ref_name="main", type=SnapshotRefType.BRANCH, snapshot_id=snapshots[0].snapshot_id)
    )
    assert len(world.rows()) == 5
    await world.life().drain()
    world.check()


async def test_a_rollback_behind_our_history_stops_the_table() -> None:
    """The table existed before we came; somebody rolls it back to that and writes on: our bookmarks lie then."""
    world = World()
    world.log.produce(0, good(range(2)))
    await world.life().drain()
    table = world.load()
    rows = table.scan().to_arrow()
    world.catalog.inner.drop_table(("default", TOPIC))
    world.committed_once = False
    world.catalog.inner.create_table(("default", TOPIC), schema=table.schema(), properties={"format-version": "2"})
    world.load().append(rows)
    foreign = world.load().current_snapshot().snapshot_id
    await world.life().drain()
    assert len(world.rows()) == 4
    change(world, SetSnapshotRefUpdate(ref_name="main", type=SnapshotRefType.BRANCH, snapshot_id=foreign))
    for _ in range(2):
        with pytest.raises(Invalid, match="rolled back"):
            await world.life().drain()
        world.load().append(rows)


async def test_a_table_that_was_dropped_stops_loudly_also_while_running() -> None:
    world = World()
    world.log.produce(0, good(range(5)))
    life = world.life()
    await life.drain()
    world.catalog.inner.drop_table(("default", TOPIC))
    world.log.produce(0, good(range(5)))
    with pytest.raises(Invalid, match="is gone from the catalog"):
        await life.round()
    with pytest.raises(Invalid, match="is gone from the catalog"):
        await world.life().drain()


async def test_a_table_dropped_and_created_again_by_somebody_else_stops_loudly() -> None:
    world = World()
    world.log.produce(0, good(range(5)))
    life = world.life()
    await life.drain()
    schema = world.load().schema()
    world.catalog.inner.drop_table(("default", TOPIC))
    world.catalog.inner.create_table(("default", TOPIC), schema=schema)
    world.log.produce(0, good(range(5)))
    with pytest.raises(Invalid, match="no longer shows"):
        await life.round()


async def test_a_table_that_was_never_committed_to_may_be_dropped() -> None:
    world = World()
    life = world.life()
    await life.drain()
    world.log.produce(0, good(range(5)))
    await life.round()
    world.check()


async def test_a_topic_created_again_does_not_mix_with_the_old_rows() -> None:
    world = await filled()
    with pytest.raises(Invalid, match="holds rows of topic orders with id"):
        await TopicTable(world.settings, Owner(CLUSTER, TOPIC, str(UUID(int=8)), 9), False, world.tools()).open()


async def test_another_clusters_table_is_refused() -> None:
    world = await filled()
    owner = Owner("cluster-2", TOPIC, str(UUID(int=7)), 9)
    with pytest.raises(Invalid, match="of cluster cluster-1"):
        await TopicTable(world.settings, owner, False, world.tools()).open()


async def test_an_empty_table_of_an_older_topic_is_taken_over() -> None:
    world = World()
    world.log.abort(0, good(range(5)))
    world.log.produce(0, good([1]))
    await world.life().drain()
    world.load().delete()
    owner = Owner(CLUSTER, TOPIC, str(UUID(int=8)), 9)
    table = TopicTable(world.settings, owner, False, world.tools())
    await table.open()
    assert table.reached.next == ()
    assert table.main.claimed


async def test_a_tag_moved_away_and_the_dead_letter_table_dropped_do_no_harm() -> None:
    world = await filled()
    change(world, RemoveSnapshotRefUpdate(ref_name=TAG))
    world.catalog.inner.drop_table(("default", TOPIC + "__dlq"))
    world.log.produce(0, good(range(5)))
    await world.life().drain()
    world.check()


async def test_a_schema_changed_by_another_engine_between_load_and_commit() -> None:
    world = World()
    world.log.produce(0, good(range(5)))
    life = world.life()
    await life.drain()
    world.log.produce(0, good([1], 2))
    original = world.catalog.commit_table

    def foreign_first(*args: object) -> object:
        world.catalog.commit_table = original
        with world.load().update_schema() as update:
            update.add_column("theirs", world.load().schema().find_type("n"))
        return original(*args)

    world.catalog.commit_table = foreign_first
    with pytest.raises(Conflict):
        await life.round()
    await life.drain()
    world.check()
    assert {"theirs", "note"} <= set(world.load().schema().column_names)
