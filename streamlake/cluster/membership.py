"""Who is a broker: registration, epoch, lease.

A broker takes a new epoch at each start; whoever acts for a node under an older epoch is a zombie, and every write to
the metadata store checks that in its own transaction (`require_current`). Only a newer epoch fences: taking a node
over means raising its epoch first, so a lease that ran out while the machine slept may be renewed as long as nobody
did. The lease says until when this process may acknowledge what nobody but itself made durable (the file WAL).
"""

import asyncio
from base64 import urlsafe_b64encode
from dataclasses import dataclass

from sqlalchemy import Connection, select, update

from streamlake.cluster import tables
from streamlake.cluster.database import Database
from streamlake.cluster.tables import insert_into
from streamlake.core.clock import Clock
from streamlake.core.errors import Closed, Fenced, Full, OutcomeUnknown, Unavailable
from streamlake.core.ids import Ids

CLUSTER_ROW = 1
RENEWALS_PER_LEASE = 3  # two may get lost


@dataclass(frozen=True, slots=True)
class BrokerIdentity:
    """This process, as the metadata store knows it."""

    cluster_id: str
    node: int
    epoch: int


@dataclass(frozen=True, slots=True)
class BrokerInfo:
    node: int
    epoch: int
    host: str
    port: int
    wal_uri: str
    lease_until_ms: int  # by the clock of the metadata store


class Lease:
    """Sans-IO: from when to when we hold the lease, in seconds of `Clock.boottime`."""

    def __init__(self, lease_s: float) -> None:
        self.lease_s = lease_s
        self.deadline = float("-inf")

    def granted(self, sent_at: float) -> None:
        """A renewal that was sent at `sent_at` succeeded. The store granted at some moment after that, so counting
        from `sent_at` can only err on the short side: we stop before anybody may think that we have."""
        self.deadline = max(self.deadline, sent_at + self.lease_s)

    def held(self, now: float) -> bool:
        return now < self.deadline

    def renewal_at(self) -> float:
        return self.deadline - self.lease_s * (1 - 1 / RENEWALS_PER_LEASE)


class Membership:
    def __init__(self, database: Database, clock: Clock, ids: Ids, lease_ms: int = 10_000) -> None:
        self.renewals = 0
        self.failed_renewals = 0
        self._database = database
        self._clock = clock
        self._ids = ids
        self._lease_ms = lease_ms
        self._lease = Lease(lease_ms / 1000)
        self._identity: BrokerIdentity | None = None

    @property
    def identity(self) -> BrokerIdentity:
        """Closed before `register`."""
        if self._identity is None:
            raise Closed("this broker is not registered yet")
        return self._identity

    @property
    def deadline_boottime(self) -> float:
        """Nothing may be acknowledged on the strength of the lease at or after this `Clock.boottime`."""
        return self._lease.deadline

    def holds_lease(self) -> bool:
        return self._lease.held(self._clock.boottime())

    async def register(self, node: int, host: str, port: int, wal_uri: str) -> BrokerIdentity:
        """Take the next epoch of this node; every older process of the node is fenced from here on. Creates the
        cluster id at the very first registration of all."""
        sent_at = self._clock.boottime()
        cluster_id = urlsafe_b64encode(self._ids.uuid().bytes).decode().rstrip("=")

        def run(connection: Connection) -> BrokerIdentity:
            first = insert_into(connection, tables.cluster).values(id=CLUSTER_ROW, cluster_id=cluster_id, revision=0)
            connection.execute(first.on_conflict_do_nothing())
            cluster = connection.execute(select(tables.cluster.c.cluster_id)).scalar_one()
            epoch = self._next_epoch(connection, node, host, port, wal_uri)
            return BrokerIdentity(cluster, node, epoch)

        # The new epoch is durable when this returns, and the zombie's next write sees it: no write of ours can come
        # before the fence.
        self._identity = await self._database.write(run)
        self._lease.granted(sent_at)
        return self._identity

    def _next_epoch(self, connection: Connection, node: int, host: str, port: int, wal_uri: str) -> int:
        lease_until_ms = self._database.now_ms(connection) + self._lease_ms
        facts = {"lease_until_ms": lease_until_ms, "host": host, "port": port, "wal_uri": wal_uri}
        taking = (
            insert_into(connection, tables.broker)
            .values(node=node, epoch=1, wal_trim=0, **facts)
            .on_conflict_do_update(index_elements=["node"], set_={"epoch": tables.broker.c.epoch + 1, **facts})
            .returning(tables.broker.c.epoch)
        )
        epoch: int = connection.execute(taking).scalar_one()
        return epoch

    async def renew(self) -> None:
        """Prolong the lease. Fenced if a newer epoch of this node exists; Unavailable, OutcomeUnknown: try again."""
        sent_at = self._clock.boottime()
        identity = self.identity

        def run(connection: Connection) -> None:
            require_current(connection, identity)
            until_ms = self._database.now_ms(connection) + self._lease_ms
            mine = tables.broker.c.node == identity.node
            connection.execute(update(tables.broker).where(mine).values(lease_until_ms=until_ms))

        try:
            await self._database.write(run)
        except BaseException:
            self.failed_renewals += 1
            raise
        self._lease.granted(sent_at)
        self.renewals += 1

    async def run(self) -> None:
        """Renew until cancelled. Raises Fenced (end the process); a store out of reach is tried again and again, and
        meanwhile the lease runs out by itself."""
        retry_s = self._lease.lease_s / 10
        while True:
            await asyncio.sleep(max(retry_s, self._lease.renewal_at() - self._clock.boottime()))
            try:
                await self.renew()
            except (Unavailable, OutcomeUnknown, Full):
                continue

    async def leave(self) -> None:
        """A clean stop: the lease ends now, so that others need not wait for it. Epoch and WAL position stay."""
        identity = self.identity

        def run(connection: Connection) -> None:
            require_current(connection, identity)
            now_ms = self._database.now_ms(connection)
            mine = tables.broker.c.node == identity.node
            connection.execute(update(tables.broker).where(mine).values(lease_until_ms=now_ms))

        self._lease.deadline = float("-inf")  # first: from here on nothing is acknowledged on the lease
        await self._database.write(run)

    async def brokers(self) -> list[BrokerInfo]:
        """All that ever registered, by node; those whose lease has run out are dead or about to be."""
        b = tables.broker.c
        query = select(b.node, b.epoch, b.host, b.port, b.wal_uri, b.lease_until_ms).order_by(b.node)
        return await self._database.read(lambda connection: [BrokerInfo(*row) for row in connection.execute(query)])


def require_current(connection: Connection, identity: BrokerIdentity) -> None:
    """Called first in every write of a broker. Fenced if a newer process of the node has registered.

    The row stays share-locked until the commit (PostgreSQL; SQLite has one writer), so a registration comes either
    before this check or after the whole write.
    """
    query = select(tables.broker.c.epoch).where(tables.broker.c.node == identity.node).with_for_update(read=True)
    epoch = connection.execute(query).scalar()
    if epoch != identity.epoch:
        raise Fenced(
            f"node {identity.node} was taken over: its epoch is {epoch}, this process has {identity.epoch}. "
            "Another server runs with the same node id; this one must stop"
        )
