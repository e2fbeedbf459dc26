"""One metadata store for all brokers of a world: the real Database on a shared SQLite in memory, with faults around it.

Each process has a Database of its own (`MetadataServer.open`), as on PostgreSQL. They share one connection, which is
sound because a group of operations begins and ends inside one call that nothing interrupts; so a group is atomic, and
only its answer can be lost.

Faults: Unavailable with nothing done, OutcomeUnknown with all done, and outages. The tables are made once per Python
process by the real migrations, and copied.
"""

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from simulation.world.chance import Latency, Windows
from simulation.world.executor import SimExecutor, take_time
from simulation.world.loop import SimLoop
from simulation.world.process import Process, SimClock
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import StaticPool

from streamlake.cluster.store import migrations
from streamlake.cluster.store.database import Database, Write, _begin_immediate
from streamlake.cluster.store.schema import FENCED, RUNNING_STATES
from streamlake.cluster.watch import GAP_S
from streamlake.core.clock import Clock
from streamlake.core.errors import OutcomeUnknown, Unavailable
from streamlake.core.tasks import Executor

Outcome = tuple[Any, BaseException | None]


GROUP = Latency(0.001, 0.01, 0.5)


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
    since_outage_s: float  # since the end of the last outage in which no watcher could look for longer than it may


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
        self._outage_seen = (float("-inf"), float("-inf"))
        self.connection.create_function("fence_seen", 4, self._fence_seen)
        self.connection.execute(
            "CREATE TEMP TRIGGER fence_seen AFTER UPDATE OF epoch ON main.broker "
            "BEGIN SELECT fence_seen(old.node, old.epoch, old.state, new.state); END"
        )

    async def open(self, process: Process, executor: Executor | None = None) -> Database:
        """Unavailable if there is an outage right now, as a real one would be."""
        executor = executor or SimExecutor("metadata", process)
        database = SimDatabase(self, self._engine(), executor, process.clock)
        await executor.run(database.check)
        return database

    def outage(self, length_s: float) -> None:
        self._outages.open(self.loop.time(), length_s)

    def heal(self) -> None:
        self.faults = MetadataFaults(latency=self.faults.latency)
        self._outages.close()

    def close(self) -> None:
        self.connection.close()

    def fate(self) -> str:
        now = self.loop.time()
        if self._outages.active(now):
            began, last = self._outage_seen
            self._outage_seen = (now if now - last > GAP_S else began, now)
            return "outage"
        drawn = self.random.random()
        if drawn < self.faults.unavailable:
            return "unavailable"
        return "unknown" if drawn < self.faults.unavailable + self.faults.unknown else "done"

    def _fence_seen(self, node: int, epoch: int, before: str, after: str) -> None:
        began, last = self._outage_seen
        since_s = self.loop.time() - last if last - began > GAP_S else float("inf")
        self.on_fence(Fence(node, epoch, before in RUNNING_STATES, after == FENCED, since_s))

    def query(self, sql: str, *args: Any) -> list[Any]:
        """For checkers: what is committed, at once and without faults."""
        return self.connection.execute(sql, args).fetchall()

    def _engine(self) -> Engine:
        dialect = _dialect_engine()
        engine = Engine(StaticPool(lambda: self.connection, reset_on_return=None), dialect.dialect, dialect.url)  # type: ignore[arg-type, return-value]
        event.listen(engine, "begin", _begin_immediate)
        return engine.execution_options(compiled_cache=_compiled())


class SimDatabase(Database):
    def __init__(self, server: MetadataServer, engine: Engine, executor: Executor, clock: Clock) -> None:
        super().__init__(engine, executor, clock)
        self._server = server

    @property
    def is_ours_alone(self) -> bool:
        return False

    def beside(self, executor: Executor, answer_timeout_s: float | None = None) -> Database:
        self._beside.append(SimDatabase(self._server, self._server._engine(), executor, self._clock))
        return self._beside[-1]

    def now_ms(self, connection: Connection) -> int:
        return self._server.clock.now_ms()

    def check(self) -> None:
        if self._server.fate() in ("unavailable", "outage"):
            raise Unavailable("cannot open the metadata store: it does not answer (simulated)")

    def _run(self, writes: Sequence[Write], reads: Sequence[Callable[[Connection], Any]]) -> list[Outcome]:
        server = self._server
        fate = server.fate()
        server.loop.event(f"metadata: {len(writes)} writes {len(reads)} reads: {fate}")
        take_time(server.faults.latency.draw(server.random))
        nothing_done = Unavailable(f"the metadata store failed, nothing was changed: {fate} (simulated)")
        if fate in ("unavailable", "outage"):
            return [(None, nothing_done)] * (len(writes) + len(reads))
        outcomes = super()._run(writes, reads)
        if fate == "unknown":
            lost = OutcomeUnknown("the metadata store failed while it committed (simulated)")
            return [(None, lost)] * len(writes) + [(None, nothing_done)] * len(reads)
        return outcomes


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
