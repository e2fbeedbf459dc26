"""One metadata store for all brokers of a world: the real Database on a shared SQLite in memory, with faults around it.

Each process has a Database of its own (`MetadataServer.open`), as on PostgreSQL. They share one connection, which is
sound because a group of operations begins and ends inside one call that nothing interrupts; so a group is atomic, and
only its answer can be lost.

Faults: Unavailable with nothing done, OutcomeUnknown with all done, outages, and the loss of one connection. On the
network the store is the host HOST. It may fail over, and then to a standby that lacks the last commits. A group may
freeze with its process before it commits: what others write waits for its locks, until it goes on or the server ends
it. One may be stopped on its way to the store, while its process goes on. The tables are made once per Python process
by the real migrations, and copied.

Some changes are told to checkers: fences, terms of controllers, assignments, the ends of drains.
"""

import asyncio
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

from simulation.world.chance import Latency, Windows
from simulation.world.executor import SimExecutor, take_time
from simulation.world.loop import SimLoop, current_process
from simulation.world.net import parted
from simulation.world.process import Process, SimClock
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import StaticPool

from streamlake.cluster.store import migrations
from streamlake.cluster.store.database import Database, Write, _begin_immediate
from streamlake.cluster.store.schema import FENCED, RUNNING_STATES
from streamlake.cluster.watch import GAP_S
from streamlake.core.errors import OutcomeUnknown, Unavailable
from streamlake.core.tasks import Executor

Outcome = tuple[Any, BaseException | None]
T = TypeVar("T")


GROUP = Latency(0.001, 0.01, 0.5)
HOST = "metadata"
FROZEN_S = 1.0  # idle_in_transaction_session_timeout, see streamlake/cluster/store/postgres.py
LOCK_S = 0.02  # until who waits for a lock sees that it is free
NOTHING_DONE = ("unavailable", "outage", "lost", "parted")


@dataclass(frozen=True, slots=True)
class MetadataFaults:
    """Rates are chances per group of operations; outages: seconds between two on average, 0 for none."""

    latency: Latency = GROUP
    unavailable: float = 0.0  # nothing done
    unknown: float = 0.0  # done, but nobody is told
    outage_gap_s: float = 0.0
    outage_s: float = 15.0


CALM = MetadataFaults()
MILD = MetadataFaults(unavailable=0.01, unknown=0.01)
WILD = MetadataFaults(Latency(0.002, 0.03, 3.0), unavailable=0.03, unknown=0.03, outage_gap_s=300)


@dataclass(frozen=True, slots=True)
class Fence:
    """The epoch of a node was raised."""

    node: int
    epoch: int  # of the process that is fenced
    ran: bool  # as far as the store knew
    by_another_node: bool
    since_outage_s: float  # since whoever did it could look again, after it could not for longer than a watch allows


@dataclass(frozen=True, slots=True)
class Assignment:
    """A partition was given to another node, or a drain to another broker."""

    by: Process | None
    controller_node: int | None  # of the current term
    controller_epoch: int | None


@dataclass(frozen=True, slots=True)
class DrainEnd:
    """Of a part: it is done."""

    by: Process | None
    given_node: int  # who was to do it
    given_epoch: int


@dataclass(slots=True, eq=False)
class Stop:
    """The next group of a process with a write that the method `act` of some class makes is stopped on its way."""

    process: Process
    act: str
    reached: bool = False
    released: asyncio.Event = field(default_factory=asyncio.Event)

    def release(self) -> None:
        """It goes on, if it was reached; if it was not, nothing is stopped any more."""
        self.reached = True
        self.released.set()


