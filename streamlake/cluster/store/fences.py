"""Fences: writes of a process that was taken over change nothing.

Every write of a broker names its fences: the broker's identity, and for a group the epoch of its slot (slots.py). The
fences of a group of writes are checked together, by one statement, after all of them ran and right before the COMMIT
(database.py). They are checked last so that they are locked for the shortest time: a group that takes long holds nobody
up who wants to fence its broker, and a broker that freezes in the middle of a group holds no fence.

The lock is FOR KEY SHARE. A beat updates the row of its broker and passes. Who raises an epoch (a registration, a
takeover, an assignment of slots) locks the row FOR UPDATE first, so it waits for the commit, and whoever commits after
it sees the new epoch. A plain UPDATE of the epoch would pass, like a beat, and the write of the fenced process would
land after its fence.
"""

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Column, Connection, Select, bindparam, literal, select, union_all

from streamlake.cluster.store import schema
from streamlake.core.errors import Corrupt, Fenced


@dataclass(frozen=True, slots=True)
class BrokerIdentity:
    """The identity of a process in the metadata store: it is a fence that stands while the epoch is the node's."""

    cluster_id: str
    node: int
    epoch: int


@dataclass(frozen=True, slots=True)
class SlotEpoch:
    """A slot as it was assigned once: a fence that stands until the slot is assigned again, to whomever."""

    slot: int
    epoch: int


Fence = BrokerIdentity | SlotEpoch
Fallen = Fenced | Corrupt  # why a fence does not stand

LOST_COMMITS = (
    "A failover to a standby that was behind, or a restored backup, has lost commits: nothing may be built on what is"
    " left. Restore the newest state of the metadata store, then start again"
)


def _epochs(kind: int, key: "Column[int]", epoch: "Column[int]", keys: str) -> "Select[int, int, int]":
    """The epochs of the rows whose keys are given as this parameter, locked in the order of the keys."""
    query = select(literal(kind).label("kind"), key.label("key"), epoch.label("epoch"))
    query = query.where(key.in_(bindparam(keys, expanding=True))).order_by(key)
    return query.with_for_update(read=True, key_share=True)


# First the slots, then the brokers, each by their keys, as everybody locks these rows: no two transactions wait for
# each other. Made once, because every group needs one of them.
_SLOT, _BROKER = 0, 1
_SLOTS = _epochs(_SLOT, schema.slot.c.id, schema.slot.c.epoch, "slots")
_BROKERS = _epochs(_BROKER, schema.broker.c.node, schema.broker.c.epoch, "nodes")
_BOTH = union_all(select(_SLOTS.cte("slots")), select(_BROKERS.cte("brokers")))


def fallen(connection: Connection, fences: Collection[Fence]) -> dict[Fence, Fallen]:
    """Those of the fences that do not stand, each with its error. The others cannot fall before the commit."""
    keys: dict[str, list[int]] = {}
    if slots := {fence.slot for fence in fences if isinstance(fence, SlotEpoch)}:
        keys["slots"] = sorted(slots)
    if nodes := {fence.node for fence in fences if isinstance(fence, BrokerIdentity)}:
        keys["nodes"] = sorted(nodes)
    if not keys:
        return {}
    query = _BOTH if slots and nodes else _SLOTS if slots else _BROKERS
    epochs: dict[tuple[int, int], int] = {(kind, key): epoch for kind, key, epoch in connection.execute(query, keys)}
    found: dict[Fence, Fallen] = {}
    for fence in fences:
        if isinstance(fence, SlotEpoch):
            if (epoch := epochs.get((_SLOT, fence.slot))) != fence.epoch:
                found[fence] = _assigned_anew(fence, epoch)
        elif (epoch := epochs.get((_BROKER, fence.node))) != fence.epoch:
            found[fence] = taken_over(fence, epoch)
    return found


def taken_over(fence: BrokerIdentity, epoch: int | None) -> Fallen:
    """The error of a process whose node is at `epoch` now, which is another than its own."""
    if epoch is None or epoch < fence.epoch:
        return Corrupt(
            f"the metadata store went back: node {fence.node} has epoch {epoch} there, and this process was given"
            f" {fence.epoch}. {LOST_COMMITS}"
        )
    return Fenced(
        f"node {fence.node} was taken over: its epoch is {epoch}, this process has {fence.epoch}. "
        "Another server runs with the same node id; this one must stop"
    )


def _assigned_anew(fence: SlotEpoch, epoch: int | None) -> Fenced:
    return Fenced(
        f"slot {fence.slot} was assigned again: its epoch is {epoch}, this broker had it under {fence.epoch}. "
        "Its groups are to be read again by whoever has it now"
    )
