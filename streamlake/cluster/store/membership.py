"""Membership of brokers: registration, epoch, lease.

A broker takes a new epoch at each start. A process that acts for a node under an older epoch is a zombie; every write
to the metadata store checks the epoch in its own transaction (fences.py). Only a newer epoch fences: a takeover
of a node (`take_over`) raises its epoch first, after its lease has expired by the clock of the metadata store. The
lease says until when this process may acknowledge records that other brokers could replay without asking it (the file
WAL).

An expired lease (the machine slept, the store was unavailable) may be renewed, and acknowledgements continue, as long
as nobody has raised the epoch. This is safe: a renewal succeeds only under the current epoch, so there was no takeover
by then, and a later one must wait for the end of the new lease. It replays after that, and finds all records that were
durable before, including those that were synced while the lease was not held.
"""

import asyncio
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, RowMapping, select, update

from streamlake.cluster.store import schema
from streamlake.cluster.store.database import Database
from streamlake.cluster.store.fences import BrokerIdentity
from streamlake.cluster.store.schema import insert_into
from streamlake.core.clock import Clock
from streamlake.core.errors import Closed, Conflict, Invalid, NotFound
from streamlake.core.ids import Ids
from streamlake.core.retry import TRANSIENT
from streamlake.telemetry.metric import Metric, counter

CLUSTER_ROW = 1
RENEWALS_PER_LEASE = 3  # two may be lost
NEVER_REGISTERED = 0  # epoch of a node's row before the first registration
LEFT = 0  # lease_until_ms of a broker that stopped cleanly: no takeover needs to wait for it


@dataclass(frozen=True, slots=True)
class BrokerInfo:
    node: int
    epoch: int
    host: str
    port: int
    lease_until_ms: int  # by the clock of the metadata store


@dataclass(frozen=True, slots=True)
class Registration:
    """`previous_lease_ms`: how long the previous process of the node, if it runs on another machine, may still
    acknowledge records that it syncs to a WAL on a shared disk; wait for so long before that WAL is replayed. 0 if it
    stopped cleanly. Otherwise a whole lease, whatever the wall clock says: an operator, or a failover of the metadata
    store, may have set that clock."""

    identity: BrokerIdentity
    previous_lease_ms: int


class LeaseTerm:
    """The time of the lease, in seconds of `Clock.boottime`. Sans-IO."""

    def __init__(self, lease_s: float) -> None:
        self.lease_s = lease_s
        self.deadline = float("-inf")

    def granted(self, sent_at: float) -> None:
        """A renewal that was sent at `sent_at` succeeded. The store granted it later than that, so a lease that is
        counted from `sent_at` can only be too short: this process stops before others may assume that it has."""
        self.deadline = max(self.deadline, sent_at + self.lease_s)

    def held(self, now: float) -> bool:
        return now < self.deadline

    def renewal_at(self) -> float:
        return self.deadline - self.lease_s * (1 - 1 / RENEWALS_PER_LEASE)


