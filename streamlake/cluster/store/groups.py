"""Consumer groups and their committed offsets, durable before they are acknowledged.

SQL instead of an internal topic: a failover replays nothing, no compaction is needed, and a commit is one transaction
with all that it changes. An offset belongs to the id of a topic, not to its name: it is deleted with the topic, and a
commit that arrives during the deletion cannot appear in a later topic of the same name.

The store knows no protocol: members are opaque bytes of the coordinator.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from uuid import UUID

from sqlalchemy import Connection, delete, exists, func, select

from streamlake.cluster.store import schema
from streamlake.cluster.store.database import Database
from streamlake.cluster.store.fences import BrokerIdentity, SlotEpoch
from streamlake.cluster.store.schema import in_lists, upsert
from streamlake.cluster.store.slots import SlotWrites


@dataclass(frozen=True, slots=True)
class GroupRow:
    group_id: str
    generation: int
    protocol_type: str
    protocol: str | None  # None while no generation is stable
    leader: str | None  # member id
    members: bytes
    updated_ms: int  # wall clock; of an empty group: since when it is empty
    kind: str = "classic"  # what the coordinator runs it as, and reads `members` with


@dataclass(frozen=True, slots=True)
class OffsetRow:
    topic: str
    partition: int
    offset: int
    leader_epoch: int  # -1 if the consumer did not send it
    metadata: str
    commit_ms: int


class GroupStore:
    """Every write is fenced by the epoch of this broker, and by that of the group's slot. Concurrent calls share one
    commit (`Database`)."""

    def __init__(self, database: Database, identity: BrokerIdentity, fenced: Callable[[], None]) -> None:
        """`fenced`: see SlotWrites."""
        self._database = database
        self._write = SlotWrites(database, identity, fenced).write

    async def load_groups(self, slots: Collection[int]) -> list[GroupRow]:
        """All groups of these slots, by id."""
        c = schema.consumer_group.c
        query = select(c.group_id, c.generation, c.protocol_type, c.protocol, c.leader, c.members, c.updated_ms, c.kind)
        query = query.where(c.slot.in_(sorted(slots))).order_by(c.group_id)
        return await self._database.read(lambda connection: [GroupRow(*row) for row in connection.execute(query)])

    async def save_group(self, row: GroupRow, slot: SlotEpoch) -> None:
        def run(connection: Connection) -> None:
            upsert(connection, schema.consumer_group, [{**asdict(row), "slot": slot.slot}])

        await self._write(run, slot)

    async def delete_group(self, group_id: str, slot: SlotEpoch, only_without_offsets: bool = False) -> bool:
        """Delete the group, if it exists, with its offsets. False: a transaction that is open is to commit some, or it
        has some and is to be deleted `only_without_offsets`; nothing was deleted."""

        def run(connection: Connection) -> bool:
            # Offsets of transactions are added under the fence of the same slot, so none comes between.
            if _select_pending(connection, group_id) or (only_without_offsets and _has_offsets(connection, group_id)):
                return False
            for table in (schema.consumer_offset, schema.consumer_group):
                connection.execute(delete(table).where(table.c.group_id == group_id))
            return True

        return await self._write(run, slot)

    async def commit_offsets(self, group_id: str, offsets: Sequence[OffsetRow], slot: SlotEpoch) -> None:
        """The offsets are durable when it returns (synchronous=FULL: a committed offset never goes back). Offsets of
        topics that do not exist are ignored. The caller has checked member and generation, in the state of the group
        that it has read under this epoch of its slot."""

        def run(connection: Connection) -> None:
            ids = topic_ids(connection, {row.topic for row in offsets})
            known = [row for row in offsets if row.topic in ids]
            upsert(connection, schema.consumer_offset, [offset_values(group_id, ids, row) for row in known])

        await self._write(run, slot)

    async def delete_offsets(self, group_id: str, offsets: Collection[tuple[str, int]], slot: SlotEpoch) -> None:
        """Delete what is committed for these topics and partitions. What a transaction is to commit remains."""
        partitions: dict[str, list[int]] = {}
        for topic, partition in offsets:
            partitions.setdefault(topic, []).append(partition)

        def run(connection: Connection) -> None:
            o = schema.consumer_offset.c
            for topic, topic_id in topic_ids(connection, set(partitions)).items():
                mine = delete(schema.consumer_offset).where(o.group_id == group_id, o.topic_id == topic_id)
                for some in in_lists(sorted(set(partitions[topic]))):
                    connection.execute(mine.where(o.partition.in_(some)))

        await self._write(run, slot)

    async def oldest_commits(self, slots: Collection[int]) -> dict[str, int]:
        """When the oldest offset of each group of these slots was committed, of the groups that have offsets."""
        g, o = schema.consumer_group.c, schema.consumer_offset.c
        query = select(o.group_id, func.min(o.commit_ms)).join(schema.consumer_group, g.group_id == o.group_id)
        query = query.where(g.slot.in_(sorted(slots))).group_by(o.group_id)
        return await self._database.read(lambda connection: {row[0]: row[1] for row in connection.execute(query)})

    async def expire_offsets(
        self, group_id: str, until_ms: int, kept_topics: Collection[str], slot: SlotEpoch
    ) -> tuple[int, bool]:
        """Delete offsets that were committed until then, but those of `kept_topics`, and those that a transaction that
        is open is to replace. How many, and whether the group has no offsets now."""

        def run(connection: Connection) -> tuple[int, bool]:
            o, p, t = schema.consumer_offset.c, schema.txn_offset.c, schema.topic.c
            expired = (o.group_id == group_id, o.commit_ms <= until_ms)
            query = select(t.id, t.name).join(schema.consumer_offset, t.id == o.topic_id).where(*expired).distinct()
            topics = [topic_id for topic_id, name in connection.execute(query) if name not in kept_topics]
            replaces = (p.group_id == o.group_id, p.topic_id == o.topic_id, p.partition == o.partition)
            found = delete(schema.consumer_offset).where(*expired, ~exists().where(*replaces))
            count = sum(connection.execute(found.where(o.topic_id.in_(some))).rowcount for some in in_lists(topics))
            return count, not _has_offsets(connection, group_id)

        return await self._write(run, slot)

    async def fetch_offsets(self, group_id: str) -> list[OffsetRow]:
        """All committed offsets of the group, by topic and partition."""
        return await self._database.read(lambda connection: _select_offsets(connection, group_id))

    async def fetch_with_pending(self, group_id: str) -> tuple[list[OffsetRow], set[tuple[str, int]]]:
        """As `fetch_offsets`, and the topics and partitions of which a transaction that is open is to commit an offset:
        as they were at one moment, so that an offset is seen as pending until it is seen as committed."""
        return await self._database.read(
            lambda connection: (_select_offsets(connection, group_id), _select_pending(connection, group_id))
        )


def topic_ids(connection: Connection, names: set[str]) -> dict[str, UUID]:
    """name → id of the topics that exist. It waits for a deletion that is under way; a topic that it finds exists until
    the commit."""
    t = schema.topic.c
    query = select(t.name, t.id).order_by(t.id).with_for_update(read=True, key_share=True)
    queries = (query.where(t.name.in_(some)) for some in in_lists(sorted(names)))
    return {name: topic_id for query in queries for name, topic_id in connection.execute(query)}


def offset_values(group_id: str, topic_ids: Mapping[str, UUID], row: OffsetRow) -> dict[str, object]:
    """The columns of a committed offset, and of one that a transaction is to commit."""
    return {
        "group_id": group_id,
        "topic_id": topic_ids[row.topic],
        "partition": row.partition,
        "offset": row.offset,
        "leader_epoch": row.leader_epoch,
        "metadata": row.metadata,
        "commit_ms": row.commit_ms,
    }


def _select_offsets(connection: Connection, group_id: str) -> list[OffsetRow]:
    o, t = schema.consumer_offset.c, schema.topic.c
    query = select(t.name, o.partition, o.offset, o.leader_epoch, o.metadata, o.commit_ms)
    query = query.join(schema.topic, t.id == o.topic_id).where(o.group_id == group_id).order_by(t.name, o.partition)
    return [OffsetRow(*row) for row in connection.execute(query)]


def _has_offsets(connection: Connection, group_id: str) -> bool:
    o = schema.consumer_offset.c
    return connection.execute(select(o.partition).where(o.group_id == group_id).limit(1)).first() is not None


def _select_pending(connection: Connection, group_id: str) -> set[tuple[str, int]]:
    o, t = schema.txn_offset.c, schema.topic.c
    query = select(t.name, o.partition).join(schema.topic, t.id == o.topic_id).where(o.group_id == group_id)
    return {(name, partition) for name, partition in connection.execute(query)}
