"""Slots: which broker coordinates which groups.

A group belongs to one of SLOTS slots by the CRC-32C of its id, and to the broker that its slot is assigned to. Each
assignment raises the epoch of the slot, which is a fence of every write of its groups (fences.py): two live brokers are
both current, but only one of them has the current epoch of a slot. So a slot moves without a word to its former owner.

A slot without a row was never assigned.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TypeVar

from crc32c import crc32c
from sqlalchemy import Connection, select

from streamlake.cluster.store import schema
from streamlake.cluster.store.controllers import Term, require_controller
from streamlake.cluster.store.database import Database
from streamlake.cluster.store.fences import BrokerIdentity, SlotEpoch
from streamlake.cluster.store.revision import Kind, changes_since, current_revision, lock_revision, next_revision
from streamlake.cluster.store.schema import RUNNING_STATES, upsert
from streamlake.core.errors import Fenced

T = TypeVar("T")
SLOTS = 256  # fixed: `consumer_group.slot` depends on it


def slot_of(group_id: str) -> int:
    return crc32c(group_id.encode()) % SLOTS


@dataclass(frozen=True, slots=True)
class SlotRow:
    id: int
    node: int  # who has it
    epoch: int  # how often it was assigned

    @property
    def fence(self) -> SlotEpoch:
        return SlotEpoch(self.id, self.epoch)


class SlotStore:
    def __init__(self, database: Database, identity: BrokerIdentity) -> None:
        self._database = database
        self._identity = identity

    async def load(self) -> tuple[int, list[SlotRow]]:
        """The revision, and the slots that were assigned, by id. They are never older than the revision."""
        return await self._database.read(lambda connection: (current_revision(connection), _slots(connection)))

    async def load_changed(self, seen: int) -> tuple[int, list[SlotRow] | None]:
        """As `load`; None instead of the slots if none was assigned after the revision `seen`."""

        def run(connection: Connection) -> tuple[int, list[SlotRow] | None]:
            changes = changes_since(connection, seen)
            return changes.revision, _slots(connection) if changes.may_concern(Kind.SLOTS) else None

        return await self._database.read(run)

    async def assign(self, term: Term, nodes: Mapping[int, int]) -> None:
        """As the controller: these slots belong to these nodes from now on. Conflict if another broker is the
        controller."""

        def run(connection: Connection) -> None:
            lock_revision(connection)
            require_controller(connection, term)
            assign(connection, nodes)

        await self._database.write(run, self._identity)

    async def take_free(self) -> int:
        """Take the slots that nobody has: they were never assigned, or their broker has left or was fenced. How many;
        a node that is drained takes none.

        A broker keeps the slots that it had in its former life, if nobody else has taken them meanwhile."""
        identity = self._identity

        def run(connection: Connection) -> int:
            lock_revision(connection)  # of two brokers that start at once, the second one sees what the first has taken
            b, s = schema.broker.c, schema.slot.c
            running = dict(connection.execute(select(b.node, b.drained).where(b.state.in_(RUNNING_STATES))).all())
            if running.setdefault(identity.node, False):
                return 0
            taken = set(connection.execute(select(s.id).where(s.node.in_(sorted(running)))).scalars())
            free = [slot for slot in range(SLOTS) if slot not in taken]
            assign(connection, dict.fromkeys(free, identity.node))
            return len(free)

        return await self._database.write(run, identity)


class SlotWrites:
    """Writes of a coordinator to what belongs to its slots."""

    def __init__(self, database: Database, identity: BrokerIdentity, fenced: Callable[[], None]) -> None:
        """`fenced` is called when a write was: this broker does not know yet what it has lost."""
        self._database = database
        self._identity = identity
        self._fenced = fenced

    async def write(self, run: Callable[[Connection], T], *slots: SlotEpoch) -> T:
        # Both fences stand at the commit: the broker is alive, and no other one has read what is of these slots since
        # they were assigned to this one. Of two live brokers only one gets past here.
        try:
            return await self._database.write(run, self._identity, *slots)
        except Fenced:
            self._fenced()
            raise


def assign(connection: Connection, nodes: Mapping[int, int]) -> None:
    """Assign slots to nodes, under their next epochs; also one that the node has already. The last call of a
    transaction."""
    if not nodes:
        return
    lock_revision(connection)
    epochs = _locked_epochs(connection, nodes)
    rows = [{"id": slot, "node": node, "epoch": epochs.get(slot, 0) + 1} for slot, node in sorted(nodes.items())]
    # Committed before the new owner reads the groups. What the former one wrote is committed by now, or will be Fenced:
    # FOR UPDATE waits for groups of writes that have passed their check, and all others find the next epoch there.
    upsert(connection, schema.slot, rows)
    next_revision(connection, Kind.SLOTS)


def _slots(connection: Connection) -> list[SlotRow]:
    s = schema.slot.c
    return [SlotRow(*row) for row in connection.execute(select(s.id, s.node, s.epoch).order_by(s.id))]


def _locked_epochs(connection: Connection, slots: Collection[int]) -> dict[int, int]:
    s = schema.slot.c
    query = select(s.id, s.epoch).where(s.id.in_(sorted(slots))).order_by(s.id).with_for_update()
    return dict(connection.execute(query).all())
