"""Who drains which WAL: that of a dead broker, or of an earlier life of a node.

A WAL is given away in parts, by the ids of its streams, so that several brokers drain it at once. A part belongs to a
life of a broker until it is done; when that life is over the controller gives the part anew. A drain acts under the
identity of its broker, and every commit of it locks the row of its part: who has lost the part changes nothing.

    given → objects are committed → done: nobody owns the streams of the part → the last discards the WAL → forgotten

A WAL whose parts are all done is still listed until its objects are deleted; should the broker die that does this, the
part is given anew, and finds no records.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, insert, select, update

from streamlake.cluster.store import schema
from streamlake.cluster.store.controllers import Term, require_controller
from streamlake.cluster.store.database import Database
from streamlake.cluster.store.fences import BrokerIdentity
from streamlake.cluster.store.revision import Kind, lock_revision, next_revision
from streamlake.cluster.store.wals import WalKey, at, row_of
from streamlake.core.errors import Conflict, Fenced


@dataclass(frozen=True, slots=True)
class DrainPart:
    """The streams of a WAL whose ids leave `part` when they are divided by `parts`."""

    wal: WalKey
    part: int
    parts: int

    def has(self, stream_id: int) -> bool:
        return stream_id % self.parts == self.part


@dataclass(frozen=True, slots=True)
class DrainRow:
    part: DrainPart
    by_node: int
    by_epoch: int
    done: bool


def drains_of(connection: Connection, key: WalKey | None = None, *, lock: bool = False) -> list[DrainRow]:
    """All of a WAL, or of all, by node, URI, epoch and part; `lock` locks them until the commit."""
    d = schema.drain.c
    query = select(d.node, d.uri, d.epoch, d.part, d.parts, d.by_node, d.by_epoch, d.done)
    query = query.order_by(d.node, d.uri, d.epoch, d.part)
    if key is not None:
        query = query.where(at(d, key))
    if lock:
        query = query.with_for_update()
    return [
        DrainRow(DrainPart(WalKey(node, uri, epoch), part, parts), by_node, by_epoch, done)
        for node, uri, epoch, part, parts, by_node, by_epoch, done in connection.execute(query)
    ]


def orphaned(rows: Sequence[DrainRow], is_running: Callable[[int, int], bool]) -> list[DrainRow]:
    """Those of a WAL that somebody has to be given anew, as their drainers' lives, a node and a broker epoch, are over.
    If all is in objects, one of these: somebody has to discard the WAL."""
    over = [row for row in rows if not is_running(row.by_node, row.by_epoch)]
    unfinished = [row for row in over if not row.done]
    return over[:1] if all(row.done for row in rows) else unfinished


class Drains:
    """For one broker, whose epoch fences every write."""

    def __init__(self, database: Database, identity: BrokerIdentity) -> None:
        self._database = database
        self._identity = identity

    async def claim_own(self, keys: Sequence[WalKey]) -> None:
        """Take WALs of earlier lives of this node that nobody was given yet, each as one part, and parts of drainers
        whose lives are over: a WAL on a disk of this node's own nobody else can drain."""
        identity = self._identity
        assert all(key.node == identity.node and key.epoch < identity.epoch for key in keys)

        def run(connection: Connection) -> None:
            for key in keys:
                if row_of(connection, key, lock=True) is not None:
                    # Safe if such a life still runs: it is fenced, and what it commits finds another drainer there.
                    _hand_out(connection, key, [identity])

        await self._database.write(run, identity)

    async def give(self, term: Term, key: WalKey, to: Sequence[BrokerIdentity]) -> None:
        """As the controller: give a WAL to these brokers, a part each; of one that was given before, the parts of
        lives that are over. Conflict if the WAL may still be written to, or somebody else is the controller."""

        def run(connection: Connection) -> None:
            require_controller(connection, term)
            if row_of(connection, key, lock=True) is None:
                return  # it is drained
            _require_over(connection, key)
            _hand_out(connection, key, to)

        await self._database.write(run, self._identity)

    async def mine(self) -> list[DrainPart]:
        """What this broker was given and has not done."""
        mine = (self._identity.node, self._identity.epoch)
        rows = await self._database.read(drains_of)
        return [row.part for row in rows if (row.by_node, row.by_epoch) == mine and not row.done]

    async def first_undrained(self, node: int) -> int:
        """All WALs of the node with a lower epoch are drained, and none is ever listed again."""
        b, w = schema.broker.c, schema.wal.c

        def run(connection: Connection) -> int:
            epoch: int = connection.execute(select(b.epoch).where(b.node == node)).scalar_one()
            listed = connection.execute(select(func.min(w.epoch)).where(w.node == node)).scalar()
            return epoch if listed is None else min(epoch, listed)

        return await self._database.read(run)

    async def finish(self, part: DrainPart) -> bool:
        """All records of the part lie in committed objects: nobody owns its streams any more. True if all parts are
        done; then the WAL is to be discarded and forgotten. Fenced if the part is not ours any more, or the WAL is
        forgotten. It may be repeated, as its answer may be lost."""
        key, identity = part.wal, self._identity
        s = schema.stream.c

        def run(connection: Connection) -> bool:
            lock_revision(connection)
            wal = row_of(connection, key, lock=True)  # of two parts that end at once, one comes last
            has_ended(connection, part, identity)
            assert wal is not None
            held = (s.owner == key.node) & s.owner_epoch.between(wal["since_epoch"], key.epoch)
            held &= s.id % part.parts == part.part
            free = sorted(
                connection.execute(update(schema.stream).where(held).values(owner=None).returning(s.id)).scalars()
            )
            this = at(schema.drain.c, key) & (schema.drain.c.part == part.part)
            connection.execute(update(schema.drain).where(this).values(done=True))
            was_last = all(row.done for row in drains_of(connection, key, lock=True))
            if free and not self._database.is_ours_alone:  # who is to open them next need not ask again and again
                next_revision(connection, Kind.PARTITIONS, free)
            return was_last

        # Durable before anybody opens these streams: only this says that no WAL holds more of them. Streams that the
        # node has opened in a later life have a later owner epoch, and are left alone.
        return await self._database.write(run, identity)

    async def forget(self, key: WalKey) -> None:
        """All parts are done, and the objects or files of the WAL are gone."""

        def run(connection: Connection) -> None:
            if all(row.done for row in drains_of(connection, key, lock=True)):
                connection.execute(delete(schema.wal).where(at(schema.wal.c, key)))  # and its drains with it

        # Safe at a crash before: the part is given anew, finds nothing that is not in objects, and comes here again.
        await self._database.write(run, self._identity)


