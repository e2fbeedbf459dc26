"""A metadata store of each kind, with one registered broker, for the tests of what lives in it."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url
from sqlalchemy.pool import NullPool
from support import postgres as support
from support.members import next_process
from support.postgres import Postgres
from support.wait import DEADLINE_S

from streamlake.cluster.store import migrations
from streamlake.cluster.store import postgres as postgres_module
from streamlake.cluster.store.database import Database
from streamlake.cluster.store.fences import BrokerIdentity
from streamlake.cluster.store.membership import Membership
from streamlake.cluster.store.postgres import DRIVER
from streamlake.cluster.store.schema import metadata
from streamlake.cluster.store.stream_metadata import SqlStreamMetadata
from streamlake.cluster.store.wals import WalKey, Wals
from streamlake.cluster.topics import TopicLimits, Topics
from streamlake.core.ids import Ids
from streamlake.core.tasks import InlineExecutor, ThreadExecutor


@dataclass
class ManualClock:
    milliseconds: int = 1_700_000_000_000
    boot_s: float = 1_000.0

    def now_ms(self) -> int:
        return self.milliseconds

    def boottime(self) -> float:
        return self.boot_s

    def advance(self, seconds: float) -> None:
        self.milliseconds += int(seconds * 1000)
        self.boot_s += seconds


@dataclass
class Cluster:
    """The metadata store and ways to act on it as a broker."""

    database: Database
    clock: ManualClock
    identity: BrokerIdentity | None = None
    ids: Ids = field(default_factory=lambda: Ids(7))

    async def member(self, node: int = 0) -> Membership:
        """A new process of the node: fences the one before."""
        return await next_process(self.database, self.clock, self.ids, node)

    async def register(self, node: int = 0) -> BrokerIdentity:
        return (await self.member(node)).identity

    async def adopt(self, identity: BrokerIdentity) -> WalKey:
        """The WAL of a process, whose positions go on."""
        return await Wals(self.database, identity).adopt("file:///wal", continues=True)

    async def topics(self, identity: BrokerIdentity | None = None, limits: TopicLimits | None = None) -> Topics:
        topics = Topics(self.database, identity or self.identity, self.clock, self.ids, limits)
        await topics.refresh()
        return topics

    async def metadata(self, node: int = 0) -> SqlStreamMetadata:
        """Stream metadata of a new process of the node, with its WAL."""
        identity = await self.register(node)
        return SqlStreamMetadata(self.database, identity, await self.adopt(identity))

    async def dump(self) -> dict[str, list[tuple]]:
        """Everything that is stored, to show that nothing changed."""
        return await self.database.read(
            lambda c: {t.name: [tuple(r) for r in c.execute(t.select())] for t in metadata.sorted_tables}
        )


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


class Servers:
    """PostgreSQL, and brokers' metadata stores on it, each with a thread and a connection of its own."""

    def __init__(self, server: Postgres, name: str, clock: ManualClock) -> None:
        self.server = server
        self.name = name
        self.url = server.url(name)
        self._clock = clock
        self._opened: list[tuple[Database, ThreadExecutor]] = []

    async def open(self, *, real_clock: bool = False) -> Database:
        """Another broker's. Unless `real_clock`, the clock of the server is the test's."""
        executor = ThreadExecutor("metadata")
        database = await Database.open(self.url, executor, self._clock)
        self._opened.append((database, executor))
        if not real_clock:
            database.now_ms = lambda connection: self._clock.now_ms()  # type: ignore[method-assign]
        return database

    async def emptied(self) -> Database:
        """As new, also after a test that left sessions behind. (A database of its own for each test takes 0.5 s.)"""
        self.server.end_sessions(self.name)
        database = await self.open()
        await database.write(lambda c: [c.execute(table.delete()).rowcount for table in reversed(TABLES)])
        return database

    async def close(self) -> None:
        for database, executor in self._opened:
            await database.close()
            executor.close()


TABLES = metadata.sorted_tables


@pytest.fixture(scope="session")
def server() -> Iterator[Postgres]:
    if reason := support.missing():
        pytest.skip(reason)
    with Postgres() as server:
        yield server


@pytest.fixture(scope="session")
def migrated(server: Postgres) -> str:
    """The name of a database whose tables are made."""
    name = server.database()
    engine = create_engine(make_url(server.url(name)).set(drivername=DRIVER), poolclass=NullPool)
    with engine.begin() as connection:
        migrations.upgrade(connection)
    return name


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limits of sessions, which are short, say nothing about a machine that is busy with other things. Tests of a
    limit set it themselves."""
    for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
        monkeypatch.setitem(postgres_module.SESSION, name, f"{DEADLINE_S}s")


@pytest.fixture
async def postgres(server: Postgres, migrated: str, clock: ManualClock, patient: None) -> AsyncIterator[Servers]:
    servers = Servers(server, migrated, clock)
    await servers.emptied()
    yield servers
    await servers.close()


@pytest.fixture(params=["file", "memory", "postgres"])
async def database(request, tmp_path: Path, clock: ManualClock) -> AsyncIterator[Database]:
    """SQLite in a file and in memory, run inline as in simulation; PostgreSQL on a thread as in a server."""
    if request.param == "postgres":
        request.getfixturevalue("patient")
        servers = Servers(request.getfixturevalue("server"), request.getfixturevalue("migrated"), clock)
        yield await servers.emptied()
        await servers.close()
        return
    url = "sqlite://" if request.param == "memory" else f"sqlite:///{tmp_path}/metadata.db"
    database = await Database.open(url, InlineExecutor(), clock)
    yield database
    await database.close()


@pytest.fixture
async def cluster(database: Database, clock: ManualClock) -> Cluster:
    cluster = Cluster(database, clock)
    cluster.identity = await cluster.register()
    return cluster
