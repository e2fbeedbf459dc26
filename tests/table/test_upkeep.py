import pytest
from support.table_world import Life, World, good

from streamlake.table import maintenance, upkeep
from streamlake.table.upkeep import Upkeep


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "SWEEP_S", 0.0)
    monkeypatch.setattr(maintenance, "MERGE_AT", 5)
    monkeypatch.setattr(maintenance, "GRACE_MS", 0)


async def started(world: World) -> tuple[Life, Upkeep]:
    life = world.life()
    await life.table.open()
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


async def test_its_errors_are_nobodys_business(quick: None) -> None:
    world = World()
    life, keeper = await started(world)
    for n in range(6):
        world.log.produce(0, good([n]))
        await life.round()
    world.catalog.plan = ["timeout"]  # the merge lands, and nobody tells us
    await keeper.run()
    assert keeper.maintenance.merges == 0
    for n in range(6):
        world.log.produce(0, good([n]))
        await life.round()
        await keeper.run()
    world.check()
