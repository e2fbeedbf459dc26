"""One seed, one life: a cluster, its clients, what befalls them, and what must hold in the end.

The seed draws a plan (storage, how bad the faults are, who the clients are), then trouble comes for a while: processes
are killed at any await, paused until they are zombies, restarted on another host or with another WAL; hosts lose their
power; bucket, metadata store, catalog and network fail; somebody expires our snapshots. Then all of it heals, clients
finish, and everything that was promised is compared with what is there.
"""

import asyncio
import os
import traceback
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from random import Random
from typing import Any

import structlog
from pyiceberg.utils.concurrent import ExecutorFactory
from sim import bucket as buckets
from sim import catalog as catalogs
from sim import metadata as metadatas
from sim.admin import Admin
from sim.bucket import SimBucket
from sim.catalog import CatalogServer
from sim.checks import DeadLetter, TableRow, check_all, check_objects, check_table
from sim.client import World
from sim.cluster import BrokerLife, SimCluster
from sim.consumers import Tailer
from sim.groups import GroupMember
from sim.ledger import Ledger, TopicFacts
from sim.loop import SimLoop, Stuck, Trace
from sim.machine import MachineFaults, Outside
from sim.metadata import MetadataServer
from sim.net import NetFaults, SimNet
from sim.process import Process, SimClock
from sim.producers import IdempotentProducer, PlainProducer
from sim.tables import RegistryUser, TableFeeder

from streamlake.config import Config
from streamlake.core.errors import StreamLakeError
from streamlake.handlers.apis import HANDLERS
from streamlake.protocol.requests import prepare
from streamlake.s3stream.object_format import object_key

QUIET_S = 600.0  # the longest that a healed cluster may take to finish what it owes
STEPS_MAX = 6_000_000
TABLES = {
    "streamlake.table.enable": "true",
    "streamlake.table.convert.value.type": "by_schema_id",
    "streamlake.table.transform.value.type": "flatten",
    "streamlake.table.commit.interval.ms": "1000",
}
TEXT_TABLE = {
    "streamlake.table.enable": "true",
    "streamlake.table.convert.value.type": "string",
    "streamlake.table.commit.interval.ms": "500",
}
WALS = ("object", "object", "file:///shared/wal?shared=true", "file:///data/wal")


@dataclass(frozen=True, slots=True)
class Plan:
    """What the seed decided before anything began."""

    embedded: bool  # one host, objects on its disk, a file WAL; else a bucket and three hosts
    severity: str  # calm, mild, wild
    trouble_s: float
    tables: bool
    retention: bool
    wals: tuple[str, ...]


def draw_plan(random: Random) -> Plan:
    embedded = random.random() < 0.25
    return Plan(
        embedded=embedded,
        severity=random.choice(("calm", "mild", "mild", "wild")),
        trouble_s=random.uniform(20, 60),
        tables=random.random() < 0.6,
        retention=random.random() < 0.5,
        wals=("file",) if embedded else tuple(random.sample(WALS, random.randint(1, 3))),
    )


@dataclass(slots=True)
class Outcome:
    seed: str
    plan: Plan
    violations: list[str] = field(default_factory=list)
    digest: str = ""
    virtual_s: float = 0.0
    steps: int = 0
    facts: dict[str, int] = field(default_factory=dict)


