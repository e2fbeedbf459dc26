"""Transactions of producers, and the offsets that they are to commit, durable before they are acknowledged.

A row of `txn` is written by the broker that has the slot of its transactional id, under the epoch of that slot
(fences.py). A row of `txn_offset` is written by the broker that has the slot of the group, while it holds the lock of
the `txn` row, whose transaction must be open. So a decision, which locks the same row, finds either the offset or an
answer that refuses it: no offset is added to a transaction that is over.

A decision is one SQL transaction: the new state, and the offsets become committed, or go. The store knows no rules of
transactions: the state is a word of the coordinator, and members are its opaque bytes.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from sqlalchemy import Connection, Select, delete, select

from streamlake.cluster.store import schema
from streamlake.cluster.store.database import Database
from streamlake.cluster.store.fences import BrokerIdentity, SlotEpoch
from streamlake.cluster.store.groups import OffsetRow, offset_values, topic_ids
from streamlake.cluster.store.schema import in_lists, upsert
from streamlake.cluster.store.slots import SlotWrites, slot_of

EXPIRED_ROWS_MAX = 1_000  # deleted by one write


@dataclass(frozen=True, slots=True)
class TxnRow:
    transactional_id: str
    producer_id: int
    epoch: int
    last_id: int
    last_epoch: int
    next_id: int
    number: int  # grows with each transaction of the id
    state: str
    version: int
    timeout_ms: int
    started_ms: int
    updated_ms: int
    members: bytes


_COLUMNS = [schema.txn.c[field.name] for field in fields(TxnRow)]


class TransactionStore:
    def __init__(self, database: Database, identity: BrokerIdentity, fenced: Callable[[], None]) -> None:
        """`fenced`: see SlotWrites."""
        self._database = database
        self._write = SlotWrites(database, identity, fenced).write

    async def load(self, slots: Collection[int], states: Collection[str] | None = None) -> list[TxnRow]:
        """Those of these slots, in these states or in any, by id."""
        t = schema.txn.c
        query = select(*_COLUMNS).where(t.slot.in_(sorted(slots))).order_by(t.transactional_id)
        if states is not None:
            query = query.where(t.state.in_(sorted(states)))
        return await self._read(query)

    async def get(self, transactional_id: str) -> TxnRow | None:
        found = await self._read(_row_of(transactional_id))
        return found[0] if found else None

    async def of_producer(self, producer_id: int) -> TxnRow | None:
        """The row that has this producer id now."""
        found = await self._read(select(*_COLUMNS).where(schema.txn.c.producer_id == producer_id))
        return found[0] if found else None

    async def read_back(self, transactional_id: str, slot: SlotEpoch) -> TxnRow | None:
        """What is durable after a write whose outcome is unknown."""

        def run(connection: Connection) -> TxnRow | None:
            # The lost write may still be about to be committed. It has the slot's row locked (its fence), so this waits
            # until it is over.
            s = schema.slot.c
            connection.execute(select(s.epoch).where(s.id == slot.slot).with_for_update()).all()
            found = _rows(connection, _row_of(transactional_id))
            return found[0] if found else None

        return await self._write(run, slot)

    async def save(self, row: TxnRow, slot: SlotEpoch) -> None:
        await self._write(lambda connection: _save(connection, row), slot)

    async def decide(self, row: TxnRow, commit: bool, slot: SlotEpoch) -> None:
        """The transaction is ended, as the row says: what it has of offsets is committed, or goes."""

        def run(connection: Connection) -> None:
            # First, so that nobody adds an offset behind our back: the row is locked from here on.
            _save(connection, row)
            o = schema.txn_offset.c
            if commit:
                names = [column.name for column in schema.consumer_offset.c]
                mine = select(*(o[name] for name in names))
                mine = mine.where(o.transactional_id == row.transactional_id, o.number == row.number)
                found = [dict(zip(names, values, strict=True)) for values in connection.execute(mine)]
                upsert(connection, schema.consumer_offset, found)
            connection.execute(delete(schema.txn_offset).where(o.transactional_id == row.transactional_id))

        await self._write(run, slot)

    async def delete_expired(self, slots: Collection[SlotEpoch], states: Collection[str], until_ms: int) -> list[str]:
        """Forget transactional ids of these slots that are in one of these states since `until_ms` or longer: their
        ids. At most EXPIRED_ROWS_MAX."""

        def run(connection: Connection) -> list[str]:
            t = schema.txn.c
            query = select(t.transactional_id).where(t.slot.in_(sorted(slot.slot for slot in slots)))
            query = query.where(t.state.in_(sorted(states)), t.updated_ms <= until_ms).order_by(t.transactional_id)
            found = list(connection.execute(query.limit(EXPIRED_ROWS_MAX).with_for_update()).scalars())
            for some in in_lists(found):
                connection.execute(delete(schema.txn).where(t.transactional_id.in_(some)))
            return found

        return await self._write(run, *slots)

    async def add_offsets(
        self,
        transactional_id: str,
        group_id: str,
        offsets: Sequence[OffsetRow],
        slot: SlotEpoch,
        check: Callable[[TxnRow | None], None],
    ) -> None:
        """Offsets of the group join the transaction. `check` raises unless it is open; `slot`: of the group. Offsets of
        topics that do not exist are ignored."""

        def run(connection: Connection) -> None:
            ids = topic_ids(connection, {row.topic for row in offsets})
            # Locked until the commit: a decision comes before this, and `check` sees it, or after, and finds the rows.
            found = _rows(connection, _row_of(transactional_id).with_for_update())
            row = found[0] if found else None
            check(row)
            assert row is not None, "a transaction that is not there was found open"
            of = {"transactional_id": transactional_id, "number": row.number}
            known = [offset for offset in offsets if offset.topic in ids]
            upsert(connection, schema.txn_offset, [of | offset_values(group_id, ids, offset) for offset in known])

        await self._write(run, slot)

    async def _read(self, query: "Select[Any]") -> list[TxnRow]:
        return await self._database.read(lambda connection: _rows(connection, query))


def _row_of(transactional_id: str) -> "Select[Any]":
    return select(*_COLUMNS).where(schema.txn.c.transactional_id == transactional_id)


def _rows(connection: Connection, query: "Select[Any]") -> list[TxnRow]:
    return [TxnRow(*row) for row in connection.execute(query)]


def _save(connection: Connection, row: TxnRow) -> None:
    upsert(connection, schema.txn, [{**asdict(row), "slot": slot_of(row.transactional_id)}])
