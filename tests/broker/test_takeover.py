"""Brokers that follow one another, overlap, sleep and take each other over, on one metadata store, bucket and disk.

The real Takeover, WalOpener, WALs, metadata and streams, in memory; waiting moves the clock. What these tests tell was found by an
adversarial review. Real processes: tests/faults/test_wal_change.py; everything at once: tests/simulation.
"""

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from simulation.world.disk import SimDisk, SimFile
from support.memory_store import MemoryStore
from support.wait import DEADLINE_S

from streamlake.broker import takeover as takeover_module
from streamlake.broker.registration import Registration
from streamlake.broker.takeover import Takeover
from streamlake.broker.wal import WalOpener
from streamlake.cluster.store.database import Database
from streamlake.cluster.store.membership import Membership
from streamlake.cluster.store.stream_metadata import SqlStreamMetadata, create_streams
from streamlake.config import Config
from streamlake.core.budget import Budget
from streamlake.core.errors import Corrupt, Invalid, StreamLakeError, Unavailable
from streamlake.core.ids import Ids
from streamlake.core.tasks import InlineExecutor
from streamlake.s3stream.settings import StreamsSettings
from streamlake.s3stream.store.cluster_marker import claim
from streamlake.s3stream.streams import Streams

SHARED = "file:///shared?shared=true"
DATA = "s3://lake/data"
NO_ACK_S = 0.3  # who is fenced is not kept waiting for ever
seeds = itertools.count(1)


class Clock:
    def __init__(self) -> None:
        self.ms, self.boot = 1_700_000_000_000, 1000.0

    def now_ms(self) -> int:
        return self.ms

    def boottime(self) -> float:
        return self.boot

    def advance(self, seconds: float) -> None:
        self.ms += int(seconds * 1000)
        self.boot += seconds


class World:
    def __init__(self, stores: dict[str, MemoryStore] | None = None) -> None:
        self.clock = Clock()
        self.stores = {} if stores is None else stores
        self.disk = SimDisk()

    async def open(self) -> "World":
        self.database = await Database.open("sqlite://", InlineExecutor(), self.clock)
        self.streams = list(await self.database.write(lambda c: create_streams(c, 1)))
        return self

    async def life(self, node: int, wal: str) -> "Life":
        """Registered, not more."""
        life = Life(self, node, wal, next(seeds))
        await Registration(life.config, life.machine, self.database, life.membership).register("localhost", 9092)
        return life

    async def serving(self, node: int, wal: str) -> "Life":
        life = await self.life(node, wal)
        await life.open_wal()
        return await life.serve()


class Machine:
    def __init__(self, world: World, seed: int) -> None:
        self.clock, self.ids, self.disk = world.clock, Ids(seed), world.disk.session()
        self._stores = world.stores

    def executor(self, name: str, threads: int = 1) -> InlineExecutor:
        return InlineExecutor()

    async def open_store(self, url: str) -> MemoryStore:
        return self._stores.setdefault(url, MemoryStore())


class Life:
    def __init__(self, world: World, node: int, wal: str, seed: int) -> None:
        self.world, self.machine = world, Machine(world, seed)
        storage = {
            "data_dir": f"/node{node}", "wal": wal, "url": DATA, "metadata_url": "postgresql://x/y",
            "wal_segment_bytes": 65536, "wal_capacity_bytes": 1 << 20,
        }  # fmt: skip
        self.config = Config.model_validate({"server": {"node_id": node}, "storage": storage})
        self.membership = Membership(world.database, world.database, world.clock, self.machine.ids)  # type: ignore[arg-type]
        self.fatal: list[BaseException] = []

    async def open_wal(self) -> None:
        self.store = await self.machine.open_store(DATA)
        await claim(self.store, self.membership.identity.cluster_id, DATA, used_before=False)
        machine: Any = self.machine
        opener = WalOpener(self.config, machine, self.world.database, self.membership, self.store)
        self.takeover = Takeover(opener, machine, self.world.database, self.membership, self.store, StreamsSettings())
        self.wal, self.key = await opener.open_wal(await self.takeover.drain_others())

    async def serve(self) -> "Life":
        metadata = SqlStreamMetadata(self.world.database, self.membership.identity, self.key)
        settings = replace(StreamsSettings(), wal_readable=False, upload_interval_ms=3_600_000)
        self.streams = Streams(
            self.store, self.wal, metadata, self.machine.ids, settings, Budget(1 << 30),
            self.fatal.append,
        )  # fmt: skip
        await self.streams.start()
        (self.stream,) = await self.streams.open(self.world.streams)
        await self.membership.beat()
        return self

    async def append(self, data: bytes, within_s: float = DEADLINE_S) -> None:
        """Four bytes; acknowledged when it returns."""
        assert self.streams.try_reserve(4)
        async with asyncio.timeout(within_s):
            await self.stream.append(self.stream.next_offset, 1, 0, data)

    async def everything(self) -> list[bytes]:
        found: list[bytes] = []
        while len(found) < self.stream.durable_offset:
            data = b"".join(await self.stream.read(len(found), self.stream.durable_offset, 1 << 20))
            found += [data[at : at + 4] for at in range(0, len(data), 4)]
        return found


@pytest.fixture(autouse=True)
def waiting_moves_the_clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Of the world whose broker waits; and locks do not reach beyond a machine."""
    sleep = asyncio.sleep

    async def wait(life: Takeover | Registration, seconds: float) -> None:
        life._machine.clock.advance(seconds)  # type: ignore[attr-defined]
        await sleep(0)

    monkeypatch.setattr(Takeover, "_pause", wait)
    monkeypatch.setattr(Registration, "_pause", wait)
    monkeypatch.setattr(SimFile, "lock", lambda self: True)
    yield


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
    store.gate.set()
    with pytest.raises(StreamLakeError):
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


async def test_of_two_that_start_the_one_that_stays_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one had begun to take the dead node over, too, and gave up: its fence is newer than ours."""
    world = await World().open()
    await (await world.serving(0, "object")).append(b"keep")
    world.clock.advance(20)
    a, b = await world.life(1, "object"), await world.life(2, "object")
    fence, blocked = Takeover._fence, asyncio.Event()

    async def fence_slowly(takeover: Takeover, node: int) -> int:
        if takeover is a.takeover and node == 2:
            await blocked.wait()
        return await fence(takeover, node)

    monkeypatch.setattr(Takeover, "_fence", fence_slowly)
    starting = asyncio.create_task(a.open_wal())
    while not hasattr(a, "takeover"):
        await asyncio.sleep(0)
    for _ in range(50):
        await asyncio.sleep(0)
    monkeypatch.setattr(takeover_module, "TAKE_OVER_PATIENCE_S", 0)
    with pytest.raises(Unavailable, match="broker 1 is running"):
        await b.open_wal()
    await b.membership.leave()
    blocked.set()
    await starting
    assert await (await a.serve()).everything() == [b"keep"]


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
