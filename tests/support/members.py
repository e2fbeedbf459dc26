"""Brokers of tests that follow one another, and take each other over, without a wait: the former one may still run, and
is a zombie then."""

from sqlalchemy import update

from streamlake.cluster.store import schema
from streamlake.cluster.store.controllers import Term, elect, term_of
from streamlake.cluster.store.database import Database
from streamlake.cluster.store.drains import DrainPart, Drains
from streamlake.cluster.store.membership import Membership
from streamlake.cluster.store.wals import WalKey, at
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


async def controller(membership: Membership) -> Term:
    """The term of this broker, which begins unless it has begun."""
    return await elect(membership._database, membership.identity, await membership._database.read(term_of))


async def fence(membership: Membership, node: int) -> None:
    """Take another node over, whatever it does."""
    sign = await sign_of(membership, node)
    assert sign is not None
    await membership.take_over(await controller(membership), node, sign)


async def given_to_drain(membership: Membership, wal: WalKey) -> DrainPart:
    """The WAL of another node, which is fenced unless it is over, or of an earlier life of this one, to drain."""
    identity = membership.identity
    drains = Drains(membership._database, identity)
    if wal.node == identity.node:
        await drains.claim_own([wal])
    else:
        sign = await sign_of(membership, wal.node)
        if sign is not None and sign.epoch == wal.epoch:
            await fence(membership, wal.node)
        await drains.give(await controller(membership), wal, [identity])
    return DrainPart(wal, 0, 1)


async def drained(membership: Membership, wal: WalKey) -> None:
    """The WAL is off the list, whoever was to drain it; its records count as stored."""
    part, identity = await given_to_drain(membership, wal), membership.identity
    d = schema.drain.c
    ours = update(schema.drain).where(at(d, wal)).values(by_node=identity.node, by_epoch=identity.epoch)
    await membership._database.write(lambda connection: connection.execute(ours).rowcount)
    drains = Drains(membership._database, identity)
    assert await drains.finish(part)
    await drains.forget(wal)
