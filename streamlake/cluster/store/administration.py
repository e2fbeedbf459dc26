"""What operators ask of a cluster, and what they are shown of it.

    drain   a node gets no partitions and slots any more, in this life and in later ones, until `undrain`
    move    a partition goes to a node of the operator's choice, and stays there as long as the node is available

Both are rows. A drain is carried out by the controller, whichever broker that is (broker/controller.py); a move by the
brokers themselves, which follow `partition.node` (broker/ownership.py). Any broker takes such requests.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy import Connection, bindparam, func, select, update

from streamlake.cluster.store import schema
from streamlake.cluster.store.database import Database
from streamlake.cluster.store.fences import BrokerIdentity
from streamlake.cluster.store.membership import BrokerInfo, brokers_of
from streamlake.cluster.store.revision import Kind, lock_revision, next_revision
from streamlake.cluster.store.schema import DRAINING, SERVING, in_lists
from streamlake.cluster.store.view import ClusterView, view_of
from streamlake.core.errors import Invalid, NotFound

Key = tuple[UUID, int]  # a partition: topic and index


@dataclass(frozen=True, slots=True)
class Placed:
    """Partitions that are assigned to one node and owned by one life of a node, or by nobody."""

    node: int | None
    owner: int | None
    owner_epoch: int
    partitions: int


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    view: ClusterView
    placed: list[Placed]
    slots: Mapping[int, int] = field(default_factory=dict)  # how many, by node

    def assigned(self, node: int) -> int:
        """Partitions that the node is to have."""
        return sum(p.partitions for p in self.placed if p.node == node)

    def owned(self, node: int) -> int:
        """Partitions that it has open, or whose last records lie in its WAL alone."""
        return sum(p.partitions for p in self.placed if p.owner == node)

    def is_empty(self, node: int) -> bool:
        """Whether the node has nothing that its clients would miss."""
        return not self.assigned(node) and not self.owned(node) and not self.slots.get(node, 0)


@dataclass(frozen=True, slots=True)
class Move:
    """A partition that one node has, and another one is to have."""

    topic_id: UUID
    index: int
    source: int
    target: int | None


class Administration:
    def __init__(self, database: Database, identity: BrokerIdentity) -> None:
        """`identity`: of the broker that was asked."""
        self._database = database
        self._identity = identity

    async def drain(self, node: int, *, until_restart: bool = False) -> None:
        """Nothing is assigned to the node any more, and what it has is assigned to others; `until_restart`: in its
        present life only. NotFound. Invalid if no other broker could have its partitions."""

        def run(connection: Connection) -> None:
            lock_revision(connection)  # of two drains at once, the second one sees the first
            brokers = _brokers(connection, node)
            if not any(b.is_available for b in brokers.values() if b.node != node):
                raise Invalid(
                    f"broker {node} cannot be drained: no other broker is there to have its partitions. Start one, or"
                    " undrain one"
                )
            b = schema.broker.c
            drained = update(schema.broker).where(b.node == node)
            if not until_restart:
                connection.execute(drained.values(drained=True))
            elif brokers[node].is_available:
                connection.execute(drained.values(state=DRAINING))

        # Safe whenever it lands: it changes what will be assigned, never who may open a stream.
        await self._database.write(run, self._identity)

    async def undrain(self, node: int) -> None:
        """The node gets its share again. NotFound."""

        def run(connection: Connection) -> None:
            lock_revision(connection)
            drained = update(schema.broker).where(schema.broker.c.node == node)
            connection.execute(drained.values(drained=False))
            if _brokers(connection, node)[node].state == DRAINING:
                connection.execute(drained.values(state=SERVING))

        await self._database.write(run, self._identity)

    async def move(self, targets: Mapping[Key, int]) -> None:
        """Assign these partitions to these nodes; they stay there as long as the nodes are available. Partitions that
        were deleted are ignored. Invalid: a node that cannot have them; then nothing is changed."""

        def run(connection: Connection) -> None:
            lock_revision(connection)
            brokers = {broker.node: broker for broker in brokers_of(connection)}
            for node in sorted(set(targets.values())):
                if (broker := brokers.get(node)) is None or not broker.is_available:
                    state = "not there" if broker is None else "drained" if broker.drained else broker.state
                    raise Invalid(f"broker {node} is {state}: name one that serves and is not drained")
            _assign(connection, targets, pinned=True)

        await self._database.write(run, self._identity)

    async def cancel(self, keys: Collection[Key]) -> set[Key]:
        """Leave these partitions where they are, as far as they have not moved yet. Those that had anything to
        cancel."""

        def run(connection: Connection) -> set[Key]:
            lock_revision(connection)
            sources = {(m.topic_id, m.index): m.source for m in moves_of(connection) if (m.topic_id, m.index) in keys}
            _assign(connection, sources, pinned=False)
            return set(sources)

        return await self._database.write(run, self._identity)

    async def moves(self) -> list[Move]:
        """All that are under way, by topic and index."""
        return await self._database.read(moves_of)

    async def status(self) -> ClusterStatus:
        def run(connection: Connection) -> ClusterStatus:
            p, s = schema.partition.c, schema.stream.c
            groups = p.node, s.owner, s.owner_epoch
            placed = select(*groups, func.count()).join(schema.stream, s.id == p.stream_id).group_by(*groups)
            slots = select(schema.slot.c.node, func.count()).group_by(schema.slot.c.node)
            return ClusterStatus(
                view_of(connection),
                [Placed(*row) for row in connection.execute(placed)],
                dict(connection.execute(slots).all()),
            )

        return await self._database.read(run)


def moves_of(connection: Connection) -> list[Move]:
    p, s = schema.partition.c, schema.stream.c
    moving = s.owner.is_not(None) & s.owner.is_distinct_from(p.node)
    query = select(p.topic_id, p.index, s.owner, p.node).join(schema.stream, s.id == p.stream_id).where(moving)
    return [Move(*row) for row in connection.execute(query.order_by(p.topic_id, p.index))]


def pinned_partitions(connection: Connection) -> set[Key]:
    """Those that an operator has put where they are."""
    p = schema.partition.c
    return {(topic_id, index) for topic_id, index in connection.execute(select(p.topic_id, p.index).where(p.pinned))}


def _assign(connection: Connection, nodes: Mapping[Key, int], *, pinned: bool) -> None:
    """The last call of a transaction."""
    p = schema.partition.c
    rows = []
    for topics in in_lists(sorted({topic_id for topic_id, _ in nodes})):
        found = connection.execute(select(p.topic_id, p.index, p.stream_id).where(p.topic_id.in_(topics)))
        rows += [
            {"stream": s, "to": nodes[topic_id, index]} for topic_id, index, s in found if (topic_id, index) in nodes
        ]
    if not rows:
        return
    this = p.stream_id == bindparam("stream")
    # Safe whenever it lands, as Topics.assign: it says who should open a stream, never that it may.
    connection.execute(update(schema.partition).where(this).values(node=bindparam("to"), pinned=pinned), rows)
    next_revision(connection, Kind.PARTITIONS, [row["stream"] for row in rows])


def _brokers(connection: Connection, node: int) -> dict[int, BrokerInfo]:
    """All, by node. NotFound unless this one ever registered."""
    found = {broker.node: broker for broker in brokers_of(connection)}
    if node not in found:
        raise NotFound(f"there is no broker {node}: the cluster has {', '.join(map(str, found))}")
    return found
