import asyncio
from typing import Any

import pytest
from pyiceberg.exceptions import CommitFailedException, NoSuchIcebergTableError, NoSuchPropertyException
from pyiceberg.schema import Schema
from pyiceberg.table.update import SetSnapshotRefUpdate
from pyiceberg.types import LongType, NestedField
from support.table_world import Executor, Pause, World

from streamlake.catalogs.capabilities import Capabilities
from streamlake.core.errors import Conflict, Invalid
from streamlake.table.commit import expiry
from streamlake.table.commit.iceberg import Change, IcebergTable, waited_for
from streamlake.table.commit.progress import beginning

SCHEMA = Schema(NestedField(1, "id", LongType()))


def handle(world: World, name: str = "t", executor: Executor | None = None) -> IcebergTable:
    runs = executor or world.executor
    return IcebergTable(world.catalog, ("ns", name), 3, runs, world.clock, world.ids, world.capabilities)


async def test_load_of_nothing_is_none_and_create_is_idempotent() -> None:
    world = World()
    table = handle(world)
    assert await table.load() is None
    await table.create(SCHEMA)
    first = await table.load()
    await table.create(SCHEMA)
    assert (await table.load()).metadata.table_uuid == first.metadata.table_uuid
    assert table.name == "ns.t"


async def test_each_level_of_a_namespace_is_made() -> None:
    world = World()
    table = IcebergTable(world.catalog, ("a", "b", "t"), 3, world.executor, world.clock, world.ids, world.capabilities)
    await table.create(SCHEMA)
    assert (await table.load()).name() == ("a", "b", "t")
    assert world.catalog.list_namespaces() == [("a",)]
    assert ("a", "b") in world.catalog.list_namespaces("a")
    assert table.name == "a.b.t"


async def test_a_catalog_that_has_another_table_than_it_made() -> None:
    world = World()
    table = handle(world)
    original = world.catalog.create_table

    def create_and_replace(identifier: Any, *args: Any, **kwargs: Any) -> Any:
        made = original(identifier, *args, **kwargs)
        world.catalog.drop_table(identifier)
        original(identifier, *args, **kwargs)
        return made

    world.catalog.create_table = create_and_replace
    with pytest.raises(Conflict, match=r"ns\.t was made with uuid .*, and is another table now"):
        await table.create(SCHEMA)


@pytest.mark.parametrize("error", [NoSuchIcebergTableError("hive"), NoSuchPropertyException("table_type missing")])
async def test_what_is_no_iceberg_table_is_invalid(error: Exception) -> None:
    """Nobody may take it for a table that is not there yet."""
    world = World()

    def load(_: object) -> Any:
        raise error

    world.catalog.load_table = load  # type: ignore[method-assign]
    with pytest.raises(Invalid, match=r"ns\.t is in the catalog, but is not an Iceberg table .*streamlake.table.name"):
        await handle(world).load()


async def test_the_epoch_and_the_time_are_in_every_file_name() -> None:
    world = World()
    table = handle(world)
    await table.create(SCHEMA)
    loaded = await table.load()
    await table.put_and_commit(loaded, Change(beginning("c", "t", "i", 3)))
    ours = [f for f in world.files if "snap-" in f or "streamlake-" in f]
    assert len(ours) == 1  # a manifest list; there are no rows
    assert all("-3-18bcfe5" in f for f in ours)
    prefix = table.data_file_prefix(loaded)
    assert prefix.startswith(f"streamlake-{loaded.metadata.table_uuid}-3-18bcfe5")
    assert prefix != table.data_file_prefix(loaded)


async def test_a_second_attempt_puts_the_data_files_only_if_the_first_did_not() -> None:
    world = World()
    table = handle(world)
    await table.create(SCHEMA)
    loaded = await table.load()
    change = Change(beginning("c", "t", "i", 3), {"memory://data": b"x"})
    world.catalog.plan = ["lost"]
    with pytest.raises(TimeoutError):
        await table.put_and_commit(loaded, change)
    assert world.files["memory://data"] == b"x"
    world.files["memory://data"] = b"untouched"
    await table.put_and_commit(loaded, change)
    assert world.files["memory://data"] == b"untouched"


