"""The progress of each table as the broker knows it: where retention must stop, and whether the table ever committed.

The table itself has the authoritative progress. This copy holds retention back (`hold_offset`) before a worker has
reported, and shows a worker that finds no progress in its table that there was some: it must stop then, and not start
at zero. Offsets never go back. A topic whose table is disabled keeps its rows, without a hold.

A new incarnation of a table begins each time its topic becomes a table, and when it moves to another catalog. Progress
is stored for the incarnation that made it, so a late report never counts for a table that is being built anew.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import BindParameter, ColumnElement, Connection, bindparam, case, func, literal, or_, select, update

from streamlake.cluster.store import schema
from streamlake.cluster.store.database import Database
from streamlake.cluster.store.fences import BrokerIdentity
from streamlake.cluster.store.schema import insert_into, take_ids


@dataclass(frozen=True, slots=True)
class PartitionProgress:
    topic_id: UUID
    partition: int
    hold_offset: int | None  # retention must keep records from it on; None: no hold
    committed_offset: int  # next position of the table, as last reported
    committed_once: bool
    updated_ms: int
    incarnation: int


@dataclass(frozen=True, slots=True)
class Reported:
    """A table worker's report on one partition: the next position after its commits, and the position below which a
    later reload found all records in the ancestry of the table (so that the log may delete them)."""

    committed_offset: int
    hold_offset: int


class TableProgress:
    def __init__(self, database: Database, identity: BrokerIdentity) -> None:
        self._database = database
        self._identity = identity

    async def load(self) -> list[PartitionProgress]:
        """All partitions of all topics that are tables or have been."""
        p = schema.table_progress.c
        query = select(
            p.topic_id, p.partition, p.hold_offset, p.committed_offset, p.committed_once, p.updated_ms, p.incarnation
        )
        query = query.order_by(p.topic_id, p.partition)
        return await self._database.read(
            lambda connection: [PartitionProgress(*row) for row in connection.execute(query)]
        )

    async def advance(
        self, topic_id: UUID, incarnation: int, reported: Mapping[int, Reported], committed_once: bool, now_ms: int
    ) -> bool:
        """Move the partitions of this incarnation forward; an offset below the stored one is ignored.
        `committed_once`: the table has a snapshot of ours; it remains true. The caller lets retention continue only
        after this has returned True. False: nothing was stored, because another incarnation has begun or the topic was
        deleted."""
        rows = [
            {"number": number, "committed": r.committed_offset, "hold": r.hold_offset}
            for number, r in sorted(reported.items())
        ]
        p = schema.table_progress.c
        moving = (
            update(schema.table_progress)
            # Compared on the row that is written, whose lock serialises it with `begin_table`: the writer of progress
            # and the one that begins an incarnation never miss each other.
            .where((p.topic_id == topic_id) & (p.partition == bindparam("number")) & (p.incarnation == incarnation))
            .values(
                committed_offset=_greater(p.committed_offset, bindparam("committed")),
                hold_offset=_greater(p.hold_offset, bindparam("hold")),
                committed_once=or_(p.committed_once, literal(committed_once)),
                updated_ms=now_ms,
            )
        )

        def run(connection: Connection) -> bool:
            return bool(rows) and connection.execute(moving, rows).rowcount > 0

        # Durable before retention may delete: after a crash the hold is at most one report old, and never above the
        # records that the table is known to have.
        return await self._database.write(run, self._identity)

    async def next_committer_epoch(self) -> int:
        """A number above all committer epochs before; each start of a table worker takes one."""

        def run(connection: Connection) -> int:
            return take_ids(connection, "committer_epoch", 1)

        # Durable before a worker uses it: two workers can never commit under one epoch.
        return await self._database.write(run, self._identity)


def begin_table(connection: Connection, topic_id: UUID, log_starts: Mapping[int, int], now_ms: int) -> None:
    """Begin an incarnation: hold retention of all partitions at their log start. It is part of the transaction that
    makes the topic a table, so that retention cannot run between the config and the hold.

    A user who enables a table again after dropping it wants to build it anew, so the stored progress is reset; a table
    that still exists has its progress itself, in three places."""
    _hold(connection, topic_id, _incarnation(connection, topic_id) + 1, log_starts, now_ms)


def extend_table(connection: Connection, topic_id: UUID, added: Collection[int], now_ms: int) -> None:
    """Hold retention of new partitions of a topic that is a table: part of the transaction that adds them."""
    _hold(connection, topic_id, _incarnation(connection, topic_id), dict.fromkeys(added, 0), now_ms)


def _incarnation(connection: Connection, topic_id: UUID) -> int:
    p = schema.table_progress.c
    latest: int | None = connection.execute(select(func.max(p.incarnation)).where(p.topic_id == topic_id)).scalar_one()
    return latest or 0


def _hold(connection: Connection, topic_id: UUID, incarnation: int, log_starts: Mapping[int, int], now_ms: int) -> None:
    fresh = {
        "topic_id": topic_id,
        "committed_offset": 0,
        "committed_once": False,
        "updated_ms": now_ms,
        "incarnation": incarnation,
    }
    rows = [{"partition": index, "hold_offset": start, **fresh} for index, start in sorted(log_starts.items())]
    statement = insert_into(connection, schema.table_progress)
    held_again = {"hold_offset": statement.excluded.hold_offset, **fresh}
    del held_again["topic_id"]
    if rows:
        connection.execute(
            statement.on_conflict_do_update(index_elements=["topic_id", "partition"], set_=held_again), rows
        )


def has_committed(connection: Connection, topic_id: UUID) -> bool:
    """Whether the topic's table, or its dead letters, are known to hold anything of the topic."""
    p = schema.table_progress.c
    any_of_it = (p.topic_id == topic_id) & or_(p.committed_once, p.committed_offset > 0)
    return connection.execute(select(p.partition).where(any_of_it).limit(1)).first() is not None


def release_holds(connection: Connection, topic_id: UUID) -> None:
    """The topic is no longer a table: retention continues. The committed offsets are kept."""
    p = schema.table_progress.c
    connection.execute(update(schema.table_progress).where(p.topic_id == topic_id).values(hold_offset=None))


def _greater(stored: ColumnElement[Any], reported: BindParameter[Any]) -> ColumnElement[Any]:
    """The greater offset; NULL (no hold) stays NULL."""
    return case((stored < reported, reported), else_=stored)
