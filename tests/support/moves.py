"""Moves partitions of a running cluster, in the name of its controller."""

import asyncio
from collections.abc import Callable

from streamlake.cluster.store.controllers import term_of
from streamlake.cluster.store.database import Database
from streamlake.cluster.store.fences import BrokerIdentity
from streamlake.cluster.store.topic_rows import PartitionInfo
from streamlake.cluster.topics import Topics
from streamlake.core.clock import SystemClock
from streamlake.core.ids import Ids
from streamlake.core.tasks import ThreadExecutor


def move(metadata_url: str, topic: str, to: Callable[[PartitionInfo], int]) -> None:
    """Every partition of the topic goes to the node that `to` says."""
    asyncio.run(_move(metadata_url, topic, to))


async def _move(metadata_url: str, name: str, to: Callable[[PartitionInfo], int]) -> None:
    executor = ThreadExecutor("metadata")
    database = await Database.open(metadata_url, executor, SystemClock())
    term = await database.read(term_of)
    assert term is not None
    topics = Topics(database, BrokerIdentity("", term.node, term.broker_epoch), SystemClock(), Ids())
    await topics.refresh()
    topic = topics.get(name)
    assert topic is not None
    await topics.assign(term, {(topic.id, p.index): to(p) for p in topic.partitions})
    await database.close()
    executor.close()
