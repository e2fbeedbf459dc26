import asyncio

import pytest
from support.table_world import TOPIC, World, good
from support.wait import DEADLINE_S, turns

from streamlake.core.budget import Budget
from streamlake.core.errors import Corrupt, Invalid, Unavailable
from streamlake.table.commit.progress import Progress, beginning
from streamlake.table.task import gather
from streamlake.table.task.gather import ACCOUNT, Gatherer
from streamlake.table.task.round import Round

START = beginning("c", TOPIC, "i", 1)


def gatherer(world: World, round_bytes: int = 1 << 20, budget: Budget | None = None) -> Gatherer:
    return Gatherer(world.spec(), world.log, world.executor, budget or world.budget, round_bytes)


def after(done: Round) -> Progress:
    return done.start.advanced(1, done.positions, {})


async def test_reads_all_partitions_to_their_ends_and_accounts_for_everything() -> None:
    world = World(3)
    world.log.produce(0, good(range(5)))
    world.log.abort(0, good([1, 2]))
    world.log.garbage(2, 4)
    world.log.produce(2, good([1]))
    g = gatherer(world)
    done = await g.gather(START, 0.0)
    assert done.positions == {0: 8, 2: 5}
    assert done.skipped == {"aborted": 2, "control": 1}
    assert done.dead_positions == 4
    done.check_account(rows=6, rowless=0)
    assert g.lag(START) == 13
    assert g.lag(after(done)) == 0


async def test_nothing_new() -> None:
    world = World()
    done = await gatherer(world).gather(START, 0.0)
    assert not done.has_progress
    assert done.size_bytes == 0


async def test_a_full_round_ends_early_and_the_next_goes_on_with_another_partition() -> None:
    world = World(3)
    for partition in (0, 1, 2):
        for n in range(3):
            world.log.produce(partition, good([n]))
    g = gatherer(world, round_bytes=1)
    first = await g.gather(START, float("inf"))
    assert first.positions == {0: 1}
    second = await g.gather(after(first), float("inf"))
    assert second.positions == {1: 1}
    third = await g.gather(after(second), float("inf"))
    assert third.positions == {2: 1}


async def test_waits_for_more_until_it_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "POLL_S", 0.001)
    world = World()
    world.log.produce(0, good([1]))
    looks = iter(range(100))
    world.executor.before = lambda _: world.log.produce(0, good([2])) if next(looks) < 3 else None
    done = await gatherer(world).gather(START, asyncio.get_running_loop().time() + 0.2)
    assert done.positions == {0: 4}


async def test_the_first_records_after_an_idle_time_end_the_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "POLL_S", 0.001)
    world = World()
    loop = asyncio.get_running_loop()
    empty = await gatherer(world).gather(START, loop.time(), loop.time() + 0.05)
    assert not empty.has_progress
    filling = asyncio.create_task(gatherer(world).gather(START, loop.time(), float("inf")))
    await asyncio.sleep(0.01)
    world.log.produce(0, good([1]))
    assert (await asyncio.wait_for(filling, 60)).positions == {0: 1}


async def test_memory_is_taken_and_given_back() -> None:
    world = World()
    world.log.produce(0, good(range(100)))
    g = gatherer(world)
    done = await g.gather(START, 0.0)
    assert world.budget.accounts[ACCOUNT] == done.size_bytes > 100
    g.release(done)
    g.release(done)
    assert world.budget.accounts[ACCOUNT] == 0


