"""Fences: writes of a process that was taken over change nothing.

Every write of a broker names the broker's identity as its fence. The fences of a group of writes are checked together,
by one statement, after all of them ran and right before the COMMIT (database.py). They are checked last so that they
are locked for the shortest time: a group that takes long holds nobody up who wants to fence its broker, and a broker
that freezes in the middle of a group holds no fence.

The lock is FOR KEY SHARE. A beat updates the same row and passes. A registration and a takeover lock the row FOR UPDATE
(membership.py), so they wait for the commit, and whoever commits after them sees the new epoch. A
plain UPDATE of the epoch would pass, like a beat, and the write of the fenced process would land after its fence.
"""

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Connection, select

from streamlake.cluster.store import schema
from streamlake.core.errors import Fenced


@dataclass(frozen=True, slots=True)
class BrokerIdentity:
    """The identity of a process in the metadata store: it is a fence that stands while the epoch is the node's."""

    cluster_id: str
    node: int
    epoch: int


def fallen(connection: Connection, fences: Collection[BrokerIdentity]) -> dict[BrokerIdentity, Fenced]:
    """Those of the fences that do not stand, each with its error. The others cannot fall before the commit."""
    if not fences:
        return {}
    b = schema.broker.c
    nodes = sorted({fence.node for fence in fences})
    # In the order of the nodes, as everybody locks these rows: no two transactions wait for each other.
    query = select(b.node, b.epoch).where(b.node.in_(nodes)).order_by(b.node)
    rows = connection.execute(query.with_for_update(read=True, key_share=True))
    epochs: dict[int, int] = {row.node: row.epoch for row in rows}
    return {
        fence: taken_over(fence, epochs.get(fence.node)) for fence in fences if epochs.get(fence.node) != fence.epoch
    }


def taken_over(fence: BrokerIdentity, epoch: int | None) -> Fenced:
    """The error of a process whose node is at `epoch` now."""
    return Fenced(
        f"node {fence.node} was taken over: its epoch is {epoch}, this process has {fence.epoch}. "
        "Another server runs with the same node id; this one must stop"
    )