def require_drainer(connection: Connection, part: DrainPart, identity: BrokerIdentity) -> None:
    """Fenced unless this broker has the part, and has not ended it. Its row is locked until the commit."""
    if has_ended(connection, part, identity):
        raise Fenced(f"the drain of {part} is done: stop acting for it")


def has_ended(connection: Connection, part: DrainPart, identity: BrokerIdentity) -> bool:
    """Whether this broker, which has the part, has ended it; Fenced if it does not have it. Its row is locked until the
    commit."""
    d = schema.drain.c
    query = select(d.by_node, d.by_epoch, d.done).where(at(d, part.wal) & (d.part == part.part)).with_for_update()
    row = connection.execute(query).one_or_none()
    if row is None or (row.by_node, row.by_epoch) != (identity.node, identity.epoch):
        raise Fenced(f"the drain of {part} was given to another broker, or its WAL is discarded: stop acting for it")
    done: bool = row.done
    return done


def _hand_out(connection: Connection, key: WalKey, to: Sequence[BrokerIdentity]) -> None:
    """A WAL that nobody was given, or the parts of it whose drainers' lives are over."""
    rows = drains_of(connection, key, lock=True)
    if not rows:
        _insert(connection, key, to)
        return
    for number, row in enumerate(orphaned(rows, lambda node, epoch: _is_running(connection, node, epoch))):
        taker = to[number % len(to)]
        this = at(schema.drain.c, key) & (schema.drain.c.part == row.part.part)
        given = {"by_node": taker.node, "by_epoch": taker.epoch, "done": False}
        connection.execute(update(schema.drain).where(this).values(given))


def _insert(connection: Connection, key: WalKey, to: Sequence[BrokerIdentity]) -> None:
    place = {"node": key.node, "uri": key.uri, "epoch": key.epoch, "parts": len(to), "done": False}
    rows = [{"part": n, "by_node": who.node, "by_epoch": who.epoch, **place} for n, who in enumerate(to)]
    connection.execute(insert(schema.drain), rows)


def _is_running(connection: Connection, node: int, epoch: int) -> bool:
    """Whether this life of the node may still run."""
    b = schema.broker.c
    row = connection.execute(select(b.epoch, b.state).where(b.node == node)).one_or_none()
    return row is not None and row.epoch == epoch and row.state in schema.RUNNING_STATES


def _require_over(connection: Connection, key: WalKey) -> None:
    """Conflict if the life that writes to the WAL was not followed by another one, nor fenced."""
    epoch = connection.execute(select(schema.broker.c.epoch).where(schema.broker.c.node == key.node)).scalar()
    if epoch is None or epoch <= key.epoch:
        raise Conflict(f"node {key.node} may still write to its WAL {key.uri}: fence its epoch {epoch} first")