class Membership:
    """Implements s3stream.wal.Lease for this process."""

    def __init__(self, database: Database, clock: Clock, ids: Ids, lease_ms: int = 10_000) -> None:
        self.renewals = 0
        self.failed_renewals = 0
        self._database = database
        self._clock = clock
        self._ids = ids
        self.lease_ms = lease_ms
        self._lease = LeaseTerm(lease_ms / 1000)
        self._granted = asyncio.Event()
        self._left = False
        self._previous_until_ms = LEFT
        self._identity: BrokerIdentity | None = None

    def metrics(self) -> Iterable[Metric]:
        return (
            counter("streamlake_lease_renewals", "Renewals of the broker's lease in the metadata store.",
                lambda: self.renewals),
            counter("streamlake_lease_renewals_failed", "Renewals of the broker's lease that failed.",
                lambda: self.failed_renewals),
        )  # fmt: skip

    @property
    def identity(self) -> BrokerIdentity:
        """Closed before `register`."""
        if self._identity is None:
            raise Closed("this broker is not registered yet")
        return self._identity

    def held(self) -> bool:
        """See s3stream.wal.Lease. Time during which the machine slept counts."""
        return self._lease.held(self._clock.boottime())

    async def until_held(self) -> None:
        """See s3stream.wal.Lease. After `leave` it waits for ever."""
        while not self.held():
            self._granted.clear()
            await self._granted.wait()

    async def register(self, node: int, host: str, port: int) -> Registration:
        """Take the next epoch of this node: every older process of the node is fenced from then on. The very first
        registration creates the cluster id."""
        sent_at = self._clock.boottime()
        cluster_id = urlsafe_b64encode(self._ids.uuid().bytes).decode().rstrip("=")

        def run(connection: Connection) -> Registration:
            first = insert_into(connection, schema.cluster).values(id=CLUSTER_ROW, cluster_id=cluster_id, revision=0)
            connection.execute(first.on_conflict_do_nothing())
            cluster = connection.execute(select(schema.cluster.c.cluster_id)).scalar_one()
            epoch, self._previous_until_ms = self._take_epoch(connection, node, host, port)
            previous_lease_ms = 0 if self._previous_until_ms == LEFT else self.lease_ms
            return Registration(BrokerIdentity(cluster, node, epoch), previous_lease_ms)

        # The new epoch is durable when this returns, and the next write of a zombie sees it: no write of ours can
        # precede the fence.
        registration = await self._database.write(run)
        self._identity = registration.identity
        self._grant(sent_at)
        return registration

    def _take_epoch(self, connection: Connection, node: int, host: str, port: int) -> tuple[int, int]:
        """The next epoch, and the end of the lease of the previous process. The row is created first, so that it can be
        locked: of two processes that register one node at the same time, one is the previous process of the other."""
        facts = {"node": node, "host": host, "port": port}
        first = insert_into(connection, schema.broker).values(epoch=NEVER_REGISTERED, lease_until_ms=LEFT, **facts)
        connection.execute(first.on_conflict_do_nothing())
        previous = _locked_broker(connection, node)
        assert previous is not None
        now_ms = self._database.now_ms(connection)
        epoch: int = previous["epoch"] + 1
        mine = update(schema.broker).where(schema.broker.c.node == node)
        connection.execute(mine.values(epoch=epoch, lease_until_ms=now_ms + self.lease_ms, **facts))
        return epoch, min(previous["lease_until_ms"], now_ms + self.lease_ms)

    async def renew(self) -> None:
        """Extend the lease, even an expired one. Fenced if a newer epoch of this node exists; Unavailable,
        OutcomeUnknown: try again; Closed after `leave`."""
        if self._left:
            raise Closed("this broker has given its lease back")
        sent_at = self._clock.boottime()
        identity = self.identity

        def run(connection: Connection) -> None:
            until_ms = self._database.now_ms(connection) + self.lease_ms
            mine = schema.broker.c.node == identity.node
            connection.execute(update(schema.broker).where(mine).values(lease_until_ms=until_ms))

        try:
            await self._database.write(run, identity)
        except BaseException:
            self.failed_renewals += 1
            raise
        self._grant(sent_at)
        self.renewals += 1

    def _grant(self, sent_at: float) -> None:
        if not self._left:  # the answer to a renewal may arrive while the lease is being released
            self._lease.granted(sent_at)
            self._granted.set()

    async def run(self) -> None:
        """Renew until cancelled. Raises Fenced (end the process). While the store is unavailable it tries again, and
        the lease expires by itself."""
        retry_s = self._lease.lease_s / 10
        while True:
            await asyncio.sleep(max(retry_s, self._lease.renewal_at() - self._clock.boottime()))
            try:
                await self.renew()
            except TRANSIENT:
                continue

    async def leave(self) -> None:
        """A clean stop: the lease ends now, so that no other broker needs to wait for it. Epoch and WALs remain.

        The lease of the previous process of the node does not end: if this process was short-lived, others still have
        to wait for it."""
        identity = self.identity

        def run(connection: Connection) -> None:
            mine = schema.broker.c.node == identity.node
            previous_runs = self._previous_until_ms > self._database.now_ms(connection)
            until_ms = self._previous_until_ms if previous_runs else LEFT
            connection.execute(update(schema.broker).where(mine).values(lease_until_ms=until_ms))

        # First of all: from here on nothing is acknowledged on the lease, so others may regard it as ended.
        self._left = True
        self._lease.deadline = float("-inf")
        await self._database.write(run, identity)

    async def take_over(self, node: int, margin_ms: int) -> int:
        """Fence another node whose lease expired at least `margin_ms` ago by the clock of the metadata store, or which
        stopped cleanly: its epoch is raised by one. Returns the previous epoch. All records that the process made
        durable can be read from now on, and it acknowledges no more.

        Conflict, with the remaining time, if the node may be alive; NotFound; Invalid for this node itself. `margin_ms`
        must exceed the drift of clocks within a lease.
        """
        identity = self.identity
        if node == identity.node:
            raise Invalid(f"node {node} is this broker: it takes itself over by registering")

        def run(connection: Connection) -> int:
            found = _locked_broker(connection, node)
            if found is None:
                raise NotFound(f"broker {node} never registered")
            left_ms = found["lease_until_ms"] + margin_ms - self._database.now_ms(connection)
            if left_ms > 0 and found["lease_until_ms"] != LEFT:
                raise Conflict(f"broker {node} may be alive: it can be taken over in {left_ms} ms at the earliest")
            epoch: int = found["epoch"]
            connection.execute(update(schema.broker).where(schema.broker.c.node == node).values(epoch=epoch + 1))
            return epoch

        # Durable before any WAL of the node is replayed: a later renewal is Fenced, an earlier one makes this a
        # Conflict.
        return await self._database.write(run, identity)

    async def brokers(self) -> list[BrokerInfo]:
        """All brokers that ever registered, by node. If its lease has expired, a broker is dead or disconnected."""
        b = schema.broker.c
        query = select(b.node, b.epoch, b.host, b.port, b.lease_until_ms).order_by(b.node)
        return await self._database.read(lambda connection: [BrokerInfo(*row) for row in connection.execute(query)])


def _locked_broker(connection: Connection, node: int) -> RowMapping | None:
    """Epoch and lease of the node. Its row is locked until the commit: no write is under way that its fence let pass,
    and none passes it before this transaction ends (fences.py)."""
    b = schema.broker.c
    query = select(b.epoch, b.lease_until_ms).where(b.node == node).with_for_update()
    return connection.execute(query).mappings().one_or_none()