CONTROLLER = "(SELECT node FROM main.controller), (SELECT broker_epoch FROM main.controller)"
TRIGGERS = {
    "fence_seen": "UPDATE OF epoch ON main.broker BEGIN SELECT fence_seen(old.node, old.epoch, old.state, new.state)",
    # What an operator moves is pinned, and any broker may write it.
    "assign_seen": f"UPDATE OF node ON main.partition WHEN NOT new.pinned BEGIN SELECT assign_seen({CONTROLLER})",
    # A node may take the drains of its own former lives.
    "drain_seen": f"UPDATE OF by_node ON main.drain WHEN new.by_node <> new.node BEGIN SELECT assign_seen({CONTROLLER})",
    "drain_ends": "UPDATE OF done ON main.drain WHEN new.done BEGIN SELECT drain_ends(old.by_node, old.by_epoch)",
    "term_seen": "UPDATE ON main.controller BEGIN SELECT term_seen()",
}


@dataclass(slots=True)
class Silence:
    """The last time that a process could not reach the store: all its groups failed since `answered`."""

    answered: float = float("-inf")
    began: float = float("-inf")
    failed: float = float("-inf")

    def heard(self, now: float) -> None:
        self.answered = now

    def heard_nothing(self, now: float) -> None:
        if self.failed <= self.answered:
            self.began = self.answered
        self.failed = now

    def since_s(self, now: float) -> float:
        """Since the last one that was longer than a watch allows."""
        return now - self.failed if self.failed - self.began > GAP_S else float("inf")


