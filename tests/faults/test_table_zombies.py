"""Two committers for one table: a worker that was thought dead wakes up next to its successor."""

import asyncio

import pyarrow as pa
import pytest
from support.table_world import BAD, Executor, Pause, World, good

from streamlake.core.errors import Conflict, Fenced


async def paused(world: World, function: str, nth: int = 1) -> tuple[asyncio.Task[bool], Pause]:
    """A worker that opened the table and stopped in its round, right before the nth call of `function`."""
    executor = Executor()
    life = world.life(executor)
    await life.table.open()
    pause = Pause(executor, function, nth)
    task = asyncio.create_task(life.round())
    await pause.reached.wait()
    return task, pause


async def ends_without_landing(zombie: asyncio.Task[bool], pause: Pause) -> None:
    pause.go.set()
    with pytest.raises((Fenced, Conflict)):
        await zombie


def test_pyiceberg_alone_lets_a_zombie_in() -> None:
    """Why we do not use its Transaction: its retry rebuilds the requirement, and the same rows land twice."""
    catalog = World().catalog.inner
    catalog.create_namespace("n")
    rows = pa.table({"offset": pa.array([0, 1, 2], pa.int64())})
    catalog.create_table("n.t", schema=rows.schema)
    zombie, successor = catalog.load_table("n.t"), catalog.load_table("n.t")
    successor.append(rows)
    zombie.append(rows)
    assert catalog.load_table("n.t").scan().to_arrow().num_rows == 6


@pytest.mark.parametrize("function", ["_stage", "put", "_commit"])
async def test_a_zombie_wakes_after_its_successor_committed(function: str) -> None:
    world = World()
    world.log.produce(0, good(range(5)))
    await world.life().drain()
    world.log.produce(0, good(range(5)))
    zombie, pause = await paused(world, function)
    await world.life().drain()
    await ends_without_landing(zombie, pause)
    world.check()


async def test_a_zombie_wakes_after_its_successor_only_opened() -> None:
    """The successor's claim alone fences it: from then on nothing it decided may become visible."""
    world = World()
    world.log.produce(0, good(range(5)))
    await world.life().drain()
    world.log.produce(0, good(range(5)))
    zombie, pause = await paused(world, "_commit")
    successor = world.life()
    await successor.table.open()
    await ends_without_landing(zombie, pause)
    assert len(world.rows()) == 5
    await successor.round()
    world.check()


async def test_a_zombies_dead_letter_cannot_land_after_the_successor_found_the_record_good() -> None:
    world = World()
    world.log.produce(0, good(range(5)))
    await world.life().drain()
    world.log.produce(0, good([5, 6]))
    world.registry.gone = {1}
    zombie, pause = await paused(world, "_commit")  # the commit to the dead-letter table
    world.registry.gone = set()
    await world.life().drain()
    await ends_without_landing(zombie, pause)
    assert world.dead() == []
    world.check()


async def test_a_zombies_row_cannot_land_after_the_successor_found_the_record_bad() -> None:
    world = World()
    world.log.produce(0, good(range(5)))
    await world.life().drain()
    world.log.produce(0, good([5, 6]))
    zombie, pause = await paused(world, "_commit")
    world.registry.gone = {1}
    successor = world.life()
    await successor.drain()
    await ends_without_landing(zombie, pause)
    assert world.dead() == [(0, 5), (0, 6)]
    world.check()


async def test_a_zombies_dead_letters_land_before_the_claim_and_are_final() -> None:
    world = World()
    world.log.produce(0, good(range(5)))
    await world.life().drain()
    world.log.produce(0, good([5, 6]))
    world.registry.gone = {1}
    zombie, pause = await paused(world, "_commit", nth=2)  # its dead letters have landed, the main table has not
    world.registry.gone = set()
    await world.life().drain()
    await ends_without_landing(zombie, pause)
    assert world.dead() == [(0, 5), (0, 6)]
    world.check()


async def test_two_first_lives_create_one_table() -> None:
    world = World()
    world.log.produce(0, [*good(range(3)), BAD])
    zombie, pause = await paused(world, "_create")
    await world.life().drain()
    await ends_without_landing(zombie, pause)
    world.check()
