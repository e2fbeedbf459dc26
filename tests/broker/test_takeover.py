"""Brokers that follow one another, overlap, sleep and take each other over, on one metadata store, bucket and disk.

The real Takeover, Controller, WalOpener, WALs, metadata and streams, in memory; waiting moves the clock. What these
tests tell was found by an adversarial review. Real processes: tests/faults/test_wal_change.py; everything at once:
tests/simulation.
"""

import asyncio
from typing import Any

import pytest
from simulation.world.disk import SimDisk
from support.broker_lives import DATA, NO_ACK_S, SHARED, World
from support.memory_store import MemoryStore

from streamlake.cluster.store.drains import Drains
from streamlake.cluster.store.wals import all_wals
from streamlake.cluster.watch import LOOK_INTERVAL_S
from streamlake.core.errors import Corrupt, Fenced, Invalid, OutcomeUnknown, StreamLakeError, Unavailable
from streamlake.s3stream.stream import Stream

pytestmark = pytest.mark.usefixtures("brokers_on_several_machines")


@pytest.mark.parametrize("wal", ["object", SHARED, "s3://other/x"])
async def test_lives_follow_one_another(wal: str) -> None:
    world = await World().open()
    await (await world.serving(0, wal)).append(b"aaaa")
    await (await world.serving(0, wal)).append(b"bbbb")
    await (await world.serving(0, "object")).append(b"cccc")
    assert await (await world.serving(7, wal)).everything() == [b"aaaa", b"bbbb", b"cccc"]


@pytest.mark.parametrize("successor", [1, 2], ids=["the node itself", "another node"])
async def test_a_lease_on_a_shared_disk_is_waited_for(successor: int) -> None:
    """Hazard C4. That life is alive, and acknowledges what it syncs to a shared disk as long as it holds its lease."""
    world = await World().open()
    one = await world.serving(1, SHARED)
    await one.append(b"aaaa")
    next_one = await world.serving(successor, SHARED)
    assert not one.membership.held()
    with pytest.raises((TimeoutError, StreamLakeError)):
        await one.append(b"lost", NO_ACK_S)
    assert await next_one.everything() == [b"aaaa"]


async def test_only_a_shared_disk_needs_the_lease() -> None:
    """Nobody else can replay what is on a disk of its own: acknowledgements go on while the metadata store is away."""
    world = await World().open()
    own, shared = await world.serving(1, "file"), await World().open()
    world.clock.advance(60)
    assert not own.membership.held()
    await own.append(b"aaaa")
    other = await shared.serving(1, SHARED)
    shared.clock.advance(60)
    with pytest.raises(TimeoutError):
        await other.append(b"held", NO_ACK_S)


async def test_a_wall_clock_that_was_set_ends_no_lease() -> None:
    """Of the metadata store (NTP, a failover): the owner counts its lease by its own clock, and so does who waits."""
    world = await World().open()
    one = await world.serving(1, SHARED)
    await one.append(b"aaaa")
    world.clock.ms += 12_000
    two = await world.serving(2, SHARED)
    with pytest.raises((TimeoutError, StreamLakeError)):
        await one.append(b"lost", NO_ACK_S)
    assert await two.everything() == [b"aaaa"]


async def test_a_start_that_was_overtaken_is_fenced() -> None:
    """It finds the WAL of the life that overtook it, which it must not take for one of an earlier life."""
    world = await World().open()
    slow = await world.life(1, "object")
    await world.serving(1, "object")
    with pytest.raises(Fenced):
        await slow.open_wal()


async def test_a_broker_that_sleeps_before_it_has_a_wal_is_fenced_too() -> None:
    world = await World().open()
    store = world.stores.setdefault(DATA, MemoryStore())
    store.fail("create", "slow", key="probe/")
    one = await world.life(1, "object")
    starting = asyncio.create_task(one.open_wal())
    while not store.calls or not store.calls[-1][1].startswith("probe/"):
        await asyncio.sleep(0)
    world.clock.advance(20)
    two = await world.serving(2, "object")
    await two.append(b"keep")
    for _ in range(20):
        world.clock.advance(LOOK_INTERVAL_S)
        await two.membership.beat()
        await two.controller.round()
    store.gate.set()
    with pytest.raises(Fenced):
        await starting
    assert await (await world.serving(3, "object")).everything() == [b"keep"]


async def test_a_store_that_was_exchanged_for_an_empty_one_is_no_empty_wal() -> None:
    """Another endpoint, a disk that is not mounted."""
    world = await World().open()
    await (await world.serving(0, "s3://wal/x")).append(b"keep")
    real = world.stores.pop("s3://wal/x")
    with pytest.raises(Corrupt, match="is not the store that this cluster has used"):
        await world.serving(0, "s3://other/y")
    world.stores["s3://wal/x"] = real
    assert await (await world.serving(0, "s3://other/y")).everything() == [b"keep"]


