"""Topics: their names, ids, partitions and configs, as rows of the metadata store and as an image of them in memory.

Reads are answered from the image. A change is one transaction that ends by incrementing the revision of the cluster;
the image and the listeners follow after the commit, in commit order, even if the caller was cancelled. An operation
awaits the followers, so its change can be used on this broker when it returns. Changes that the image has missed (a
lost answer, another broker) are read again by `refresh`.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Protocol, TypeAlias
from uuid import UUID

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from streamlake.cluster.config.table import PREFIX
from streamlake.cluster.config.topic import altered_configs, check_topic_configs
from streamlake.cluster.store import schema
from streamlake.cluster.store.controllers import Term, require_controller
from streamlake.cluster.store.database import Database
from streamlake.cluster.store.fences import BrokerIdentity
from streamlake.cluster.store.revision import Kind, lock_revision, next_revision
from streamlake.cluster.store.schema import in_lists, upsert
from streamlake.cluster.store.stream_metadata import create_streams
from streamlake.cluster.store.table_progress import begin_table, extend_table, has_committed, release_holds
from streamlake.cluster.store.topic_rows import PartitionInfo, TopicInfo, TopicsNow, load_changed, load_topic
from streamlake.core.clock import Clock
from streamlake.core.errors import Exists, Invalid, NotFound, OutcomeUnknown
from streamlake.core.ids import Ids

NAME_CHARS_MAX = 249  # Kafka: a name and "-<partition>" must fit a file name
_LEGAL_NAME = re.compile(r"[a-zA-Z0-9._\-]+")


@dataclass(frozen=True, slots=True)
class TopicChange:
    """Created: `before` is None; deleted: `after` is None; else configs or partitions changed."""

    revision: int
    before: TopicInfo | None
    after: TopicInfo | None


# What keeps a topic's table, with these configs, from being made or written, as far as it can be told now.
TableProblems: TypeAlias = Callable[[str, Mapping[str, str]], Awaitable[Sequence[str]]]


class TableRules(Protocol):
    """What the catalogs of this server say to topics that are tables."""

    def check(self, topic: str, configs: Mapping[str, str], others: Iterable[TopicInfo]) -> None:
        """Invalid if the topic's table can never be, or would be that of another topic. `others` may hold the topic
        itself, as it was."""
        ...

    def catalog(self, configs: Mapping[str, str]) -> str:
        """The name of the catalog that these configs of a topic mean."""
        ...


@dataclass(frozen=True, slots=True)
class TopicLimits:
    partitions_per_topic_max: int = 10_000
    partitions_max: int = 100_000  # of all topics


class Topics:
    """Call `refresh` once before use: it reports every topic as created to the listeners."""

    def __init__(
        self,
        database: Database,
        identity: BrokerIdentity,
        clock: Clock,
        ids: Ids,
        limits: TopicLimits | None = None,
        rules: TableRules | None = None,
    ) -> None:
        self.revision = -1
        self.stale = asyncio.Event()  # a change was missed; image.keep_fresh reads the image again
        self.listeners: list[Callable[[TopicChange], None]] = []  # called on the loop; must not raise
        self.followers: list[Callable[[], Awaitable[None]]] = []  # each returns when it has applied all changes so far
        self._database = database
        self._identity = identity
        self._clock = clock
        self._ids = ids
        self._limits = limits or TopicLimits()
        self._rules = rules  # without, any table is possible
        self.table_problems: TableProblems | None = None  # without, a table is not tried when its configs are set
        self._by_name: dict[str, TopicInfo] = {}
        self._by_id: dict[UUID, TopicInfo] = {}
        self._by_alike: dict[str, str] = {}  # names by their form in metrics
        self._partitions = 0

    def get(self, name: str) -> TopicInfo | None:
        return self._by_name.get(name)

    def by_id(self, topic_id: UUID) -> TopicInfo | None:
        return self._by_id.get(topic_id)

    def all(self) -> list[TopicInfo]:
        """By name."""
        return [self._by_name[name] for name in sorted(self._by_name)]

    def check_create(self, name: str, partitions: int, configs: Mapping[str, str]) -> dict[str, str]:
        """Check all that `create` checks, without creating the topic. Returns the configs under canonical keys."""
        check_name(name)
        self.check_free(name)
        if not 1 <= partitions <= self._limits.partitions_per_topic_max:
            raise Invalid(f"{partitions} partitions: must be from 1 to {self._limits.partitions_per_topic_max}")
        self._check_room(partitions)
        checked = check_topic_configs(configs)
        self.check_table(name, checked)
        return checked

    def check_free(self, name: str) -> None:
        """Exists. Invalid if it differs from the name of a topic in '.' and '_' only: both would be one in metrics."""
        if name in self._by_name:
            raise Exists(f"topic {name} exists already")
        if other := self._by_alike.get(_alike(name)):
            raise _collision(name, other)

    async def create(self, name: str, partitions: int, configs: Mapping[str, str]) -> TopicInfo:
        """Exists; Invalid: name, number of partitions or configs."""
        checked = self.check_create(name, partitions, configs)
        topic_id = self._ids.uuid()

        def run(connection: Connection) -> TopicChange:
            lock_revision(connection)
            _require_free_name(connection, name)
            connection.execute(insert(schema.topic).values(id=topic_id, name=name))
            added = self._add_partitions(connection, topic_id, 0, partitions)
            topic = TopicInfo(name, topic_id, MappingProxyType(checked), added)
            _store_configs(connection, topic_id, checked, ())
            if topic.is_table:
                begin_table(connection, topic_id, {p.index: 0 for p in topic.partitions}, self._clock.now_ms())
            return TopicChange(next_revision(connection, Kind.TOPICS, [topic_id]), None, topic)

        return _after(await self._change(run))

    async def delete(self, topic: str | UUID) -> TopicInfo:
        """Delete a topic by name or id, and return it; NotFound. Garbage collection deletes the objects of its
        streams."""

        def run(connection: Connection) -> TopicChange:
            lock_revision(connection)
            doomed = load_topic(connection, topic)
            p = schema.partition.c
            streams = select(p.stream_id).where(p.topic_id == doomed.id)
            # Rows that refer to the streams and to the topic (epochs; configs, committed offsets, table progress) are
            # deleted in the same transaction, by ON DELETE CASCADE: no state has a part of a deleted topic.
            connection.execute(delete(schema.stream).where(schema.stream.c.id.in_(streams)))
            connection.execute(delete(schema.topic).where(schema.topic.c.id == doomed.id))
            return TopicChange(next_revision(connection, Kind.TOPICS, [doomed.id]), doomed, None)

        change = await self._change(run)
        assert change.before is not None
        return change.before

    def check_add_partitions(self, name: str, total: int) -> None:
        """Invalid if the limits do not allow so many partitions."""
        if total > self._limits.partitions_per_topic_max:
            raise Invalid(f"{total} partitions: must be at most {self._limits.partitions_per_topic_max}")
        if (topic := self.get(name)) is not None:
            self._check_room(total - len(topic.partitions))

    async def add_partitions(self, name: str, total: int) -> TopicInfo:
        """Grow to `total` partitions; Invalid unless that is more than now; NotFound."""
        self.check_add_partitions(name, total)

        def run(connection: Connection) -> TopicChange:
            lock_revision(connection)
            before = load_topic(connection, name)
            count = len(before.partitions)
            if total <= count:
                raise Invalid(f"topic {name} has {count} partitions already: ask for more than that, not for {total}")
            added = self._add_partitions(connection, before.id, count, total)
            if before.is_table:
                extend_table(connection, before.id, [p.index for p in added], self._clock.now_ms())
            after = replace(before, partitions=before.partitions + added)
            return TopicChange(next_revision(connection, Kind.TOPICS, [before.id]), before, after)

        return _after(await self._change(run))

    def check_alter_configs(self, name: str, set_: Mapping[str, str], remove: Collection[str] = ()) -> None:
        """Check all that `alter_configs` checks, without altering the topic; but for what only the metadata store can
        tell, whether the table has rows."""
        if (topic := self.get(name)) is None:
            raise NotFound(f"topic {name} does not exist")
        configs = altered_configs(topic.configs, set_, remove)
        if _of_table(configs) != _of_table(topic.configs):
            self.check_table(name, configs)

    def check_table(self, name: str, configs: Mapping[str, str]) -> None:
        """That a topic of this name and configs, if it is to be a table, can be one; Invalid."""
        if self._rules is not None:
            self._rules.check(name, configs, self._by_name.values())

    async def alter_configs(self, name: str, set_: Mapping[str, str], remove: Collection[str] = ()) -> TopicInfo:
        """Set and remove configs; Invalid changes nothing; NotFound."""
        if name in self._by_name:  # else the image does not know it yet
            self.check_alter_configs(name, set_, remove)
            await self._try_table(self._by_name[name], set_, remove)

        def run(connection: Connection) -> TopicChange:
            lock_revision(connection)
            before = load_topic(connection, name)
            after = replace(before, configs=MappingProxyType(altered_configs(before.configs, set_, remove)))
            moves = self._moves(connection, before, after)
            gone = [key for key in before.configs if key not in after.configs]
            _store_configs(connection, before.id, after.configs, gone)
            if after.is_table and (moves or not before.is_table):
                # In this transaction: retention must not run between the config and the hold.
                begin_table(connection, before.id, _log_starts(connection, before.id), self._clock.now_ms())
            elif before.is_table and not after.is_table:
                release_holds(connection, before.id)
            return TopicChange(next_revision(connection, Kind.TOPICS, [before.id]), before, after)

        return _after(await self._change(run))

    async def _try_table(self, topic: TopicInfo, set_: Mapping[str, str], remove: Collection[str]) -> None:
        """Invalid if the topic's records and schemas show that its table could not be."""
        configs = altered_configs(topic.configs, set_, remove)
        after = replace(topic, configs=MappingProxyType(configs))
        if self.table_problems is None or not after.is_table or _planned(configs) == _planned(topic.configs):
            return
        if problems := await self.table_problems(topic.name, configs):
            raise Invalid(f"{problems[0]}. `streamlake table plan {topic.name}` shows what is possible")

    def _moves(self, connection: Connection, before: TopicInfo, after: TopicInfo) -> bool:
        """Whether the table goes to another catalog. Invalid if it has rows: in another catalog its topic would begin
        anew, without what retention has deleted. A table that is switched on again begins anew anyway.

        A first commit that lands at this moment is not known here. The table in the next catalog has its rows too: it
        is another incarnation, and the report of the first one is not stored."""
        if self._rules is None or not (before.is_table and after.is_table):
            return False
        old, new = self._rules.catalog(before.configs), self._rules.catalog(after.configs)
        if old != new and has_committed(connection, before.id):
            raise Invalid(
                f"the table of topic {before.name} has rows in the catalog {old}: {PREFIX}catalog cannot become {new}; "
                "set streamlake.table.enable=false first, and true with the new catalog, to build it again from the log"
            )
        return old != new

    def _add_partitions(
        self, connection: Connection, topic_id: UUID, first: int, total: int
    ) -> tuple[PartitionInfo, ...]:
        """Assigned in turns to the brokers that are available; to this one while there is none: it is about to be."""
        b = schema.broker.c
        serving = select(b.node).where((b.state == schema.SERVING) & ~b.drained).order_by(b.node)
        nodes = list(connection.execute(serving).scalars()) or [self._identity.node]
        streams = create_streams(connection, total - first)
        added = tuple(PartitionInfo(first + at, i, nodes[i % len(nodes)]) for at, i in enumerate(streams))
        rows = [{"topic_id": topic_id, "index": p.index, "stream_id": p.stream_id, "node": p.node} for p in added]
        connection.execute(insert(schema.partition), rows)
        return added

    async def assign(self, term: Term, nodes: Mapping[tuple[UUID, int], int]) -> None:
        """As the controller: these partitions, by topic and index, belong to these nodes from now on. Those that are
        not in the image are ignored: they were deleted; and those that an operator has moved since the image was read.
        Conflict if another broker is the controller."""
        found = [(self._by_id[id].partitions[i], node) for (id, i), node in nodes.items() if id in self._by_id]
        moved = [{"stream": info.stream_id, "seen": info.node, "to": node} for info, node in found]
        if not moved:
            return
        p = schema.partition.c
        this = (p.stream_id == bindparam("stream")) & p.node.is_not_distinct_from(bindparam("seen", type_=p.node.type))

        def run(connection: Connection) -> int:
            lock_revision(connection)
            require_controller(connection, term)
            connection.execute(update(schema.partition).where(this).values(node=bindparam("to"), pinned=False), moved)
            return next_revision(connection, Kind.PARTITIONS, [info.stream_id for info, _ in found])

        # Safe whenever it lands: it says who should open a stream, never that it may. Only the stream's row does.
        await self._database.write(run, self._identity)
        self.stale.set()
        await self.refresh()

    async def refresh(self) -> None:
        """Read what changed since the image's revision, and report it to the listeners."""
        seen = self.revision
        reading = self._database.read(lambda connection: load_changed(connection, seen))
        reading.add_done_callback(self._reloaded)
        await asyncio.shield(reading)

    async def _change(self, run: Callable[[Connection], TopicChange]) -> TopicChange:
        # The image must follow the commit even if the caller is cancelled: the callback belongs to the write.
        writing = self._database.write(run, self._identity)
        writing.add_done_callback(self._committed)
        try:
            change = await asyncio.shield(writing)
        except OutcomeUnknown:
            self.stale.set()
            await self.refresh()
            raise
        if self.revision < change.revision:
            self.stale.set()
            await self.refresh()  # another broker, or a commit with a lost answer, made the revisions between
        for follower in self.followers:
            await follower()
        return change

    def _committed(self, writing: "asyncio.Future[TopicChange]") -> None:
        if writing.cancelled() or writing.exception() is not None:
            return
        change = writing.result()
        if change.revision == self.revision + 1:
            self._apply(change)

    def _reloaded(self, reading: "asyncio.Future[TopicsNow]") -> None:
        if reading.cancelled() or reading.exception() is not None:
            return
        now = reading.result()
        self.stale.clear()
        if now.revision < self.revision:
            return
        # Deletions first: a topic may exist again under its name with a new id.
        for topic_id in list(self._by_id) if now.is_all else now.touched:
            if topic_id not in now.topics and (gone := self._by_id.get(topic_id)) is not None:
                self._apply(TopicChange(now.revision, gone, None))
        for topic in now.topics.values():
            if (before := self._by_id.get(topic.id)) != topic:
                self._apply(TopicChange(now.revision, before, topic))
        for topic_id, changed in now.partitions.items():
            before = self._by_id[topic_id]
            partitions = tuple(changed.get(partition.index, partition) for partition in before.partitions)
            if partitions != before.partitions:
                self._apply(TopicChange(now.revision, before, replace(before, partitions=partitions)))
        self.revision = now.revision

    def _apply(self, change: TopicChange) -> None:
        self.revision = change.revision
        if change.before is not None:
            del self._by_name[change.before.name], self._by_id[change.before.id]
            self._by_alike.pop(_alike(change.before.name), None)
            self._partitions -= len(change.before.partitions)
        if change.after is not None:
            self._by_name[change.after.name] = self._by_id[change.after.id] = change.after
            self._by_alike[_alike(change.after.name)] = change.after.name
            self._partitions += len(change.after.partitions)
        for listener in self.listeners:
            listener(change)

    def _check_room(self, more: int) -> None:
        if self._partitions + more > self._limits.partitions_max:
            raise Invalid(
                f"{more} more partitions: the cluster has {self._partitions} of at most {self._limits.partitions_max}"
            )


