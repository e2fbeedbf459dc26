"""A metadata store of each kind, with one registered broker, for the tests of what lives in it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from streamlake.cluster.database import Database
from streamlake.cluster.membership import BrokerIdentity, Membership
from streamlake.cluster.tables import metadata
from streamlake.cluster.topics import TopicLimits, Topics
from streamlake.core.ids import Ids
from streamlake.core.tasks import InlineExecutor


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

    async def register(self, node: int = 0) -> BrokerIdentity:
        """A new process of the node: fences the one before."""
        membership = Membership(self.database, self.clock, self.ids)
        return await membership.register(node, "localhost", 9092, "file:///wal")

    async def topics(self, identity: BrokerIdentity | None = None, limits: TopicLimits | None = None) -> Topics:
        topics = Topics(self.database, identity or self.identity, self.clock, self.ids, limits)
        await topics.refresh()
        return topics

    async def dump(self) -> dict[str, list[tuple]]:
        """Everything that is stored, to show that nothing changed."""
        return await self.database.read(
            lambda c: {t.name: [tuple(r) for r in c.execute(t.select())] for t in metadata.sorted_tables}
        )


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["file", "memory"])
async def database(request, tmp_path: Path, clock: ManualClock) -> AsyncIterator[Database]:
    """SQLite in a file and in memory, run inline as in simulation."""
    url = "sqlite://" if request.param == "memory" else f"sqlite:///{tmp_path}/metadata.db"
    database = await Database.open(url, InlineExecutor(), clock)
    yield database
    await database.close()


@pytest.fixture
async def cluster(database: Database, clock: ManualClock) -> Cluster:
    cluster = Cluster(database, clock)
    cluster.identity = await cluster.register()
    return cluster