async def test_a_node_on_another_machine_does_not_take_the_directory_there_for_its_own() -> None:
    """Found by simulation: every machine has that directory, perhaps of an earlier life of the very node."""
    world = await World().open()
    await (await world.serving(0, "file")).append(b"keep")
    there, world.disk = world.disk, SimDisk()
    with pytest.raises(Unavailable, match="bring"):
        await world.serving(0, "file")
    world.disk.makedirs("/node0/wal")
    world.disk.open("/node0/wal/lock", create=True).pwrite([b"of an earlier life"], 0)
    for wal in ("file", "object"):
        with pytest.raises(Unavailable, match="not the one that this broker wrote last"):
            await world.serving(0, wal)
    world.disk = there
    assert await (await world.serving(0, "file")).everything() == [b"keep"]


async def test_two_metadata_stores_do_not_share_a_bucket() -> None:
    """Both count from one: the second would fence, replay and discard the log of the first."""
    stores: dict[str, MemoryStore] = {}
    ours, other = await World(stores).open(), await World(stores).open()
    await (await ours.serving(0, "object")).append(b"keep")
    for wal in ("object", "file:///elsewhere"):
        with pytest.raises(Invalid, match="belongs to cluster"):
            await other.serving(0, wal)
    stores["s3://second/x"] = stores[DATA]
    with pytest.raises(Invalid, match="belongs to cluster"):
        await other.serving(0, "s3://second/x")
    assert await (await ours.serving(0, "object")).everything() == [b"keep"]


async def test_two_that_start_at_once_take_a_dead_one_over_together() -> None:
    """One is the controller; should it end in the middle, the other one goes on."""
    world = await World().open()
    await (await world.serving(0, "object")).append(b"keep")
    a, b = await world.life(1, "object"), await world.life(2, "object")
    await asyncio.gather(a.open_wal(), b.open_wal())
    for life in (a, b):
        await life.topics.refresh()
    world.stores[DATA].fail("create", "slow", key="wal/0/")
    while not a.controller.is_active:
        world.clock.advance(LOOK_INTERVAL_S)
        await asyncio.gather(*[life.membership.beat() for life in (a, b)])
        await asyncio.gather(*[life.controller.round() for life in (a, b)])
    assert not b.controller.is_active
    draining = asyncio.create_task(a.takeover.drain_given())
    for _ in range(50):
        await asyncio.sleep(0)
    assert not draining.done()
    draining.cancel()
    await asyncio.gather(draining, return_exceptions=True)
    world.stores[DATA].heal()
    assert await (await b.serve()).everything() == [b"keep"]
    assert b.controller.is_active


async def test_a_drain_that_cannot_be_done_keeps_no_broker_from_serving() -> None:
    """The WAL of the dead one is damaged: its streams wait, and the operator is told."""
    world = await World().open()
    await (await world.serving(0, "object")).append(b"keep")
    store = world.stores[DATA]
    (key,) = [k for k, data in store.objects.items() if k.startswith("wal/0/") and len(data) > 100]
    whole = store.objects[key]
    store.objects[key] = whole[:-1] + b"?"
    other = await world.life(1, "object")
    await other.open_wal()
    with pytest.raises(AssertionError, match="not open"):
        await other.serve()
    assert isinstance(next(iter(other.takeover.failing.values())), Corrupt)
    store.objects[key] = whole
    await other.takeover.drain_given()
    assert other.takeover.failing == {}
    (stream,) = await other.streams.open([await world.topic_of(other.topics)])
    assert isinstance(stream, Stream) and stream.durable_offset == 1


@pytest.mark.parametrize("step", ["finish", "forget"])
async def test_a_drain_whose_last_answers_are_lost_is_ended_all_the_same(
    step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await World().open()
    await (await world.serving(0, "object")).append(b"keep")
    original, lost = getattr(Drains, step), [1]

    async def answer_lost(self: Drains, *args: Any) -> Any:
        found = await original(self, *args)
        if lost:
            lost.pop()
            raise OutcomeUnknown("the answer was lost")
        return found

    monkeypatch.setattr(Drains, step, answer_lost)
    one = await world.serving(1, "object")
    assert await one.everything() == [b"keep"] and not lost
    await one.takeover.drain_given()
    assert not one.takeover.failing
    assert [row.node for row in await all_wals(world.database)] == [1]


async def test_nothing_is_left_of_a_dead_node_whose_drain_was_interrupted() -> None:
    world = await World().open()
    zero = await world.serving(0, "object")
    for n in range(30):
        await zero.append(b"%04d" % n)
    store = world.stores[DATA]
    world.clock.advance(20)
    store.fail("create", "slow", key="wal/0/")  # the drain waits at its fence …
    dying = asyncio.create_task(world.serving(1, "object"))
    for _ in range(200):
        await asyncio.sleep(0)
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    store.heal()
    world.clock.advance(20)
    two = await world.serving(2, "object")
    assert len(await two.everything()) == 30
    left = [key for key, data in store.objects.items() if key.startswith("wal/0/") and len(data) > 100]
    assert left == []
