"""Processes of a node that follow one another without a wait: the former one may still run, and is a zombie then."""

from streamlake.cluster.store.database import Database
from streamlake.cluster.store.membership import Membership
from streamlake.cluster.watch import Sign
from streamlake.core.clock import Clock
from streamlake.core.ids import Ids


async def sign_of(membership: Membership, node: int) -> Sign | None:
    """What the node shows now."""
    return next((broker.sign for broker in await membership.brokers() if broker.node == node), None)


async def next_process(
    database: Database, clock: Clock, ids: Ids, node: int = 0, host: str = "localhost"
) -> Membership:
    """Registered, whoever was the node before."""
    membership = Membership(database, database, clock, ids)
    await membership.register(node, host, 9092, await sign_of(membership, node))
    return membership
