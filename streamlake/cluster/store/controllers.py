"""Which broker is the controller: it alone fences dead brokers, gives out their WALs and assigns partitions.

A term has a number. Every transaction of a controller checks that its term is the current one, and locks that row to
the commit, so a controller that was replaced while it was paused changes nothing (`require_controller`).
"""

from dataclasses import dataclass

from sqlalchemy import Connection, Select, select

from streamlake.cluster.store import schema
from streamlake.cluster.store.database import Database
from streamlake.cluster.store.fences import BrokerIdentity
from streamlake.cluster.store.schema import upsert
from streamlake.core.errors import Conflict

CONTROLLER_ROW = 1


@dataclass(frozen=True, slots=True)
class Term:
    """That life of a node is the controller; `epoch` counts the terms."""

    node: int
    broker_epoch: int
    epoch: int

    def is_of(self, identity: BrokerIdentity) -> bool:
        return (self.node, self.broker_epoch) == (identity.node, identity.epoch)


async def elect(database: Database, identity: BrokerIdentity, former: Term | None) -> Term:
    """Begin the next term with this broker. The caller has seen that the broker of the `former` term is over or dead.
    Conflict if another term has begun since."""

    def run(connection: Connection) -> Term:
        # The first term has no row to lock: of two brokers that begin it, the second violates the primary key.
        found = term_of(connection, lock=True)
        if found is not None and found.is_of(identity):
            return found  # the answer to the first try was lost
        if found != former:
            raise Conflict(f"the term {found} has begun, expected was {former}")
        term = Term(identity.node, identity.epoch, found.epoch + 1 if found else 1)
        row = {"id": CONTROLLER_ROW, "node": term.node, "broker_epoch": term.broker_epoch, "epoch": term.epoch}
        if found is None:
            connection.execute(schema.controller.insert().values(row))
        else:
            upsert(connection, schema.controller, [row])
        return term

    # Durable before this broker acts as the controller; from here on what the former one writes is refused.
    return await database.write(run, identity)


def require_controller(connection: Connection, term: Term) -> None:
    """Conflict unless the term is the current one; it is until the commit."""
    if _found(connection, _CURRENT.with_for_update(read=True)) != term:
        raise Conflict(f"this broker is not the controller any more: its term was {term.epoch}")


def term_of(connection: Connection, lock: bool = False) -> Term | None:
    """The current term; None before the first one."""
    return _found(connection, _CURRENT.with_for_update() if lock else _CURRENT)


_c = schema.controller.c
_CURRENT = select(_c.node, _c.broker_epoch, _c.epoch).where(_c.id == CONTROLLER_ROW)


def _found(connection: Connection, query: "Select[int, int, int]") -> Term | None:
    row = connection.execute(query).one_or_none()
    return None if row is None else Term(*row)