async def test_a_round_that_holds_memory_does_not_wait_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "FETCH_BYTES", 1)
    world = World()
    for n in range(3):
        world.log.produce(0, good(range(n * 10, n * 10 + 10)))
    size = (await gatherer(world, 1).gather(START, 0.0)).size_bytes
    done = await gatherer(world, budget=Budget(size + size // 2)).gather(START, float("inf"))
    assert done.positions == {0: 10}


async def test_no_memory_at_all_is_unavailable_not_a_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "MEMORY_TIMEOUT_S", 0.01)
    world = World()
    world.log.produce(0, good(range(10)))
    budget = Budget(1 << 20)
    assert budget.try_take("others", 1 << 20)
    with pytest.raises(Unavailable, match=r"no .* bytes of memory"):
        await gatherer(world, budget=budget).gather(START, 0.0)
    assert budget.accounts.get(ACCOUNT, 0) == 0


async def test_an_error_in_the_middle_gives_the_memory_back() -> None:
    world = World(2)
    world.log.produce(0, good(range(10)))
    world.log.produce(1, good(range(10)))
    base, last, batch = world.log.batches[1][0]
    world.log.batches[1][0] = (base, last, batch[:-1] + bytes([batch[-1] ^ 1]))
    with pytest.raises(Corrupt):
        await gatherer(world).gather(START, 0.0)
    assert world.budget.accounts[ACCOUNT] == 0


async def test_deleted_positions_are_skipped() -> None:
    world = World()
    for n in range(5):
        world.log.produce(0, good([n]))
    world.log.delete_before(0, 3)
    done = await gatherer(world).gather(START, 0.0)
    assert done.positions == {0: 5}
    assert done.skipped == {"deleted_before_translation": 3}
    done.check_account(rows=2, rowless=0)


async def test_retention_may_pass_between_the_look_and_the_fetch() -> None:
    world = World()
    for n in range(5):
        world.log.produce(0, good([n]))
    original = world.log.fetch

    async def late(*args, **more):
        if world.log.start[0] == 0:
            world.log.delete_before(0, 3)
        return await original(*args, **more)

    world.log.fetch = late
    done = await gatherer(world).gather(START, 0.0)
    assert done.positions == {0: 5}
    done.check_account(rows=2, rowless=0)


async def test_a_log_that_lost_its_end_stops_the_table() -> None:
    world = World()
    world.log.produce(0, good([1]))
    with pytest.raises(Invalid, match="the log lost data"):
        await gatherer(world).gather(START.advanced(1, {0: 7}, {}), 0.0)


async def test_a_partition_that_is_not_there_yet_is_left_out() -> None:
    world = World()
    world.log.produce(0, good([1]))
    g = Gatherer(world.spec(partitions=4), world.log, world.executor, world.budget, 1 << 20)
    assert (await g.gather(START, 0.0)).positions == {0: 1}


async def test_a_fetch_larger_than_all_memory_is_taken_by_itself() -> None:
    """A small batch may decode to more than the budget: it is there already, and must not stop the table for good."""
    world = World()
    world.log.produce(0, good(range(50)))
    budget = Budget(100)
    done = await gatherer(world, budget=budget).gather(START, 0.0)
    assert done.has_progress and done.size_bytes == 100


async def test_a_reader_ends_the_round_after_one_more_look() -> None:
    world = World()
    world.log.produce(0, good([1]))
    g = gatherer(world)
    filling = asyncio.create_task(g.gather(START, float("inf")))
    await turns()
    assert not filling.done(), "it waits for more records until it is due"
    world.log.produce(0, good([2]))
    asking = asyncio.create_task(g.flush.ask())
    done = await asyncio.wait_for(filling, DEADLINE_S)
    assert (done.positions, done.caught_up, asking.done()) == ({0: 2}, True, False)
    g.flush.done()
    await asking


async def test_a_reader_is_not_served_by_a_round_that_is_full() -> None:
    world = World()
    for n in range(2):
        world.log.produce(0, good([n]))
    g = gatherer(world, round_bytes=1)
    asking = asyncio.create_task(g.flush.ask())
    await turns()
    first = await g.gather(START, 0.0)
    assert (first.positions, first.caught_up, g.flush.begun) == ({0: 1}, False, True)
    second = await g.gather(after(first), 0.0)
    last = await g.gather(after(second), float("inf"))
    assert last.caught_up and not asking.done()
    g.flush.done()
    await asking