class Inline(Executor):
    """For pyiceberg's own thread pool: the loop knows no threads."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **options: Any) -> "Future[Any]":
        answer: Future[Any] = Future()
        try:
            answer.set_result(fn(*args, **options))
        except Exception as error:
            answer.set_exception(error)
        return answer


class Life:
    def __init__(self, loop: SimLoop, plan: Plan) -> None:
        self.loop = loop
        self.plan = plan
        self.random = loop.derived("life")
        faults = {"calm": (buckets.CALM, metadatas.CALM, catalogs.CALM), "mild": (buckets.MILD, metadatas.MILD, catalogs.MILD),
                  "wild": (buckets.WILD, metadatas.WILD, catalogs.WILD)}[plan.severity]  # fmt: skip
        net = SimNet(loop, NetFaults())
        self.bucket = SimBucket(loop, "bucket", faults[0])
        self.metadata = MetadataServer(loop, faults[1])
        self.catalog = CatalogServer(loop, faults[2])
        outside = Outside(loop, net, self.metadata, {"bucket": self.bucket}, self.catalog, MachineFaults())
        self.hosts = ["a"] if plan.embedded else ["a", "b", "c"]
        self.cluster = SimCluster(loop, net, outside, self.hosts)
        self.world = World(self.cluster.addresses, Ledger(SimClock(loop)), SimClock(loop), asyncio.Event())
        self.failures: list[str] = []
        self.actors: list[Process] = []
        self.killed = self.zombies = self.power_cuts = 0
        self._wal = plan.wals[0]
        self._host = "a"
        self._healed = asyncio.Event()

    # -- brokers -------------------------------------------------------------------------------------------------------

    def config(self, node: int, wal: str) -> Config:
        url = "file:///data/objects" if self.plan.embedded else "s3://bucket/lake"
        return Config.model_validate(
            {
                "server": {"node_id": node, "shutdown_timeout_s": 5},
                "storage": {
                    "data_dir": "/data", "url": url, "metadata_url": "postgresql://simulated", "wal": wal,
                    "wal_capacity_bytes": 1 << 20, "wal_segment_bytes": 65536, "wal_object_bytes": 65536,
                    "wal_unflushed_bytes": 1 << 20, "upload_bytes": 32768, "upload_interval_s": 3,
                    "retention_interval_s": 3, "gc_interval_s": 10, "gc_grace_s": 5,
                },
                "memory": {"total_bytes": 64 << 20, "log_cache_bytes": 1 << 20, "block_cache_bytes": 1 << 20},
            }
        )  # fmt: skip

    def start_broker(self, host: str, wal: str, node: int = 0) -> BrokerLife:
        self._host, self._wal = host, wal
        self.loop.event(f"start on {host} with {wal}")
        return self.cluster.start(host, self.config(node, wal))

    async def keep_a_broker(self) -> None:
        """What an operator's supervisor does: something must run."""
        while True:
            await asyncio.sleep(self.random.uniform(0.2, 2))
            alive = [life for life in self.cluster.lives if life.process.alive and not life.process.paused]
            if not alive:
                host, wal = self._next_place()
                self.start_broker(host, wal)

    def _next_place(self) -> tuple[str, str]:
        """A local file WAL binds the node to its host."""
        local = self._wal in ("file", "file:///data/wal")
        if local or self.random.random() < 0.5:
            wal = self.random.choice(self.plan.wals) if self.random.random() < 0.3 else self._wal
            return self._host, wal
        return self.random.choice(self.hosts), self.random.choice(self.plan.wals)

    @property
    def current(self) -> BrokerLife | None:
        alive = [life for life in self.cluster.lives if life.process.alive and not life.process.paused]
        return alive[-1] if alive else None

    # -- trouble -------------------------------------------------------------------------------------------------------

    async def trouble(self) -> None:
        until = self.loop.time() + self.plan.trouble_s
        kinds: list[Callable[[], Coroutine[Any, Any, None]]] = [
            self._kill, self._kill, self._kill, self._power_cut, self._clean_stop, self._kill_worker, self._pause_worker,
            self._metadata_outage, self._zombie, self._zombie,
        ]  # fmt: skip
        if not self.plan.embedded:
            kinds += [self._bucket_outage, self._partition]
        if self.plan.tables:
            kinds += [self._catalog_outage, self._expire_snapshots]
        while self.loop.time() < until:
            await asyncio.sleep(self.random.expovariate(1 / 5))
            await self.random.choice(kinds)()

    async def _kill(self) -> None:
        if self.current is not None:
            self.killed += 1
            self.current.process.kill_in(self.random.randint(1, 2000))

    async def _power_cut(self) -> None:
        if self.current is not None:
            self.power_cuts += 1
            host = self.current.host
            host.power_cut()
            await asyncio.sleep(self.random.uniform(0.1, 3))
            host.power_on()

    async def _clean_stop(self) -> None:
        if self.current is not None:
            self.current.shut_down()

    async def _zombie(self) -> None:
        """It stops in the middle of something and wakes much later; meanwhile another process is started in its place."""
        life = self.current
        if life is None:
            return
        self.zombies += 1
        life.process.pause()
        self.loop.in_world(self.random.choice((0.5, 5, 12, 30)) * self.random.uniform(0.5, 1.5), life.process.resume)
        if self.plan.embedded or self._wal == "file:///data/wal":
            return  # nobody else can serve its disk: it just sleeps
        host = self.random.choice(self.hosts)
        wal = self.random.choice([wal for wal in self.plan.wals if wal != "file:///data/wal"] or ["object"])
        self.start_broker(host, wal, self.random.choice((0, 0, life.node, 1)))

    async def _kill_worker(self) -> None:
        if self.current and self.current.worker:
            self.current.worker.process.kill_in(self.random.randint(1, 1000))

    async def _pause_worker(self) -> None:
        if self.current and self.current.worker:
            process = self.current.worker.process
            process.pause()
            self.loop.in_world(self.random.uniform(1, 30), process.resume)

    async def _metadata_outage(self) -> None:
        self.metadata.outage(self.random.uniform(0.5, 15))

    async def _bucket_outage(self) -> None:
        self.bucket.outage(self.random.uniform(0.5, 10))

    async def _catalog_outage(self) -> None:
        self.catalog.outage(self.random.uniform(0.5, 10))

    async def _partition(self) -> None:
        a, b = self.random.choice(self.hosts), "clients"
        self.cluster.net.partition(a, b)
        self.loop.in_world(self.random.uniform(0.5, 10), self.cluster.net.heal, a, b)

    async def _expire_snapshots(self) -> None:
        """Somebody else's maintenance: only the newest snapshot of each table is left, tagged ones excepted."""
        for identifier in self._table_identifiers():
            try:
                table = self.catalog.catalog.load_table(identifier)
                refs = {ref.snapshot_id for ref in table.metadata.refs.values()}
                for snapshot in list(table.metadata.snapshots):
                    if snapshot.snapshot_id not in refs:
                        table.maintenance.expire_snapshots().by_id(snapshot.snapshot_id).commit()
                        table = self.catalog.catalog.load_table(identifier)
            except Exception as error:  # it lost a race against our own commit
                self.loop.event(f"expiry failed: {type(error).__name__}")

    def _table_identifiers(self) -> list[tuple[str, ...]]:
        catalog = self.catalog.catalog
        return sorted(i for namespace in catalog.list_namespaces() for i in catalog.list_tables(namespace))

    # -- clients -------------------------------------------------------------------------------------------------------

    def act(self, name: str, actor: Coroutine[Any, Any, None]) -> None:
        process = Process(self.loop, name, "clients")
        self.actors.append(process)

        async def run() -> None:
            try:
                await actor
            except Exception as error:
                self.failures.append(f"{name}: {type(error).__name__}: {error}\n{_where(error)}")
            process.exit()

        process.start(run())

    async def begin_clients(self) -> None:
        plan, world, derived = self.plan, self.world, self.loop.derived
        admin = Admin(
            world, "admin", derived("admin"), lasting=["plain", "strict"], scratch=["scratch"], pace_s=6.0,
            retention_ms=(-1, 8_000, 60_000) if plan.retention else (),
            retention_bytes=(-1, 20_000) if plan.retention else (),
        )  # fmt: skip
        for name, partitions, configs in self._topics():
            while not await admin.create(name, partitions, configs):
                await asyncio.sleep(0.5)
                await admin.client.refresh([name])
                if name in admin.client.ids:  # it was created, and the answer lost
                    break
        self.act("admin", admin.run())
        self.act("plain-1", PlainProducer(world, "plain-1", derived("plain-1"), ["plain", "scratch"], pace_s=1.5).run())
        strict = IdempotentProducer(world, "strict-1", derived("strict-1"), ["strict", "plain"], pace_s=1.0)
        self.act("strict-1", strict.run())
        self.act("tailer-1", Tailer(world, "tailer-1", derived("tailer-1"), ["plain", "strict"], pace_s=1.0).run())
        for number in (1, 2):
            name = f"member-{number}"
            self.act(name, GroupMember(world, name, derived(name), "group", ["strict"], pace_s=1.5).run())
        if plan.tables:
            feeder = TableFeeder(world, "feeder", derived("feeder"), "rows", self._register, pace_s=1.0)
            self.act("feeder", feeder.run())
            registry = RegistryUser(world, derived("registry"), ["other"], self._register, self._lookup, pace_s=5)
            self.act("registry", registry.run())

    def _topics(self) -> list[tuple[str, int, dict[str, str]]]:
        text = TEXT_TABLE if self.plan.tables and self.random.random() < 0.5 else {}
        topics = [("plain", 2, {}), ("strict", 2, text), ("scratch", 1, {})]
        return topics + ([("rows", 2, TABLES)] if self.plan.tables else [])

    async def _register(self, subject: str, text: str) -> int:
        from streamlake.registry.schema_registry import NewSchema

        return await self.cluster.ask(lambda services: services.registry.register(subject, NewSchema(text)))

    async def _lookup(self, schema_id: int) -> str:
        return await self.cluster.ask(lambda services: services.registry.schema(schema_id))

    # -- the end -------------------------------------------------------------------------------------------------------

    def heal(self) -> None:
        self.bucket.heal()
        self.metadata.heal()
        self.catalog.heal()
        self.cluster.net.heal()
        for process in self.loop.processes:
            process.resume()

    async def finish(self) -> None:
        """Clients end, tables catch up. TimeoutError if that takes too long."""
        self.world.stop.set()
        for process in self.actors:
            await process.wait()
        while not self._tables_caught_up():
            await asyncio.sleep(0.5)

    def _tables_caught_up(self) -> bool:
        """What the worker says now covers the ends of the logs, by the broker that serves."""
        life = self.current
        if life is None or not life.serving:
            return False
        return all(table["lag"] == 0 for table in life.table_worker.describe())

    def _facts_of(self, name: str) -> TopicFacts | None:
        found = [facts for facts in self.world.ledger.topics.values() if facts.name == name and not facts.deleted]
        return found[-1] if found else None

    async def check(self) -> None:
        logs = await check_all(self.world, self.loop.derived("check"))
        assert logs
        for name in ("rows", "strict"):
            facts = self._facts_of(name)
            if facts is not None and self._has_table(name):
                check_table(self.world.ledger, facts, self._rows(name), self._dead(name))
        await self._check_store()

    def _has_table(self, name: str) -> bool:
        return ("default", name) in self._table_identifiers()

    def _rows(self, name: str) -> list[TableRow]:
        rows = self.catalog.catalog.load_table(("default", name)).scan().to_arrow().to_pylist()
        found = []
        for row in rows:
            kafka = row.pop("_kafka")
            found.append(TableRow(kafka["partition"], kafka["offset"], _bytes(kafka["key"]), row))
        return found

    def _dead(self, name: str) -> list[DeadLetter]:
        if not self._has_table(f"{name}__dlq"):
            return []
        rows = self.catalog.catalog.load_table(("default", f"{name}__dlq")).scan().to_arrow().to_pylist()
        return [DeadLetter(r["partition"], r["offset"], _bytes(r["key"]), r["value"]) for r in rows]

    async def _check_store(self) -> None:
        if self.plan.embedded:
            return
        rows = self.metadata.query("SELECT id, state FROM object")
        known = {f"lake/{object_key(i)}": state == "committed" for i, state in rows}
        prefix = "lake/" + object_key(1).partition("/")[0]
        now = self.loop.time()
        put = {e.key: e.time_s for e in self.bucket.history if e.operation == "put" and e.outcome == "done"}
        stored = {key: now - put[key] for key in self.bucket.objects if key.startswith(prefix)}
        check_objects(stored, known, young_s=QUIET_S)


