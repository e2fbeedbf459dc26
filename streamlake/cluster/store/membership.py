"""Membership of brokers: registration, epoch, beats, lease.

A broker takes a new epoch at each start. A process that acts for a node under an older epoch is a zombie; the epoch is
the fence of every write to the metadata store (fences.py). Only a newer epoch fences: a registration of the node, or a
takeover by another one (`take_over`).

While it runs a broker beats: it counts up a number in its row. Others who see the number stand still for a whole lease
take the broker for dead (watch.py); no wall clock is asked. In return a broker that could not beat for a whole lease,
by its own clock, acknowledges nothing that others could replay without asking it (a file WAL on a shared disk).

An expired lease (the machine slept, the store was unavailable) may be renewed by a beat, and acknowledgements continue,
as long as nobody has raised the epoch. This is safe: a beat succeeds only under the current epoch, so there was no
takeover by then, and a later one compares the beat with the one that was watched: it must watch for a whole lease from
here on. It replays after that, and finds all records that were durable before, including those that were synced while
the lease was not held.

Beats have a connection of their own, so that they never wait behind other operations. The event loop sends them: a
broker whose loop hangs is dead to others, as it should be.
"""

import asyncio
import itertools
from base64 import urlsafe_b64encode
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, RowMapping, Update, func, select, update

from streamlake.cluster.secret import SECRET_BYTES, ClusterSecret
from streamlake.cluster.store import schema
from streamlake.cluster.store.controllers import Term, require_controller
from streamlake.cluster.store.database import Database
from streamlake.cluster.store.fences import LOST_COMMITS, BrokerIdentity, taken_over
from streamlake.cluster.store.revision import lock_revision
from streamlake.cluster.store.schema import (
    DRAINING,
    FENCED,
    LEFT,
    RUNNING_STATES,
    SERVING,
    STARTING,
    insert_into,
)
from streamlake.cluster.watch import Sign, Watch
from streamlake.core.clock import Clock
from streamlake.core.errors import Closed, Conflict, Corrupt, Fenced, Invalid, NotFound
from streamlake.core.ids import Ids
from streamlake.core.retry import TRANSIENT
from streamlake.telemetry.metric import Metric, counter

CLUSTER_ROW = 1
LEASE_S = 3.0
BEAT_INTERVAL_S = 0.75  # two may fail, and the third is in time
BEAT_RETRY_S = 0.25
BEAT_ANSWER_TIMEOUT_S = 1.0  # a connection that is silent for longer is given up, while there is time for another one
NEVER_REGISTERED = 0  # epoch of a node's row before the first registration


@dataclass(frozen=True, slots=True)
class BrokerInfo:
    node: int
    epoch: int
    beat: int
    state: str
    host: str
    port: int
    drained: bool = False  # it is to have no partitions and slots until an operator says otherwise

    @property
    def sign(self) -> Sign:
        return Sign(self.epoch, self.beat)

    @property
    def may_run(self) -> bool:
        return self.state in RUNNING_STATES

    @property
    def serves(self) -> bool:
        """Clients can be sent to it."""
        return self.state in (SERVING, DRAINING)

    @property
    def is_available(self) -> bool:
        """Partitions and slots may be assigned to it."""
        return self.state == SERVING and not self.drained


@dataclass(frozen=True, slots=True)
class BeatView:
    """What a beat sees of the cluster."""

    revision: int  # of topics, configs, slots and leaders
    brokers: tuple[BrokerInfo, ...]  # all that ever registered, by node


class LeaseTerm:
    """The time of the lease, in seconds of `Clock.boottime`. Sans-IO."""

    def __init__(self, lease_s: float) -> None:
        self.lease_s = lease_s
        self.deadline = float("-inf")

    def granted(self, sent_at: float) -> None:
        """A beat that was sent at `sent_at` succeeded. Others saw it later than that, so a lease that is counted from
        `sent_at` can only be too short: this process stops before others may assume that it has."""
        self.deadline = max(self.deadline, sent_at + self.lease_s)

    def held(self, now: float) -> bool:
        return now < self.deadline