async def test_all_files_are_there_before_the_commit() -> None:
    """Were the machine to die right after the catalog said yes, nothing that the snapshot names may be missing."""
    world = World()
    table = handle(world)
    await table.create(SCHEMA)
    loaded = await table.load()
    seen: list[set[str]] = []
    original = world.catalog.commit_table
    world.catalog.commit_table = lambda *a: (seen.append(set(world.files)), original(*a))[1]
    after = await table.put_and_commit(loaded, Change(beginning("c", "t", "i", 3), {"memory://data": b"x"}))
    needed = {"memory://data", after.metadata.current_snapshot().manifest_list}
    assert needed <= seen[0]


@pytest.mark.parametrize("keeps_tags", [True, False])
@pytest.mark.parametrize("keeps_history", [True, False])
async def test_what_a_catalog_does_not_keep_is_not_asked_for(
    keeps_tags: bool, keeps_history: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nessie refuses a commit that sets a tag or removes a snapshot, and says that it is a conflict."""
    monkeypatch.setattr(expiry, "KEEP_DEFAULT", 1)
    world = World()
    world.capabilities = Capabilities(keeps_tags=keeps_tags, keeps_history=keeps_history)
    asked: set[str] = set()
    commit_table = world.catalog.commit_table

    def commit(table: Any, requirements: Any, updates: Any) -> Any:
        asked.update(u.type.value if isinstance(u, SetSnapshotRefUpdate) else u.action for u in updates)
        return commit_table(table, requirements, updates)

    world.catalog.commit_table = commit  # type: ignore[method-assign]
    table = handle(world)
    await table.create(SCHEMA)
    for _ in range(3):
        world.clock.ms += expiry.HOUR_MS
        await table.put_and_commit(await table.load(), Change(beginning("c", "t", "i", 3)))
    kept = ({"tag"} if keeps_tags else set()) | ({"remove-snapshots"} if keeps_history else set())
    assert asked == {"add-snapshot", "branch", "set-properties"} | kept


async def test_remembered_manifests_are_not_used_on_a_foreign_head() -> None:
    world = World()
    table = handle(world)
    await table.create(SCHEMA)
    ours = await table.put_and_commit(await table.load(), Change(beginning("c", "t", "i", 3)))
    assert list(table.manifests(ours)) == []
    import pyarrow as pa

    world.catalog.inner.load_table(("ns", "t")).append(pa.table({"id": pa.array([1], pa.int64())}))
    assert len(table.manifests(await table.load())) == 1


async def test_a_stale_commit_raises_and_the_door_stays_usable() -> None:
    world = World()
    table = handle(world)
    await table.create(SCHEMA)
    stale = await table.load()
    await table.put_and_commit(stale, Change(beginning("c", "t", "i", 3)))
    with pytest.raises(CommitFailedException):
        await table.put_and_commit(stale, Change(beginning("c", "t", "i", 3)))
    await table.put_and_commit(await table.load(), Change(beginning("c", "t", "i", 3)))


async def test_a_cancelled_task_waits_for_its_commit() -> None:
    """Else the next committer of this process would meet a commit in flight: a zombie of our own."""
    world = World()
    executor = Executor()
    table = handle(world, executor=executor)
    await table.create(SCHEMA)
    loaded = await table.load()
    pause = Pause(executor, "_commit")
    task = asyncio.create_task(table.put_and_commit(loaded, Change(beginning("c", "t", "i", 3))))
    await pause.reached.wait()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    pause.go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.catalog.commits == 1


async def test_waited_for_passes_results_and_errors() -> None:
    async def value() -> int:
        return 7

    async def error() -> int:
        raise OSError("x")

    assert await waited_for(value()) == 7
    with pytest.raises(OSError):
        await waited_for(error())


async def test_snapshot_ids_are_new() -> None:
    world = World()
    table = handle(world)
    await table.create(SCHEMA)
    loaded = await table.put_and_commit(await table.load(), Change(beginning("c", "t", "i", 3)))
    taken = loaded.metadata.current_snapshot_id
    draws = iter([taken, 42])
    world.ids.int63 = lambda: next(draws)
    assert table.stamp(loaded).snapshot_id == 42