def _bytes(key: bytes | str) -> bytes:
    """Keys are columns of text or of bytes, as the table's configs say."""
    return key.encode() if isinstance(key, str) else key


def _where(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)[-12:])


async def _live(life: Life) -> None:
    life.start_broker("a", life._wal)
    keeper = life.loop.create_task(life.keep_a_broker())
    begun = life.loop.create_task(life.begin_clients())
    troubled = life.loop.create_task(life.trouble())
    await troubled
    life.heal()
    try:
        async with asyncio.timeout(QUIET_S):
            await begun
            await life.finish()
    except TimeoutError:
        waiting = [process.name for process in life.actors if process.alive]
        life.failures.append(f"not finished {QUIET_S:g} s after all was healed: {waiting or 'the tables'} wait")
    if not life.failures and not life.cluster.violations:
        try:
            async with asyncio.timeout(QUIET_S):
                await life.check()
        except (AssertionError, StreamLakeError, TimeoutError) as error:
            life.failures.append(f"{type(error).__name__}: {error}\n{_where(error)}")
    keeper.cancel()


_prepared = False


def run_seed(seed: str, *, keep_trace: bool = False, plan: Plan | None = None) -> "tuple[Outcome, Trace]":
    """One whole life. Never raises for what the cluster did: the outcome tells."""
    global _prepared
    if not _prepared:
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
        prepare([handler.api for handler in HANDLERS])
        ExecutorFactory._instance, ExecutorFactory._instance_pid = Inline(), os.getpid()
        _prepared = True
    trace = Trace(keep=keep_trace)
    loop = SimLoop(seed, order="processes", trace=trace, steps_max=STEPS_MAX)
    drawn = plan or draw_plan(loop.derived("plan"))
    outcome = Outcome(seed, drawn)
    life: Life | None = None

    async def main() -> None:
        nonlocal life
        life = Life(loop, drawn)
        await _live(life)

    try:
        loop.run_until_complete(main())
    except Stuck as error:
        outcome.violations.append(f"{type(error).__name__}: {error}")
    except Exception as error:
        outcome.violations.append(f"the life could not be lived: {error!r}\n{_where(error)}")
    finally:
        if life is not None:
            outcome.violations += [f"{error}\n{_where(error.__cause__ or error)}" for error in life.cluster.violations]
            outcome.violations += life.failures + loop.failures
            ledger = life.world.ledger
            outcome.facts = {
                "acked": ledger.records_acked, "read": ledger.records_read, "lives": len(life.cluster.lives),
                "killed": life.killed, "zombies": life.zombies, "power cuts": life.power_cuts,
                "commits": sum(e.landed for e in life.catalog.history),
            }  # fmt: skip
        outcome.digest = trace.digest
        outcome.virtual_s, outcome.steps = loop.time(), loop.steps
        loop.close()
    return outcome, trace
