"""Moves partitions of a running cluster, in the name of its controller."""

import asyncio
from collections.abc import Callable

from streamlake.cluster.store.controllers import Term, term_of
from streamlake.cluster.store.database import Database
from streamlake.cluster.store.fences import BrokerIdentity
from streamlake.cluster.store.topic_rows import PartitionInfo
from streamlake.cluster.topics import Topics
from streamlake.core.clock import SystemClock
from streamlake.core.ids import Ids
from streamlake.core.tasks import ThreadExecutor


class Mover:
    """Use `of`, and `close` it."""

    def __init__(self, database: Database, executor: ThreadExecutor, term: Term) -> None:
        identity = BrokerIdentity("", term.node, term.broker_epoch)
        self._database, self._executor, self._term = database, executor, term
        self._topics = Topics(database, identity, SystemClock(), Ids())

    @classmethod
    async def of(cls, metadata_url: str) -> "Mover":
        executor = ThreadExecutor("metadata")
        database = await Database.open(metadata_url, executor, SystemClock())
        term = await database.read(term_of)
        assert term is not None
        return cls(database, executor, term)

    async def move(self, name: str, to: Callable[[PartitionInfo], int]) -> None:
        """Every partition of the topic goes to the node that `to` says."""
        await self._topics.refresh()
        topic = self._topics.get(name)
        assert topic is not None
        await self._topics.assign(self._term, {(topic.id, p.index): to(p) for p in topic.partitions})

    async def close(self) -> None:
        await self._database.close()
        self._executor.close()


def move(metadata_url: str, topic: str, to: Callable[[PartitionInfo], int]) -> None:
    """Once, as `Mover.move`."""

    async def run() -> None:
        mover = await Mover.of(metadata_url)
        await mover.move(topic, to)
        await mover.close()

    asyncio.run(run())
