"""Brokers without sockets, several at once, on one metadata store, bucket and disk, all in memory: the real Registration,
Takeover, Controller, WalOpener, WALs, metadata and streams. Time goes on as a test says."""

import asyncio
import itertools
from dataclasses import replace
from typing import Any

from simulation.world.disk import SimDisk
from support.memory_store import MemoryStore
from support.wait import DEADLINE_S

from streamlake.broker.controller import Controller
from streamlake.broker.registration import Registration
from streamlake.broker.takeover import Takeover
from streamlake.broker.wal import WalOpener
from streamlake.cluster.brokers import Brokers
from streamlake.cluster.store.database import Database
from streamlake.cluster.store.membership import Membership
from streamlake.cluster.store.stream_metadata import SqlStreamMetadata
from streamlake.cluster.topics import Topics
from streamlake.cluster.watch import LOOK_INTERVAL_S
from streamlake.config import Config
from streamlake.core.budget import Budget
from streamlake.core.ids import Ids
from streamlake.core.tasks import InlineExecutor
from streamlake.s3stream.settings import StreamsSettings
from streamlake.s3stream.store.cluster_marker import claim
from streamlake.s3stream.stream import Stream
from streamlake.s3stream.streams import Streams

SHARED = "file:///shared?shared=true"
DATA = "s3://lake/data"
PATIENCE = 100  # looks
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
        return self

    async def topic_of(self, topics: Topics) -> int:
        """The id of the stream of the one topic."""
        await topics.refresh()
        topic = topics.get("t") or await topics.create("t", 1, {})
        return topic.partitions[0].stream_id

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
        database, identity = self.world.database, self.membership.identity
        self.takeover = Takeover(opener, machine, database, identity, self.store, StreamsSettings())
        self.wal, self.key = await opener.open_wal(await self.takeover.drain_own())
        clock: Any = self.world.clock
        self.topics = Topics(database, identity, clock, self.machine.ids)
        self.brokers = Brokers(identity, "localhost", 9092)
        self.controller = Controller(
            opener, self.takeover, database, database, self.membership, self.brokers, self.topics, clock, "localhost"
        )
        self.brokers.images += [self.topics, self.controller]

    async def start_streams(self) -> None:
        metadata = SqlStreamMetadata(self.world.database, self.membership.identity, self.key)
        settings = replace(StreamsSettings(), upload_interval_ms=3_600_000)
        self.streams = Streams(
            self.store, self.wal, metadata, self.machine.ids, settings, Budget(1 << 30),
            self.fatal.append,
        )  # fmt: skip
        await self.streams.start()
        await self.topics.refresh()

    async def serve(self) -> "Life":
        """Until the stream is open; the clock goes on meanwhile."""
        await self.start_streams()
        stream_id = await self.world.topic_of(self.topics)
        for _ in range(PATIENCE):
            await self.controller.round()
            await self.takeover.drain_given()
            (found,) = await self.streams.open([stream_id])
            if isinstance(found, Stream):
                self.stream = found
                await self.membership.beat()
                return self
            self.world.clock.advance(LOOK_INTERVAL_S)
            await asyncio.sleep(0)
        raise AssertionError(f"not open: {found}, {self.takeover.failing}")

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