class Membership:
    """Implements s3stream.wal.Lease for this process."""

    def __init__(self, database: Database, beats: Database, clock: Clock, ids: Ids) -> None:
        """`beats`: a connection on which nothing but beats and short reads wait (Database.beside)."""
        self.renewals = 0
        self.failed_renewals = 0
        self._database = database
        self._beats = beats
        self._clock = clock
        self._ids = ids
        self._lease = LeaseTerm(LEASE_S)
        self._granted = asyncio.Event()
        self.listeners: list[Callable[[BeatView], None]] = []  # called on the loop after each beat; must not raise
        self.watch = Watch(LEASE_S)
        self._left = False
        self._beat = 0  # the last one that was acknowledged
        self._identity: BrokerIdentity | None = None
        self._secret: ClusterSecret | None = None

    def metrics(self) -> Iterable[Metric]:
        return (
            counter("streamlake_lease_renewals", "Beats of the broker, which renew its lease in the metadata store.",
                lambda: self.renewals),
            counter("streamlake_lease_renewals_failed", "Beats of the broker that failed.",
                lambda: self.failed_renewals),
        )  # fmt: skip

    @property
    def identity(self) -> BrokerIdentity:
        """Closed before `register`."""
        if self._identity is None:
            raise Closed("this broker is not registered yet")
        return self._identity

    @property
    def secret(self) -> ClusterSecret:
        """Of the cluster. Closed before `register`."""
        if self._secret is None:
            raise Closed("this broker is not registered yet")
        return self._secret

    def held(self) -> bool:
        """See s3stream.wal.Lease. Time during which the machine slept counts."""
        return self._lease.held(self._clock.boottime())

    async def until_held(self) -> None:
        """See s3stream.wal.Lease. After `leave` it waits for ever."""
        while not self.held():
            self._granted.clear()
            await self._granted.wait()

    async def register(self, node: int | None, host: str, port: int, former: Sign | None = None) -> BrokerIdentity:
        """Take the next epoch of this node: every older process of the node is fenced from then on. The very first
        registration creates the id and the secret of the cluster. Without a node it is one that is over and left
        nothing, else a new one.

        `former`: the sign of a process of the node that need not be waited for (broker/registration.py). Conflict if
        the node may run and shows another sign.
        """
        sent_at = self._clock.boottime()
        cluster_id = urlsafe_b64encode(self._ids.uuid().bytes).decode().rstrip("=")
        secret = self._ids.random.randbytes(SECRET_BYTES)

        def run(connection: Connection) -> tuple[BrokerIdentity, ClusterSecret]:
            first = insert_into(connection, schema.cluster).values(id=CLUSTER_ROW, cluster_id=cluster_id, revision=0)
            connection.execute(first.on_conflict_do_nothing())
            c = schema.cluster.c
            connection.execute(update(schema.cluster).where(c.secret.is_(None)).values(secret=secret))
            found = connection.execute(select(c.cluster_id, c.secret)).one()
            mine = _free_node(connection) if node is None else node
            identity = BrokerIdentity(found.cluster_id, mine, _take_epoch(connection, mine, host, port, former))
            return identity, ClusterSecret(found.secret)

        # The new epoch is durable when this returns, and the fence of a zombie's next write falls: no write of ours can
        # precede that. A process that beat since it was looked at shows another sign, and is not fenced.
        self._identity, self._secret = await self._database.write(run)
        self._grant(sent_at)
        return self.identity

    async def beat(self) -> None:
        """Show others that this broker lives, which renews its lease, even an expired one; the listeners get what it
        has seen of the others.

        Fenced if a newer epoch of this node exists. Unavailable, OutcomeUnknown: try again. Closed after `leave`.
        Corrupt if the metadata store has lost what it had acknowledged."""
        if self._left:
            raise Closed("this broker has given its lease back")
        sent_at = self._clock.boottime()
        identity, acknowledged = self.identity, self._beat
        counting = _mine(identity).values(beat=schema.broker.c.beat + 1).returning(schema.broker.c.beat)

        def run(connection: Connection) -> tuple[int, BeatView]:
            beat: int | None = connection.execute(counting).scalar()
            if beat is None:
                raise _not_mine(connection, identity)
            if beat <= acknowledged:
                raise Corrupt(
                    f"the metadata store went back: it counts beat {beat} of node {identity.node}, and had acknowledged"
                    f" beat {acknowledged}. {LOST_COMMITS}"
                )
            return beat, beat_view(connection)

        try:
            self._beat, view = await self._beats.write(run)
        except BaseException:
            self.failed_renewals += 1
            raise
        self._grant(sent_at)
        self.renewals += 1
        for listener in self.listeners:
            listener(view)

    def _grant(self, sent_at: float) -> None:
        if not self._left:  # the answer to a beat may arrive while the lease is being released
            self._lease.granted(sent_at)
            self._granted.set()

    async def run(self) -> None:
        """Beat until cancelled. Raises Fenced and Corrupt (end the process). While the store is unavailable it tries
        again, and the lease expires by itself."""
        pause_s = BEAT_INTERVAL_S
        while True:
            await asyncio.sleep(pause_s)
            sent_at = self._clock.boottime()
            try:
                await self.beat()
            except TRANSIENT:
                pause_s = BEAT_RETRY_S
            else:
                pause_s = max(0.0, sent_at + BEAT_INTERVAL_S - self._clock.boottime())

    async def leave(self) -> None:
        """A clean stop: the lease ends now, so that nobody needs to wait for it. Epoch and WALs remain."""
        identity = self.identity

        def run(connection: Connection) -> None:
            if connection.execute(_mine(identity).values(state=LEFT)).rowcount == 0:
                raise _not_mine(connection, identity)

        # First of all: from here on nothing is acknowledged on the lease, so others may regard it as ended.
        self._left = True
        self._lease.deadline = float("-inf")
        await self._beats.write(run)

    async def drain(self) -> None:
        """Before a clean stop: nothing is assigned to this broker any more, and what it has is assigned to others while
        it serves. Fenced; Unavailable, OutcomeUnknown: try again."""
        identity = self.identity

        def run(connection: Connection) -> None:
            # Safe whenever it lands, or should the broker die then: it asks for other assignments, and says nothing
            # about who may open a stream.
            if connection.execute(_mine(identity).values(state=DRAINING)).rowcount == 0:
                raise _not_mine(connection, identity)

        await self._beats.write(run)

    async def serve(self) -> None:
        """Clients may be sent to this broker, and partitions be assigned to it."""
        identity = self.identity

        def run(connection: Connection) -> None:
            connection.execute(_mine(identity).values(state=SERVING))

        await self._database.write(run, identity)

    async def take_over(self, term: Term, node: int, sign: Sign) -> int:
        """As the controller: fence another node, which left, or is dead, and showed this sign: its epoch is raised by
        one. Returns the previous epoch. All records that the process made durable can be read from now on, and it
        acknowledges no more.

        Conflict if it shows another sign: it lives; or if another broker is the controller. NotFound. Invalid for this
        node itself.
        """
        identity = self.identity
        if node == identity.node:
            raise Invalid(f"node {node} is this broker: it takes itself over by registering")

        def run(connection: Connection) -> int:
            require_controller(connection, term)
            # Ours, too, and in the order of the nodes: two brokers that fence each other do not wait for each other.
            found = _locked_brokers(connection, {node, identity.node}).get(node)
            if found is None:
                raise NotFound(f"broker {node} never registered")
            if _sign(found) != sign:
                raise Conflict(f"broker {node} is alive: it shows {_sign(found)}, and was watched at {sign}")
            fenced = update(schema.broker).where(schema.broker.c.node == node)
            connection.execute(fenced.values(epoch=sign.epoch + 1, state=FENCED))
            return sign.epoch

        # Durable before any WAL of the node is replayed: a later beat is Fenced, an earlier one makes this a Conflict.
        return await self._database.write(run, identity)

    async def look(self) -> dict[int, BrokerInfo]:
        """All brokers that ever registered, by node; `watch` sees their signs. Looks that follow each other for a lease
        show who is dead."""
        asked_at = self._clock.boottime()
        brokers = {broker.node: broker for broker in await self.brokers()}
        self.watch.look({node: broker.sign for node, broker in brokers.items()}, asked_at, self._clock.boottime())
        return brokers

    async def brokers(self) -> list[BrokerInfo]:
        """All brokers that ever registered, by node."""
        return await self._beats.read(brokers_of)