def check_name(name: str) -> None:
    """Kafka's rules for topic names; Invalid."""
    if name in ("", ".", ".."):
        raise Invalid(f"{name!r} cannot be the name of a topic")
    if len(name) > NAME_CHARS_MAX:
        raise Invalid(f"the name of a topic must not be longer than {NAME_CHARS_MAX} characters, this has {len(name)}")
    if not _LEGAL_NAME.fullmatch(name):
        raise Invalid(f"topic name {name!r}: only letters, digits, '.', '_' and '-' are allowed")


def _planned(configs: Mapping[str, str]) -> dict[str, str]:
    """The configs that decide what a table is like."""
    aside = {PREFIX + key for key in ("commit.interval.ms", "errors.tolerance", "json.columns.max")}
    return {key: value for key, value in _of_table(configs).items() if key not in aside}


def _of_table(configs: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in configs.items() if key.startswith(PREFIX)}


def _after(change: TopicChange) -> TopicInfo:
    assert change.after is not None
    return change.after


def _require_free_name(connection: Connection, name: str) -> None:
    """Kafka refuses a name that differs from another in '.' and '_' only: both would be one in metrics."""
    t = schema.topic.c
    alike = func.replace(t.name, ".", "_") == _alike(name)
    for (other,) in connection.execute(select(t.name).where(alike)):
        if other == name:
            raise Exists(f"topic {name} exists already")
        raise _collision(name, other)


def _alike(name: str) -> str:
    return name.replace(".", "_")


def _collision(name: str, other: str) -> Invalid:
    return Invalid(f"topic name {name!r} collides with the existing topic {other!r}: '.' and '_' count as the same")


def _store_configs(connection: Connection, topic_id: UUID, configs: Mapping[str, str], remove: Collection[str]) -> None:
    c = schema.topic_config.c
    for keys in in_lists(sorted(remove)):
        connection.execute(delete(schema.topic_config).where((c.topic_id == topic_id) & c.key.in_(keys)))
    rows = [{"topic_id": topic_id, "key": key, "value": value} for key, value in sorted(configs.items())]
    upsert(connection, schema.topic_config, rows)


def _log_starts(connection: Connection, topic_id: UUID) -> dict[int, int]:
    """Locked to the commit, so that retention does not move them before the holds are there."""
    p, s = schema.partition.c, schema.stream.c
    query = select(p.index, s.start_offset).join(schema.stream, s.id == p.stream_id).where(p.topic_id == topic_id)
    return dict(connection.execute(query.order_by(s.id).with_for_update(read=True, of=schema.stream)).all())