class MetadataServer:
    """The state, shared by the Databases of all processes."""

    def __init__(self, loop: SimLoop, faults: MetadataFaults = CALM) -> None:
        self.loop = loop
        self.faults = faults
        self.random = loop.derived("metadata")
        self.clock = SimClock(loop)
        self.connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self.connection.deserialize(_migrated())
        self.connection.execute("PRAGMA foreign_keys=ON")
        self._outages = Windows(self.random, faults.outage_gap_s, faults.outage_s)
        self.on_fence: Callable[[Fence], None] = lambda fence: None
        self.on_assign: Callable[[Assignment], None] = lambda assignment: None
        self.on_drained: Callable[[DrainEnd], None] = lambda end: None
        self.on_term: Callable[[], None] = lambda: None
        self._seen: list[Callable[[], None]] = []  # in the transaction that is open: told when it is committed
        self._stops: list[Stop] = []
        self.silences: dict[Process | None, Silence] = defaultdict(Silence)
        self.failovers = 0
        self._standby = b""
        self._to_freeze: Process | None = None
        self._locked_by: Process | None = None
        self._locked_until = float("-inf")
        self.connection.create_function("fence_seen", 4, self._fence_seen)
        self.connection.create_function("assign_seen", 2, self._assign_seen)
        self.connection.create_function("drain_ends", 2, self._drain_ends)
        self.connection.create_function("term_seen", 0, lambda: self._seen.append(lambda: self.on_term()))
        self._watch_changes()

    async def open(self, process: Process, executor: Executor | None = None) -> Database:
        """Unavailable if there is an outage right now, as a real one would be."""
        executor = executor or SimExecutor("metadata", process)
        database = SimDatabase(self, executor, process)
        await executor.run(database.check)
        return database

    def outage(self, length_s: float) -> None:
        self._outages.open(self.loop.time(), length_s)

    def fail_over(self, length_s: float) -> None:
        """The server is lost. What is under way fails, done or not; later its standby serves, which has all commits."""
        self.failovers += 1
        self.outage(length_s)

    def copy_to_standby(self) -> None:
        """Of what is committed from here on, an asynchronous standby knows nothing."""
        self._standby = self.connection.serialize()

    def lose_commits(self, length_s: float) -> None:
        """Fail over to that standby."""
        self.loop.event("metadata: the last commits are lost")
        for name in TRIGGERS:
            self.connection.execute(f"DROP TRIGGER {name}")  # it points into the schema that is replaced
        self.connection.deserialize(self._standby)
        self._watch_changes()
        self.fail_over(length_s)

    def freeze(self, process: Process) -> None:
        """The process is paused in its next group of writes, before it commits."""
        self._to_freeze = process

    def heal(self) -> None:
        self.faults = MetadataFaults(latency=self.faults.latency)
        self._outages.close()
        self._to_freeze = None

    def close(self) -> None:
        self.connection.close()

    def fate(self) -> str:
        """Of whoever asks now, whatever its connection is like."""
        if self._outages.active(self.loop.time()):
            return "outage"
        drawn = self.random.random()
        if drawn < self.faults.unavailable:
            return "unavailable"
        return "unknown" if drawn < self.faults.unavailable + self.faults.unknown else "done"

    def _watch_changes(self) -> None:
        for name, event_and_call in TRIGGERS.items():
            self.connection.execute(f"CREATE TEMP TRIGGER {name} AFTER {event_and_call}; END")

    def _assign_seen(self, node: int | None, broker_epoch: int | None) -> None:
        assignment = Assignment(current_process(), node, broker_epoch)
        self._seen.append(lambda: self.on_assign(assignment))

    def _drain_ends(self, given_node: int, given_epoch: int) -> None:
        end = DrainEnd(current_process(), given_node, given_epoch)
        self._seen.append(lambda: self.on_drained(end))

    def _fence_seen(self, node: int, epoch: int, before: str, after: str) -> None:
        since_s = self.silences[current_process()].since_s(self.loop.time())
        fence = Fence(node, epoch, before in RUNNING_STATES, after == FENCED, since_s)
        self._seen.append(lambda: self.on_fence(fence))

    def _committed(self, _: Connection) -> None:
        seen, self._seen = self._seen, []
        for tell in seen:
            tell()

    def _rolled_back(self, _: Connection) -> None:
        self._seen.clear()

    def stop(self, process: Process, act: str) -> Stop:
        """`act`: a class and its method, as in `Topics.assign`."""
        self._stops.append(Stop(process, act))
        return self._stops[-1]

    def stops(self, process: Process, writes: Sequence[Write]) -> Stop | None:
        """What stops this group of a process."""
        self._stops = [stop for stop in self._stops if not stop.reached]
        for stop in self._stops:
            acts = (write.run.__qualname__.rpartition(".<locals>.")[0] for write in writes)
            if stop.process is process and stop.act in acts:
                stop.reached = True
                return stop
        return None

    def freezes(self, process: Process) -> bool:
        if process is not self._to_freeze:
            return False
        self._to_freeze, self._locked_by = None, process
        self._locked_until = self.loop.time() + FROZEN_S
        return True

    def unlock(self, process: Process) -> bool:
        """It goes on. False if its transaction is over."""
        if self._locked_by is not process or self.loop.time() >= self._locked_until:
            return False
        self._locked_until = float("-inf")
        return True

    def locked_s(self, process: Process) -> float:
        """How long its writes must wait for the locks of another process."""
        return 0.0 if process is self._locked_by else self._locked_until - self.loop.time()

    def query(self, sql: str, *args: Any) -> list[Any]:
        """For checkers: what is committed, at once and without faults."""
        return self.connection.execute(sql, args).fetchall()

    def engine(self) -> Engine:
        dialect = _dialect_engine()
        engine = Engine(StaticPool(lambda: self.connection, reset_on_return=None), dialect.dialect, dialect.url)  # type: ignore[arg-type, return-value]
        event.listen(engine, "begin", _begin_immediate)
        event.listen(engine, "commit", self._committed)
        event.listen(engine, "rollback", self._rolled_back)
        return engine.execution_options(compiled_cache=_compiled())


