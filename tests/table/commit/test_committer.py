import pytest
from pyiceberg.schema import Schema
from pyiceberg.types import LongType, NestedField
from support.table_world import World

from streamlake.core.errors import Fenced, Invalid, OutcomeUnknown
from streamlake.table.commit import machine as commit_machine
from streamlake.table.commit.committer import Committer
from streamlake.table.commit.iceberg import Change, IcebergTable
from streamlake.table.commit.machine import Owner

SCHEMA = Schema(NestedField(1, "id", LongType()))


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit_machine, "DELAY_FIRST_S", 0.0)


def committer(world: World, epoch: int = 1, committed_once: bool = False) -> Committer:
    handle = IcebergTable(world.catalog, ("ns", "t"), epoch, world.executor, world.clock, world.ids, world.capabilities)
    return Committer(handle, Owner("c", "t", "i", epoch), committed_once, world.ids)


async def opened(world: World, epoch: int = 1) -> Committer:
    found = committer(world, epoch)
    await found.handle.create(SCHEMA)
    await found.load()
    return found


def change(c: Committer, position: int) -> Change:
    return Change(c.progress.advanced(c.progress.epoch, {0: position}, {}))


async def test_seen_follows_progress_only_by_a_load() -> None:
    """Retention goes by `seen`: what only an answer confirmed may still be taken back by a catalog without CAS."""
    c = await opened(World())
    assert await c.commit(change(c, 5))
    assert (c.progress.position(0), c.seen.position(0)) == (5, 0)
    assert await c.commit(change(c, 9))
    assert (c.progress.position(0), c.seen.position(0)) == (9, 5)
    await c.load()
    assert c.seen == c.progress


async def test_a_claim_is_made_once_an_epoch() -> None:
    world = World()
    first = await opened(world)
    assert not first.claimed
    assert await first.claim()
    assert first.claimed
    commits = world.catalog.commits
    assert await first.claim()
    again = await opened(world)
    assert again.claimed
    assert await again.claim()
    assert world.catalog.commits == commits
    second = await opened(world, epoch=2)
    assert await second.claim()
    assert second.progress.epoch == 2


async def test_after_a_claim_the_older_one_is_fenced() -> None:
    world = World()
    old = await opened(world)
    assert await (await opened(world, epoch=2)).claim()
    with pytest.raises(Fenced):
        await old.commit(change(old, 5))
    with pytest.raises(Fenced):
        await old.load()


async def test_a_commit_of_the_same_epoch_elsewhere_is_noticed() -> None:
    world = World()
    one, other = await opened(world), await opened(world)
    assert await other.commit(change(other, 5))
    assert not await one.commit(change(one, 6))
    assert one.conflicts == 1
    await one.load()
    assert await one.commit(change(one, 9))


async def test_committed_once_is_learned_and_never_forgotten() -> None:
    world = World()
    c = await opened(world)
    assert not c.committed_once
    await c.commit(change(c, 5))
    assert c.committed_once
    fresh = committer(world)
    await fresh.load()
    assert fresh.committed_once
    world.catalog.inner.drop_table(("ns", "t"))
    with pytest.raises(Invalid, match=r"ns\.t is gone"):
        await fresh.load()


async def test_a_catalog_that_stays_down_is_let_go_with_its_reason() -> None:
    world = World()
    c = await opened(world)
    world.catalog.down = True
    with pytest.raises(OutcomeUnknown, match="ConnectionError: no route to the catalog"):
        await c.commit(change(c, 5))
    world.catalog.down = False
    await c.load()
    assert await c.commit(change(c, 5))


async def test_an_invalid_table_is_not_tried_again() -> None:
    world = World()
    c = committer(world)
    world.catalog.inner.create_namespace("ns")
    world.catalog.inner.create_table(("ns", "t"), SCHEMA, properties={"format-version": "1"})
    await c.load()
    with pytest.raises(Invalid, match="format version 1"):
        await c.commit(change(c, 5))
    assert world.catalog.commits == 0
