"""The worker dies anywhere, the registry changes its mind meanwhile: every position lands exactly once all the same."""

import asyncio
import os
from random import Random

import pytest
from support.table_world import BAD, Executor, Killed, Pause, World, good, kill_at

from streamlake.core.errors import StreamLakeError
from streamlake.table.commit import machine as commit_machine

SEEDS = int(os.environ.get("STREAMLAKE_SEEDS", "6"))
STEPS = 15


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit_machine, "DELAY_FIRST_S", 0.0)


async def die_between_the_two_commits(world: World, round_bytes: int = 1 << 20) -> None:
    life = world.life(round_bytes=round_bytes)
    await life.table.open()
    commits = iter([None, Killed])

    def before(function: str) -> None:
        if function == "_commit" and next(commits) is Killed:
            raise Killed

    world.executor.before = before
    with pytest.raises(Killed):
        await life.round()
    world.executor.before = None


async def test_dead_by_a_deleted_schema_stays_dead_when_the_schema_is_back() -> None:
    world = World()
    world.log.produce(0, good(range(3)))
    await world.life().drain()
    world.log.produce(0, [*good([3, 4]), *good([5], 2)])
    world.registry.gone = {2}
    await die_between_the_two_commits(world)
    world.registry.gone = set()
    await world.life().drain()
    assert world.dead() == [(0, 5)]
    world.check()


async def test_good_stays_possible_when_the_schema_is_deleted_after_the_dead_letters_landed() -> None:
    """Offset 5 was bad and is visible as dead; 3 and 4 were good and are nowhere yet: now they are dead too."""
    world = World()
    world.log.produce(0, good(range(3)))
    await world.life().drain()
    world.log.produce(0, [*good([3, 4]), BAD])
    await die_between_the_two_commits(world)
    world.registry.gone = {1}
    await world.life().drain()
    assert world.rows() == [(0, 0), (0, 1), (0, 2)]
    assert world.dead() == [(0, 3), (0, 4), (0, 5)]
    world.check()


async def test_shorter_rounds_after_the_crash_keep_what_was_decided_beyond_them() -> None:
    world = World()
    world.log.produce(0, good(range(3)))
    await world.life().drain()
    for n in range(4):
        world.log.produce(0, [*good([n]), *good([n], 2)])
    world.registry.gone = {2}
    await die_between_the_two_commits(world)
    world.registry.gone = set()
    life = world.life(round_bytes=1)
    await life.table.open()
    await life.round()  # covers a part of what is decided
    await die_anywhere_then_restart(world)
    world.check()
    assert len(world.dead()) == 4


async def die_anywhere_then_restart(world: World) -> None:
    life = world.life(round_bytes=1)
    await life.table.open()
    await life.round()
    await world.life(round_bytes=1).drain()


async def test_a_new_dead_letter_does_not_take_back_older_decisions() -> None:
    world = World()
    world.log.produce(0, good(range(3)))
    await world.life().drain()
    world.log.produce(0, good([3]))
    world.log.produce(0, good([4], 2))
    world.registry.gone = {2}
    await die_between_the_two_commits(world)  # offset 4 is dead
    world.registry.gone = {1}
    await die_between_the_two_commits(world, round_bytes=1)  # offset 3 is dead too, by a round that ends before 4
    world.registry.gone = set()
    life = world.life(round_bytes=1)
    await life.table.open()
    await life.round()
    world.log.produce(0, good([5]))
    await world.life(round_bytes=1).drain()
    assert world.dead() == [(0, 3), (0, 4)]
    world.check()


async def test_a_bad_batch_survives_the_crash_as_one_dead_letter() -> None:
    world = World()
    world.log.produce(0, good(range(3)))
    world.log.garbage(0, 5)
    await die_between_the_two_commits_of_the_first_life(world)
    await world.life().drain()
    assert world.dead() == [(0, o) for o in range(3, 8)]
    world.check()


async def die_between_the_two_commits_of_the_first_life(world: World) -> None:
    """The first life also creates and claims: count only the commits of the round's files."""
    life = await world.opened()
    original = life.table._commit_main

    async def killed(*args: object, **more: object) -> bool:
        raise Killed

    life.table._commit_main = killed
    with pytest.raises(Killed):
        await life.round()
    life.table._commit_main = original


def produce_something(world: World, random: Random) -> None:
    partition = random.randrange(len(world.log.end))
    kind = random.random()
    if kind < 0.6:
        world.log.produce(partition, good(range(random.randint(1, 6)), random.choice((1, 1, 2))))
    elif kind < 0.8:
        world.log.produce(partition, [random.choice((BAD, None, *good([1]))) for _ in range(random.randint(1, 4))])
    elif kind < 0.9:
        world.log.abort(partition, good(range(3)))
    else:
        world.log.garbage(partition, random.randint(1, 3))
    world.registry.gone = {id for id in (1, 2) if random.random() < 0.2}


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_killed_at_random_points(seed: int) -> None:
    """Lives end at any blocking call; the catalog lies at random; rounds are of any size; zombies wake up late."""
    random = Random(seed)
    world = World(partitions=random.randint(1, 3), seed=seed)
    zombies: list[tuple[asyncio.Task[None], Pause]] = []
    for _ in range(STEPS):
        produce_something(world, random)
        world.catalog.plan = [random.choice((None, None, "lost", "timeout", "conflict")) for _ in range(3)]
        executor = Executor()
        life = world.life(executor, round_bytes=random.choice((1, 300, 1 << 20)))
        fate = random.random()
        if fate < 0.4:
            executor.before = kill_at(random.randint(1, 25))
        elif fate < 0.55:
            zombies.append(
                (
                    asyncio.create_task(survive(life)),
                    Pause(executor, random.choice(("_commit", "put")), random.randint(1, 3)),
                )
            )
            await asyncio.sleep(0)
            continue
        await survive(life)
        if zombies and random.random() < 0.5:
            await wake(zombies.pop(random.randrange(len(zombies))))
    for zombie in zombies:
        await wake(zombie)
    world.registry.gone = set()
    world.catalog.plan = []
    life = world.life()
    await life.drain()
    world.check()
    assert life.table.main.progress.rows == len(world.rows())
    assert list(life.table.reached.next) == world.log.end[: len(life.table.reached.next)]


async def survive(life: object) -> None:
    try:
        await life.drain()
    except (Killed, StreamLakeError):
        pass


async def wake(zombie: tuple[asyncio.Task[None], Pause]) -> None:
    task, pause = zombie
    pause.go.set()
    await task