class SimDatabase(Database):
    """One connection of a process. `answer_timeout_s`: as in Database; those that have one wait for no locks, because
    nobody else locks what they write."""

    def __init__(
        self, server: MetadataServer, executor: Executor, process: Process, answer_timeout_s: float | None = None
    ) -> None:
        super().__init__(server.engine(), executor, process.clock, answer_timeout_s=answer_timeout_s)
        self._server = server
        self._process = process
        self._takes_locks = answer_timeout_s is None
        self._lost_until = float("-inf")
        self._parted = False
        self._failovers = server.failovers

    def lose(self, length_s: float) -> None:
        """This connection alone is down for a while, and cannot be made anew."""
        self._lost_until = self._server.loop.time() + length_s

    @property
    def is_ours_alone(self) -> bool:
        return False

    def beside(self, executor: Executor, answer_timeout_s: float | None = None) -> Database:
        self._beside.append(SimDatabase(self._server, executor, self._process, answer_timeout_s))
        return self._beside[-1]

    def now_ms(self, connection: Connection) -> int:
        return self._server.clock.now_ms()

    def check(self) -> None:
        if self._fate() in NOTHING_DONE:
            raise Unavailable("cannot open the metadata store: it does not answer (simulated)")

    async def _on_thread(self, timeout_s: float, fn: Callable[..., T], *args: Any) -> T:
        server, process = self._server, self._process
        if self._takes_locks and fn == self._run and args[0]:
            if stop := server.stops(process, args[0]):
                await stop.released.wait()
            if server.freezes(process):
                process.pause()
                await asyncio.sleep(0)
                if not server.unlock(process):
                    ended = Unavailable("the metadata store ended a transaction that was idle (simulated)")
                    return [(None, ended)] * sum(map(len, args))
            while (wait_s := server.locked_s(process)) > 0:
                await asyncio.sleep(min(wait_s, LOCK_S))
        return await super()._on_thread(timeout_s, fn, *args)

    def _run(self, writes: Sequence[Write], reads: Sequence[Callable[[Connection], Any]]) -> list[Outcome]:
        server, fate = self._server, self._fate()
        server.loop.event(f"metadata: {len(writes)} writes {len(reads)} reads: {fate}")
        take_time(server.faults.latency.draw(server.random))
        nothing_done = Unavailable(f"the metadata store failed, nothing was changed: {fate} (simulated)")
        if fate in NOTHING_DONE:
            return [(None, nothing_done)] * (len(writes) + len(reads))
        outcomes = super()._run(writes, reads)
        if fate == "unknown":
            lost = OutcomeUnknown("the metadata store failed while it committed (simulated)")
            return [(None, lost)] * len(writes) + [(None, nothing_done)] * len(reads)
        return outcomes

    def _fate(self) -> str:
        """Of the next group on this connection."""
        server = self._server
        fate = self._fate_of_connection() or server.fate()
        silence, now = server.silences[self._process], server.loop.time()
        silence.heard_nothing(now) if fate in ("outage", "lost", "parted") else silence.heard(now)
        return fate

    def _fate_of_connection(self) -> str | None:
        """None: it works."""
        server, host = self._server, self._process.host
        if server.loop.time() < self._lost_until:
            return "lost"
        if server.failovers != self._failovers:  # it was under way, as far as this connection can tell
            self._failovers = server.failovers
            return server.random.choice(("unknown", "lost"))
        reaches, hears = not parted(server.loop, host, HOST), not parted(server.loop, HOST, host)
        parted_before, self._parted = self._parted, not (reaches and hears)
        if not self._parted:
            return None
        take_time(server.random.random() * self._answer_timeout_s)  # then it is cut, or the network says so
        # No connection can be made without hearing the other side; what was open carried one more request.
        return "unknown" if reaches and not parted_before else "parted"


@cache
def _dialect_engine() -> Engine:
    """SQLAlchemy compiles statements per dialect object: all worlds share this one, and what was compiled for it."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    engine.connect().close()  # the dialect learns at its first connection what this SQLite can do
    return engine


@cache
def _compiled() -> dict[Any, Any]:
    return {}


@cache
def _migrated() -> bytes:
    engine = create_engine("sqlite://", poolclass=StaticPool)
    with engine.begin() as connection:
        migrations.upgrade(connection)
    raw = engine.raw_connection().driver_connection
    assert isinstance(raw, sqlite3.Connection)
    return raw.serialize()
