import asyncio
from itertools import pairwise

import pytest
from pyiceberg.table.update import RemoveSnapshotsUpdate
from support.table_world import Life, World, good

from streamlake.table.upkeep import maintenance, schedule
from streamlake.table.upkeep.schedule import Upkeep


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "SWEEP_S", 0.0)
    monkeypatch.setattr(maintenance, "MERGE_AT", 5)
    monkeypatch.setattr(maintenance, "GRACE_MS", 0)


async def started(world: World) -> tuple[Life, Upkeep]:
    life = await world.opened()
    return life, Upkeep(life.table.main, world.tools())


async def test_merges_and_sweeps_between_rounds(quick: None) -> None:
    world = World()
    life, keeper = await started(world)
    keeper.maintenance._grace_ms = 0
    await keeper.run()  # no table yet: nothing to do
    for n in range(40):
        world.log.produce(0, good([n]))
        await life.round()
        await keeper.run()
    assert keeper.maintenance.merges > 0
    assert keeper.maintenance.files_removed > 0
    assert len(world.load().current_snapshot().manifests(world.load().io)) < 20
    assert life.table.main.conflicts == 0
    world.check()


async def test_looks_at_a_snapshot_once(quick: None) -> None:
    world = World()
    life, keeper = await started(world)
    world.log.produce(0, good([1]))
    await life.round()
    await keeper.run()
    calls = world.executor.calls
    await keeper.run()
    assert world.executor.calls == calls


async def test_its_errors_stop_no_rows(quick: None) -> None:
    world = World()
    life, keeper = await started(world)
    await life.rounds(6)
    world.catalog.plan = ["timeout"]  # the merge lands, and nobody tells us
    await keeper.run()
    assert keeper.maintenance.merges == 0
    assert keeper.failures == 1
    assert "merging manifests of default.orders fails since" in keeper.failing
    assert "TimeoutError" in keeper.failing
    for n in range(6):
        world.log.produce(0, good([n]))
        await life.round()
        await keeper.run()
    world.check()


async def test_what_fails_is_tried_later_and_later(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    life, keeper = await started(world)
    await life.rounds(6)
    now, tries = asyncio.get_running_loop().time(), []
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)

    def fails(*_: object) -> None:
        tries.append(now)
        raise ConnectionError("no route to the store")

    with monkeypatch.context() as broken:
        broken.setattr(keeper.maintenance, "_merged", fails)
        for _ in range(100):
            await keeper.run()
            now += 5
    assert [round(b - a) for a, b in pairwise(tries)] == [10, 20, 40, 80, 160]
    assert keeper.failures == len(tries)
    now = keeper._jobs[0].next_at
    await keeper.run()
    assert keeper.failing == ""
    assert keeper.maintenance.merges == 1


async def test_a_commit_that_was_faster_is_no_failure(quick: None) -> None:
    world = World()
    life, keeper = await started(world)
    await life.rounds(6)
    world.catalog.plan = ["conflict"]
    await keeper.run()
    assert (keeper.failures, keeper.failing) == (0, "")


async def test_what_a_failed_sweep_left_is_swept_later(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "RETRY_FIRST_S", 0.0)
    world = World()
    life, keeper = await started(world)
    keeper.maintenance._grace_ms = 0
    missing = None
    for n in range(40):
        world.log.produce(0, good([n]))
        await life.round()
        if n == 20:  # a snapshot that is kept has lost its list: what it needs is unknown, so nothing is removed
            table = world.load()
            missing = table.metadata.snapshots[-2].manifest_list
            kept = world.files.pop(missing)
        await keeper.run()
        if n == 21:
            assert "removing old files of default.orders fails since" in keeper.failing
            removed = keeper.maintenance.files_removed
        if n == 22:
            assert keeper.maintenance.files_removed == removed
            world.files[missing] = kept
    assert keeper.failing == ""
    assert keeper.maintenance.files_removed > removed
    world.check()


async def test_an_overtaken_merge_waits_for_another_head(quick: None) -> None:
    """Each try puts two files."""
    world = World()
    life, keeper = await started(world)
    await life.rounds(6)
    await life.table.confirm()
    other = world.load()
    other.append(other.scan().to_arrow().slice(0, 1))
    await keeper.run()
    files = len(world.files)
    for _ in range(5):
        await keeper.run()
        await life.table.confirm()
    assert (len(world.files), keeper.failures) == (files, 0)


async def test_snapshots_that_another_engine_expired_are_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "SWEEP_S", 0.0)
    world = World()
    life, keeper = await started(world)
    keeper.maintenance._grace_ms = 0
    await life.rounds(25)
    await life.table.confirm()
    keeper.maintenance.observe(life.table.main.table)
    table = world.load()
    kept = {ref.snapshot_id for ref in table.metadata.refs.values()}
    gone = [s for s in table.metadata.snapshots if s.snapshot_id not in kept]
    update = RemoveSnapshotsUpdate(snapshot_ids=[s.snapshot_id for s in gone])
    world.catalog.inner.commit_table(table, (), (update,))
    for snapshot in gone:
        world.files.pop(snapshot.manifest_list, None)
    await keeper.run()
    assert keeper.failing == ""
    world.check()