def brokers_of(connection: Connection) -> list[BrokerInfo]:
    """All brokers that ever registered, by node."""
    return [BrokerInfo(*row) for row in connection.execute(_BROKERS)]


def _free_node(connection: Connection) -> int:
    """The lowest node whose last life is over, with all records of it in objects; else the lowest that never was."""
    lock_revision(connection)  # of two that start at once, the second one sees what the first has taken
    b = schema.broker.c
    with_wal = select(schema.wal.c.node)
    over = b.state.in_((LEFT, FENCED)) & ~b.drained & b.node.not_in(with_wal)
    free: int | None = connection.execute(select(func.min(b.node)).where(over)).scalar()
    if free is not None:
        return free
    known = set(connection.execute(select(b.node)).scalars())
    return next(node for node in itertools.count() if node not in known)


def _take_epoch(connection: Connection, node: int, host: str, port: int, former: Sign | None) -> int:
    """The next epoch. The row is created first, so that it can be locked: of two processes that register one node at
    the same time, one comes first."""
    facts = {"beat": 0, "host": host, "port": port}
    first = insert_into(connection, schema.broker).values(node=node, epoch=NEVER_REGISTERED, state=LEFT, **facts)
    connection.execute(first.on_conflict_do_nothing())
    previous = _locked_brokers(connection, {node})[node]
    if previous["state"] in RUNNING_STATES and _sign(previous) != former:
        raise Conflict(f"node {node} may run: it shows {_sign(previous)}, expected was {former}")
    epoch: int = previous["epoch"] + 1
    mine = update(schema.broker).where(schema.broker.c.node == node)
    connection.execute(mine.values(epoch=epoch, state=STARTING, **facts))
    return epoch


