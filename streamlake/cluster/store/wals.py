"""The list of WALs that may hold records which are in no object yet: recovery starts with it.

A WAL is entered before its first record is written (`adopt`), and removed when all its records are in committed objects
(`forget`). The processes of a node write to one place, (node, uri), one after the other; the epoch in its row is that
of the latest one. A drain is bound to that epoch, so a drain that was overtaken changes nothing.

`since_epoch` is the broker epoch of the process that began the WAL. The records of a stream that are in no object yet
lie in the WAL of its owner's life, the one whose epochs from `since_epoch` to `epoch` hold `stream.owner_epoch`.
"""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, RowMapping, and_, delete, insert, select, update

from streamlake.cluster.store import schema
from streamlake.cluster.store.database import Database
from streamlake.cluster.store.fences import BrokerIdentity
from streamlake.core.errors import Conflict, Fenced


@dataclass(frozen=True, slots=True)
class WalKey:
    """The WAL that a process of a node, with its broker epoch, writes or wrote to."""

    node: int
    uri: str
    epoch: int


@dataclass(frozen=True, slots=True)
class WalRow:
    node: int
    uri: str
    epoch: int  # broker epoch of the process that writes to it, or wrote to it last
    trim: int  # records at or below this position are in committed objects, or their streams are deleted

    @property
    def key(self) -> WalKey:
        return WalKey(self.node, self.uri, self.epoch)


async def all_wals(database: Database) -> list[WalRow]:
    """The WALs of all nodes, by node and URI."""
    w = schema.wal.c
    query = select(w.node, w.uri, w.epoch, w.trim).order_by(w.node, w.uri)
    return await database.read(lambda connection: [WalRow(*row) for row in connection.execute(query)])


class Wals:
    """The list, for one broker, whose epoch fences every write."""

    def __init__(self, database: Database, identity: BrokerIdentity) -> None:
        self._database = database
        self._identity = identity

    async def all(self) -> list[WalRow]:
        return await all_wals(self._database)

    async def adopt(self, uri: str, *, keep_trim: bool, drained_epoch: int | None = None) -> WalKey:
        """This process starts to write to `uri`. A repeated call changes nothing.

        `keep_trim`: positions continue after those of the previous process (file WAL). Otherwise they start again
        (object WAL), and the WAL of the previous process must have been drained, as for `forget`: Conflict if its row
        exists with another epoch than `drained_epoch`.
        """
        key = WalKey(self._identity.node, uri, self._identity.epoch)

        def run(connection: Connection) -> WalKey:
            row = _row(connection, key, lock=True)
            if row is None:
                begun = {"node": key.node, "uri": key.uri, "epoch": key.epoch, "since_epoch": key.epoch, "trim": 0}
                connection.execute(insert(schema.wal).values(begun))
            elif row["epoch"] != key.epoch:
                if not keep_trim and row["epoch"] != drained_epoch:
                    raise Conflict(
                        f"the WAL {uri} of node {key.node} may hold records of broker epoch {row['epoch']}, drained is "
                        f"{drained_epoch}: drain it, then begin to write to it"
                    )
                begun = {}
                if not keep_trim:
                    _release_streams(connection, key.node, row["since_epoch"], row["epoch"])
                    begun = {"since_epoch": key.epoch, "trim": 0}
                connection.execute(update(schema.wal).where(_place(key)).values(epoch=key.epoch, **begun))
            return key

        # Durable before the first record is written: a recovery of this node after a crash reads this list. A drain of
        # the WAL of an earlier process that still runs is Fenced from here on.
        return await self._database.write(run, self._identity)

    async def forget(self, node: int, uri: str, epoch: int) -> None:
        """The WAL, of any node, is drained: remove it, unless another process has adopted it in the meantime. Nobody
        owns the streams any more whose records it held."""
        key = WalKey(node, uri, epoch)
        w = schema.wal.c
        this = _place(key) & (w.epoch == epoch)

        def run(connection: Connection) -> None:
            since = connection.execute(select(w.since_epoch).where(this).with_for_update()).scalar()
            if since is not None:
                _release_streams(connection, node, since, epoch)
                connection.execute(delete(schema.wal).where(this))

        # Safe at a crash before: the WAL is drained again, and nothing is found. After: all its records are in objects,
        # so whoever opens one of the streams next begins at its true end.
        await self._database.write(run, self._identity)


def _release_streams(connection: Connection, node: int, since_epoch: int, epoch: int) -> None:
    """Nobody owns the streams any more that these lives of the node had open: their WAL is drained."""
    s = schema.stream.c
    held = (s.owner == node) & s.owner_epoch.between(since_epoch, epoch)
    connection.execute(update(schema.stream).where(held).values(owner=None))


def since_epoch_of(connection: Connection, key: WalKey) -> int:
    """Of which life on the WAL holds records; of `key.epoch` alone if it is not listed."""
    query = select(schema.wal.c.since_epoch).where(_place(key) & (schema.wal.c.epoch == key.epoch))
    since: int | None = connection.execute(query).scalar()
    return key.epoch if since is None else since


def trim_of(connection: Connection, key: WalKey, *, lock: bool) -> int:
    """The trim of the WAL; `lock` locks its row until the commit. Fenced if the WAL is no longer that of `key`."""
    row = _row(connection, key, lock=lock)
    if row is None:
        raise Fenced(f"the WAL {key.uri} of node {key.node} was drained and taken off the list: stop acting for it")
    if row["epoch"] != key.epoch:
        raise Fenced(
            f"broker epoch {row['epoch']} of node {key.node} writes to the WAL {key.uri} now: stop acting for epoch "
            f"{key.epoch}"
        )
    trim: int = row["trim"]
    return trim


def move_trim(connection: Connection, key: WalKey, position: int) -> None:
    """Move the trim forward; it never goes back. Fenced as `trim_of`."""
    if trim_of(connection, key, lock=True) < position:
        connection.execute(update(schema.wal).where(_place(key)).values(trim=position))


def _row(connection: Connection, key: WalKey, *, lock: bool) -> RowMapping | None:
    """The row of the place of `key`, whatever its epoch."""
    query = select(schema.wal.c.epoch, schema.wal.c.since_epoch, schema.wal.c.trim).where(_place(key))
    return connection.execute(query.with_for_update() if lock else query).mappings().one_or_none()


def _place(key: WalKey) -> ColumnElement[bool]:
    return and_(schema.wal.c.node == key.node, schema.wal.c.uri == key.uri)
