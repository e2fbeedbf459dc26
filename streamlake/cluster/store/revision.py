"""The revision of the metadata store, and what each revision changed: brokers read that again, and no more.

Topics, who has which partition, broker configs and slots of groups are held in memory by every broker. Each change of
them takes the next revision, and lists what it touched. A broker that is behind reads the list from its own revision
on; where it does not reach back so far, or names too much, it reads everything.
"""

import struct
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from streamlake.cluster.store.database import REVISED
from streamlake.cluster.store.schema import change, cluster

LISTED_MAX = 1_000  # revisions
CLEARED_EACH = 100  # revisions: how often those that are too old go
IDS_MAX = 20_000  # of one revision, and of what a broker reads at once: to read all takes less than to read so many

_UUID_BYTES = 16


class Kind(StrEnum):
    TOPICS = "topics"  # made, deleted, altered, more partitions; ids of topics
    PARTITIONS = "partitions"  # assigned, opened, closed; ids of their streams
    BROKER_CONFIGS = "broker_configs"  # without ids
    SLOTS = "slots"  # without ids


_KINDS = frozenset(Kind)


@dataclass(frozen=True, slots=True)
class Changes:
    """All after a revision that a broker has, up to `revision`."""

    revision: int
    is_complete: bool = True  # else more may have changed than what is listed
    kinds: frozenset[Kind] = frozenset()
    topics: frozenset[UUID] = frozenset()
    streams: frozenset[int] = frozenset()

    def may_concern(self, *kinds: Kind) -> bool:
        return not self.is_complete or not self.kinds.isdisjoint(kinds)


def lock_revision(connection: Connection) -> None:
    """The first call in every change of what is listed here: the changes run one after the other, so that each sees the
    effects of all before it, and no two can deadlock."""
    connection.execute(select(cluster.c.revision).with_for_update())


def current_revision(connection: Connection) -> int:
    """Read it before what is to be as new as it."""
    revision: int = connection.execute(select(cluster.c.revision)).scalar_one()
    return revision


def next_revision(connection: Connection, kind: Kind, ids: Collection[UUID] | Collection[int] = ()) -> int:
    """Increment the revision, and list what this transaction has changed. The LAST call in it: the row lock is held
    until the commit, so revisions become visible in their order, and a watcher at 6 cannot have missed 5."""
    counting = update(cluster).values(revision=cluster.c.revision + 1).returning(cluster.c.revision)
    revision: int = connection.execute(counting).scalar_one()
    connection.info[REVISED] = revision
    listed = _packed(ids) if len(ids) <= IDS_MAX else None
    connection.execute(insert(change).values(revision=revision, kind=kind, ids=listed))
    if revision % CLEARED_EACH == 0:
        connection.execute(delete(change).where(change.c.revision <= revision - LISTED_MAX))
    return revision


# One statement, so that revision and list are of one moment in any database. Made once: every change needs it.
_seen = bindparam("seen", type_=change.c.revision.type)
_LIST = (
    select(cluster.c.revision.label("now"), change.c.revision, change.c.kind, change.c.ids)
    .select_from(cluster.outerjoin(change, (change.c.revision > _seen) & (change.c.revision <= _seen + LISTED_MAX)))
    .order_by(change.c.revision)
)


def changes_since(connection: Connection, seen: int) -> Changes:
    """Call it before what changed is read, which is then never older than `Changes.revision`."""
    if seen < 0:
        return Changes(current_revision(connection), is_complete=False)
    rows = connection.execute(_LIST, {"seen": seen}).all()
    now: int = rows[0].now
    listed = [row for row in rows if row.revision is not None]
    topics = [row.ids for row in listed if row.kind == Kind.TOPICS]
    partitions = [row.ids for row in listed if row.kind == Kind.PARTITIONS]
    # Every revision has a row. A newer StreamLake may list what is not known here.
    is_known = len(listed) == now - seen and all(row.kind in _KINDS for row in listed)
    if not is_known or None in topics or None in partitions:
        return Changes(now, is_complete=False)
    found = Changes(
        now,
        kinds=frozenset(Kind(row.kind) for row in listed),
        topics=frozenset(UUID(bytes=i) for ids in topics for i in _cut(ids)),
        streams=frozenset(i for ids in partitions for (i,) in struct.iter_unpack("<q", ids)),
    )
    too_much = len(found.topics) + len(found.streams) > IDS_MAX
    return Changes(now, is_complete=False) if too_much else found


def _packed(ids: Collection[UUID] | Collection[int]) -> bytes:
    return b"".join(i.bytes if isinstance(i, UUID) else struct.pack("<q", i) for i in ids)


def _cut(ids: bytes) -> list[bytes]:
    return [ids[at : at + _UUID_BYTES] for at in range(0, len(ids), _UUID_BYTES)]
