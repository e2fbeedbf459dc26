"""A catalog whose answers lie: a commit that landed is called a conflict, a timeout, a 500."""

import pytest
from pyiceberg.table.refs import SnapshotRefType
from pyiceberg.table.update import AddSnapshotUpdate, AssertTableUUID, SetSnapshotRefUpdate
from support.table_world import BAD, World, good

from streamlake.core.errors import OutcomeUnknown
from streamlake.table.commit import machine as commit_machine


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit_machine, "DELAY_FIRST_S", 0.0)


async def opened(values: list[bytes | None]) -> tuple[World, object]:
    world = World()
    world.log.produce(0, good(range(5)))
    await world.life().drain()
    life = await world.opened()
    world.log.produce(0, values)
    return world, life


@pytest.mark.parametrize("fault", ["conflict", "timeout", "lost"])
@pytest.mark.parametrize("at", [0, 1])
async def test_every_outcome_but_success_is_unknown(fault: str, at: int) -> None:
    """First the commit of dead letters meets the fault, then the one of the main table."""
    world, life = await opened([*good([5, 6]), BAD])
    world.catalog.plan = [None] * at + [fault]
    assert await life.round()
    world.check()
    assert life.table.main.progress.next == (8,)


async def test_a_commit_that_cannot_land_lets_go_and_a_new_start_repairs() -> None:
    world, life = await opened(good([5, 6]))
    world.catalog.plan = ["lost"] * 100
    with pytest.raises(OutcomeUnknown, match="the request never arrived"):
        await life.round()
    world.catalog.plan = []
    await life.drain()
    world.check()


async def test_a_catalog_that_is_down_during_the_look_back_does_not_repeat_what_landed() -> None:
    world, life = await opened(good([5, 6]))
    world.catalog.plan = ["timeout"]
    original = world.catalog.commit_table

    def commit_then_down(*args: object) -> object:
        world.catalog.commit_table = original
        try:
            return original(*args)
        finally:
            world.catalog.down = True

    world.catalog.commit_table = commit_then_down
    with pytest.raises(OutcomeUnknown):
        await life.round()
    world.catalog.down = False
    await life.drain()
    world.check()


async def test_no_error_path_deletes_a_file() -> None:
    """The files of an attempt in doubt may be the table's: it landed and only the answer was lost."""
    world, life = await opened(good([5, 6]))
    before = set(world.files)
    world.catalog.plan = ["timeout", *["lost"] * 100]
    await life.round()
    assert before <= set(world.files)
    world.check()


async def test_a_commit_on_another_branch_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the sequence number that ours was made with, and main does not move: build anew, do not loop."""
    world, life = await opened(good([5, 6]))
    original = world.catalog.commit_table

    def foreign_first(*args: object) -> object:
        world.catalog.commit_table = original
        table = world.load()
        head = table.current_snapshot()
        other = head.model_copy(
            update={
                "snapshot_id": 77,
                "parent_snapshot_id": head.snapshot_id,
                "sequence_number": head.sequence_number + 1,
            }
        )
        branch = SetSnapshotRefUpdate(ref_name="audit", type=SnapshotRefType.BRANCH, snapshot_id=77)
        uuid = AssertTableUUID(uuid=table.metadata.table_uuid)
        world.catalog.inner.commit_table(table, (uuid,), (AddSnapshotUpdate(snapshot=other), branch))
        return original(*args)

    world.catalog.commit_table = foreign_first
    assert await life.round()
    assert "audit" in world.load().metadata.refs
    world.check()


async def test_a_foreign_append_between_load_and_commit() -> None:
    world, life = await opened(good([5, 6]))
    original = world.catalog.commit_table

    def foreign_first(*args: object) -> object:
        world.catalog.commit_table = original
        table = world.load()
        table.append(table.scan(limit=1).to_arrow().slice(0, 1))
        return original(*args)

    world.catalog.commit_table = foreign_first
    assert await life.round()
    rows = world.rows()
    assert sorted(set(rows)) == sorted(world.log.data)
    assert len(rows) == len(world.log.data) + 1  # theirs and ours, nothing of either is lost


async def test_a_foreign_compaction_between_rounds() -> None:
    world, life = await opened(good([5, 6]))
    table = world.load()
    table.overwrite(table.scan().to_arrow())
    assert await life.round()
    await world.life().drain()
    world.check()
