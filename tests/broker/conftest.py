"""A broker without sockets: real metadata, streams and partitions, on a store and a WAL in memory."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from simulation.world.disk import SimFile
from support.log_bench import NOW_MS, FixedClock, append
from support.members import controller, next_process
from support.memory_store import MemoryStore
from support.memory_wal import MemoryWal, WalLog
from support.peer_server import PeerServer

from streamlake.broker.ownership import Partitions
from streamlake.broker.registration import Registration
from streamlake.broker.table_rules import CatalogRules
from streamlake.catalogs.named import NamedCatalogs
from streamlake.cluster.broker_configs import BrokerConfigs
from streamlake.cluster.brokers import Brokers
from streamlake.cluster.store.database import Database
from streamlake.cluster.store.membership import Membership
from streamlake.cluster.store.stream_metadata import SqlStreamMetadata
from streamlake.cluster.store.table_progress import TableProgress
from streamlake.cluster.store.topic_rows import TopicInfo
from streamlake.cluster.store.wals import WalKey, Wals
from streamlake.cluster.topics import Topics
from streamlake.core.budget import Budget
from streamlake.core.deadlines import Deadlines
from streamlake.core.ids import Ids
from streamlake.core.tasks import InlineExecutor, Supervisor
from streamlake.handlers.handovers import Handovers
from streamlake.log.manager import LogManager
from streamlake.log.partition import Partition
from streamlake.record.decode import Record
from streamlake.record.encode import encode_batch
from streamlake.s3stream.settings import StreamsSettings
from streamlake.s3stream.streams import Streams

MIB = 1 << 20


@dataclass
class Site:
    """What survives a broker."""

    database: Database
    store: MemoryStore = field(default_factory=MemoryStore)
    wal_logs: dict[int, WalLog] = field(default_factory=lambda: defaultdict(WalLog))  # by node
    clock: FixedClock = field(default_factory=lambda: FixedClock(NOW_MS))
    lives: list["Life"] = field(default_factory=list)

    async def start(self, catalogs: NamedCatalogs | None = None, node: int = 0) -> "Life":
        member = await next_process(self.database, self.clock, Ids(1), node)
        wals = Wals(self.database, member.identity)
        wal = await wals.adopt("file:///wal", continues=True)
        life = Life(self, member, wal, catalogs)
        self.lives.append(life)
        await life.start(wals, wal)
        return life

    async def move(self, topic: TopicInfo, index: int, node: int) -> None:
        """Assign a partition to a node; running brokers see it at once."""
        running = [life for life in self.lives if life.is_running]
        await running[0].topics.refresh()
        await running[0].topics.assign(await controller(running[0].member), {(topic.id, index): node})
        for life in running:
            await life.topics.refresh()


class Life:
    """One life of a broker."""

    def __init__(self, site: Site, member: Membership, wal: WalKey, catalogs: NamedCatalogs | None) -> None:
        identity = member.identity
        self.member = member
        self.is_running = False
        self.failures: list[BaseException] = []
        self.clock = site.clock
        self.configs = BrokerConfigs(site.database, identity, {})
        rules = CatalogRules(catalogs, self.configs) if catalogs is not None else None
        self.topics = Topics(site.database, identity, site.clock, Ids(identity.epoch), rules=rules)
        self.progress = TableProgress(site.database, identity)
        self.logs = LogManager(site.clock, InlineExecutor())
        self.wal = MemoryWal(site.wal_logs[identity.node])
        self.streams = Streams(
            site.store,
            self.wal,
            SqlStreamMetadata(site.database, identity, wal),
            Ids(3),
            StreamsSettings(log_cache_bytes=8 * MIB, block_cache_bytes=MIB, upload_bytes=MIB),
            Budget(256 * MIB),
            self.failures.append,
        )
        self.brokers = Brokers(identity, "localhost", 9092)
        self.handovers = Handovers(self.brokers, self.topics, self.logs, Deadlines(asyncio.get_running_loop()))
        self.tasks = Supervisor(lambda _, error: self.failures.append(error))
        self.partitions = Partitions(
            identity.node,
            self.topics,
            self.configs,
            self.progress,
            self.streams,
            self.logs,
            self.handovers,
            self.tasks,
            retention_interval_s=0.01,
        )

    async def start(self, wals: Wals, wal: WalKey) -> None:
        await self.topics.refresh()
        await self.configs.refresh()
        await self.streams.start()
        await self.partitions.start(wals, wal)
        self.is_running = True

    async def stop(self) -> None:
        self.is_running = False
        await self.tasks.stop()
        self.logs.close_all()
        await self.streams.close()

    async def create(self, name: str, partitions: int = 1, **configs: str) -> TopicInfo:
        given = {key.replace("_", "."): value for key, value in configs.items()}
        return await self.topics.create(name, partitions, given)

    async def append(self, partition: Partition, count: int = 1, age_ms: int = 0) -> int:
        """The offset after it, durable."""
        batch = encode_batch([Record(at, self.clock.ms - age_ms, None, b"v") for at in range(count)])
        assert self.streams.try_reserve(len(batch))
        await append(partition, batch).durable
        return partition.high_watermark


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    clock = FixedClock(NOW_MS)
    database = await Database.open(f"sqlite:///{tmp_path / 'metadata.db'}", InlineExecutor(), clock)
    site = Site(database, clock=clock)
    yield site
    for life in site.lives:
        await life.stop()
        assert not life.failures
    await database.close()
    await asyncio.sleep(0)


@pytest.fixture
def brokers_on_several_machines(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Waiting moves the clock of the world; locks do not reach beyond a machine, and the metadata store is shared."""
    sleep = asyncio.sleep

    async def wait(life: Registration, seconds: float) -> None:
        life._machine.clock.advance(seconds)  # type: ignore[attr-defined]
        await sleep(0)

    monkeypatch.setattr(Registration, "_pause", wait)
    monkeypatch.setattr(Database, "is_ours_alone", False)
    monkeypatch.setattr(SimFile, "lock", lambda self: True)
    yield


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., PeerServer]]:
    """Starts other brokers that answer messages of brokers, and no more."""
    servers: list[PeerServer] = []

    async def serve(node: int, *settings) -> PeerServer:
        servers.append(await PeerServer(node, *settings).start())
        return servers[-1]

    yield serve
    for server in servers:
        await server.stop()
