"""Topics and their partitions as rows: all of them, one of them, or what changed."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import Column, Connection, Select, select

from streamlake.cluster.config.definition import boolean
from streamlake.cluster.store import schema
from streamlake.cluster.store.revision import changes_since
from streamlake.cluster.store.schema import in_lists
from streamlake.cluster.store.stream_metadata import NEVER_OPENED
from streamlake.core.errors import NotFound

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PartitionInfo:
    index: int
    stream_id: int
    node: int | None  # of the broker that is to have it open; None: nobody has been chosen yet
    # Of its stream, as the metadata store held them at the image's revision or later.
    epoch: int = NEVER_OPENED  # the leader epoch in which it was opened last
    owner: int | None = None  # the node that has it open; None: it was closed
    owner_epoch: int = 0  # the life of that node, or of the last one


@dataclass(frozen=True, slots=True)
class TopicInfo:
    name: str
    id: UUID
    configs: Mapping[str, str]  # explicit configs under canonical keys
    partitions: tuple[PartitionInfo, ...]  # by index, 0 and up without a gap

    @property
    def is_table(self) -> bool:
        return boolean(self.configs.get("streamlake.table.enable", "false"))

    @property
    def table_node(self) -> int | None:
        """The broker that writes the topic's table: the one that has its first partition."""
        return self.partitions[0].node


@dataclass(frozen=True, slots=True)
class TopicsNow:
    """What is there now of the topics that changed after a revision, or of all topics."""

    revision: int
    is_all: bool
    topics: Mapping[UUID, TopicInfo]  # those that are missing were deleted
    touched: Collection[UUID]  # of these topics everything is in `topics`; empty if it is of all
    partitions: Mapping[UUID, Mapping[int, PartitionInfo]]  # of other topics, by topic and index: only these changed


def load_topic(connection: Connection, topic: str | UUID) -> TopicInfo:
    """The topic as the transaction sees it, its row locked. NotFound."""
    t = schema.topic.c
    which = t.id == topic if isinstance(topic, UUID) else t.name == topic
    topic_id = connection.execute(select(t.id).where(which).with_for_update()).scalar()
    if topic_id is None:
        raise NotFound(f"topic {topic} does not exist")
    return _topics(connection, [topic_id])[topic_id]


def load_changed(connection: Connection, seen: int) -> TopicsNow:
    """What changed after the revision `seen`; all, if that is -1 or too long ago. Never older than its revision."""
    changes = changes_since(connection, seen)
    if not changes.is_complete:
        return TopicsNow(changes.revision, True, _topics(connection, None), (), {})
    partitions: dict[UUID, dict[int, PartitionInfo]] = {}
    for topic_id, partition in _partitions(connection, streams=sorted(changes.streams)):
        if topic_id not in changes.topics:
            partitions.setdefault(topic_id, {})[partition.index] = partition
    topics = _topics(connection, sorted(changes.topics)) if changes.topics else {}
    return TopicsNow(changes.revision, False, topics, changes.topics, partitions)


def _topics(connection: Connection, ids: Sequence[UUID] | None) -> dict[UUID, TopicInfo]:
    """Of these topics, or of all."""
    t, c = schema.topic.c, schema.topic_config.c
    configs: dict[UUID, dict[str, str]] = {}
    query = select(c.topic_id, c.key, c.value).order_by(c.key)
    for each in _each(query, c.topic_id, ids):
        for topic_id, key, value in connection.execute(each):
            configs.setdefault(topic_id, {})[key] = value
    partitions: dict[UUID, list[PartitionInfo]] = {}
    for topic_id, partition in _partitions(connection, topics=ids):
        partitions.setdefault(topic_id, []).append(partition)
    return {
        i: TopicInfo(name, i, MappingProxyType(configs.get(i, {})), tuple(partitions.get(i, ())))
        for each in _each(select(t.id, t.name).order_by(t.name), t.id, ids)
        for i, name in connection.execute(each)
    }


def _partitions(
    connection: Connection, topics: Sequence[UUID] | None = None, streams: Sequence[int] | None = None
) -> Iterator[tuple[UUID, PartitionInfo]]:
    """By topic and index: those of these topics, or with these streams, or all."""
    p, s = schema.partition.c, schema.stream.c
    query = select(p.topic_id, p.index, p.stream_id, p.node, s.epoch, s.owner, s.owner_epoch)
    query = query.join(schema.stream, s.id == p.stream_id).order_by(p.topic_id, p.index)
    queries = _each(query, p.topic_id, topics) if streams is None else _each(query, p.stream_id, streams)
    for each in queries:
        for topic_id, *found in connection.execute(each):
            yield topic_id, PartitionInfo(*found)


def _each(query: "Select[Any]", column: "Column[T]", values: Sequence[T] | None) -> list["Select[Any]"]:
    """The query for these values of a column, in as many statements as that takes; for all values if None."""
    return [query] if values is None else [query.where(column.in_(some)) for some in in_lists(values)]