# One statement, so that all is of one moment, and a beat costs one round trip more. Made once: each beat needs it.
_b = schema.broker.c
_BROKERS = select(_b.node, _b.epoch, _b.beat, _b.state, _b.host, _b.port, _b.drained).order_by(_b.node)
_VIEW = _BROKERS.add_columns(select(schema.cluster.c.revision).scalar_subquery())


def beat_view(connection: Connection) -> BeatView:
    rows = connection.execute(_VIEW).all()  # this broker at least
    return BeatView(rows[0][-1], tuple(BrokerInfo(*row[:-1]) for row in rows))


def _locked_brokers(connection: Connection, nodes: Collection[int]) -> dict[int, RowMapping]:
    """The rows of the nodes, locked until the commit: no write is under way that their fences let pass, and none passes
    before this transaction ends (fences.py)."""
    b = schema.broker.c
    query = select(b.node, b.epoch, b.beat, b.state).where(b.node.in_(sorted(nodes))).order_by(b.node)
    return {row["node"]: row for row in connection.execute(query.with_for_update()).mappings()}


def _sign(row: RowMapping) -> Sign:
    return Sign(row["epoch"], row["beat"])


def _mine(identity: BrokerIdentity) -> Update:
    b = schema.broker.c
    return update(schema.broker).where((b.node == identity.node) & (b.epoch == identity.epoch))


def _not_mine(connection: Connection, identity: BrokerIdentity) -> Fenced | Corrupt:
    """Why there is no row of this identity."""
    b = schema.broker.c
    epoch: int | None = connection.execute(select(b.epoch).where(b.node == identity.node)).scalar()
    return taken_over(identity, epoch)
