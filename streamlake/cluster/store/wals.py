"""The list of WALs that may hold records which are in no object yet: recovery starts with it.

A WAL is entered before its first record is written (`adopt`), and removed when all its records are in committed objects
(drains.py). A file WAL on a disk of its own goes on from one life of its node to the next; `epoch` in its row is that
of the latest one. In any other place each life has a WAL, and a row, of its own, so that a node that returns does not
wait until its former life is drained.

`since_epoch` is the broker epoch of the life that began the WAL. The records of a stream that are in no object yet lie
in the WAL of its owner's life, the one whose epochs from `since_epoch` to `epoch` hold `stream.owner_epoch`.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, and_, delete, insert, select, update

from streamlake.cluster.store import schema
from streamlake.cluster.store.database import Database
from streamlake.cluster.store.fences import BrokerIdentity
from streamlake.cluster.store.revision import Kind, lock_revision, next_revision
from streamlake.cluster.store.schema import in_lists
from streamlake.core.errors import Fenced


@dataclass(frozen=True, slots=True)
class WalKey:
    """The WAL that a life of a node, with its broker epoch, writes to, or wrote to last."""

    node: int
    uri: str
    epoch: int


@dataclass(frozen=True, slots=True)
class WalRow:
    node: int
    uri: str
    epoch: int  # broker epoch of the life that writes to it, or wrote to it last
    trim: int  # records at or below this position are in committed objects, or their streams are deleted

    @property
    def key(self) -> WalKey:
        return WalKey(self.node, self.uri, self.epoch)


async def all_wals(database: Database) -> list[WalRow]:
    return await database.read(wals_of)


def wals_of(connection: Connection) -> list[WalRow]:
    """The WALs of all nodes, by node, URI and epoch."""
    w = schema.wal.c
    query = select(w.node, w.uri, w.epoch, w.trim).order_by(w.node, w.uri, w.epoch)
    return [WalRow(*row) for row in connection.execute(query)]


class Wals:
    """The list, for one broker, whose epoch fences every write."""

    def __init__(self, database: Database, identity: BrokerIdentity) -> None:
        self._database = database
        self._identity = identity

    async def adopt(self, uri: str, *, continues: bool) -> WalKey:
        """This process starts to write to `uri`. A repeated call changes nothing.

        `continues`: the WAL of the former lives of this node at that place goes on, with its trim (a file WAL on a disk
        of its own). Otherwise it is a new one.
        """
        key = WalKey(self._identity.node, uri, self._identity.epoch)
        w, d = schema.wal.c, schema.drain.c

        def run(connection: Connection) -> WalKey:
            if row_of(connection, key, lock=True) is not None:
                return key
            former = None
            if continues:
                place = (w.node == key.node) & (w.uri == key.uri)
                former = connection.execute(select(w.epoch).where(place).with_for_update()).scalar()
            if former is None:
                begun = {"node": key.node, "uri": key.uri, "epoch": key.epoch, "since_epoch": key.epoch, "trim": 0}
                connection.execute(insert(schema.wal).values(begun))
            else:
                was = WalKey(key.node, key.uri, former)
                connection.execute(delete(schema.drain).where(at(d, was)))  # a drain that was begun and given up
                connection.execute(update(schema.wal).where(at(w, was)).values(epoch=key.epoch))
            return key

        # Durable before the first record is written: whoever takes this node over reads this list.
        return await self._database.write(run, self._identity)

    async def release_unrecovered(self, key: WalKey, recovered: Collection[int]) -> None:
        """Give up the streams of this node's former lives on its WAL that belong to another node now, but for those
        with records in the WAL, the `recovered` ones: what is left of the others is in objects."""
        s, p = schema.stream.c, schema.partition.c
        node = self._identity.node
        elsewhere = select(p.stream_id).where(p.node != node)

        def run(connection: Connection) -> None:
            lock_revision(connection)
            former = s.owner_epoch.between(since_epoch_of(connection, key), key.epoch - 1)
            query = select(s.id).where((s.owner == node) & former & s.id.in_(elsewhere)).with_for_update()
            empty = sorted(set(connection.execute(query).scalars()) - set(recovered))
            for ids in in_lists(empty):
                connection.execute(update(schema.stream).where(s.id.in_(ids)).values(owner=None))
            if empty and not self._database.is_ours_alone:  # who is to open them next need not ask again and again
                next_revision(connection, Kind.PARTITIONS, empty)

        # Safe at a crash, before or after: no WAL holds a record of these streams beyond their committed ends, and this
        # process, the only one that could, has not opened them.
        await self._database.write(run, self._identity)


def since_epoch_of(connection: Connection, key: WalKey) -> int:
    """Of which life on the WAL holds records; of `key.epoch` alone if it is not listed."""
    query = select(schema.wal.c.since_epoch).where(at(schema.wal.c, key))
    since: int | None = connection.execute(query).scalar()
    return key.epoch if since is None else since


def trim_of(connection: Connection, key: WalKey, *, lock: bool) -> int:
    """The trim of the WAL; `lock` locks its row until the commit. Fenced if it is not listed."""
    row = row_of(connection, key, lock=lock)
    if row is None:
        raise Fenced(
            f"the WAL {key.uri} of node {key.node}, broker epoch {key.epoch}, was drained, or a later life writes to"
            " it: stop acting for it"
        )
    trim: int = row["trim"]
    return trim


def move_trim(connection: Connection, key: WalKey, position: int) -> None:
    """Move the trim forward; it never goes back. Fenced as `trim_of`."""
    if trim_of(connection, key, lock=True) < position:
        connection.execute(update(schema.wal).where(at(schema.wal.c, key)).values(trim=position))


def row_of(connection: Connection, key: WalKey, *, lock: bool) -> RowMapping | None:
    query = select(schema.wal.c.since_epoch, schema.wal.c.trim).where(at(schema.wal.c, key))
    return connection.execute(query.with_for_update() if lock else query).mappings().one_or_none()


def at(columns: Any, key: WalKey) -> ColumnElement[bool]:
    """Of the WAL `key`, in a table with its node, URI and epoch."""
    return and_(columns.node == key.node, columns.uri == key.uri, columns.epoch == key.epoch)
