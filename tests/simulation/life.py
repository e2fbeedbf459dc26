"""One seed, one life: a cluster, its clients, what befalls them, and what must hold in the end.

The seed draws a plan (plan/plan.py). Then clients come, and trouble (actors/trouble.py): processes are killed at any await, paused
until they are zombies, restarted on another host or with another WAL; hosts lose their power; bucket, metadata store,
catalog and network fail; somebody else commits to our tables. Then all of it heals, clients finish, and everything that
was promised is compared with what is there.
"""

import asyncio
import os
import traceback
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace
from typing import Any

import structlog
from pyiceberg.utils.concurrent import ExecutorFactory
from simulation.actors.admin import Admin
from simulation.actors.client import World
from simulation.actors.consumers import Tailer
from simulation.actors.groups import GroupMember, GroupWatcher
from simulation.actors.producers import IdempotentProducer, PlainProducer
from simulation.actors.tables import AvroValues, RegistryUser, TableFeeder
from simulation.actors.transactions import TOPIC, Book, Transactor, WholeReader, check_transactions
from simulation.actors.trouble import Trouble
from simulation.actors.values import Drawn, Row, Undecided
from simulation.checks.ledger import Ledger, Place, TopicFacts
from simulation.checks.outcome import DeadLetter, FinalLog, TableRow, check_all, check_objects, check_table
from simulation.cluster import BrokerLife, SimCluster
from simulation.plan.plan import Plan, draw_plan
from simulation.supervisor import Supervisor
from simulation.world import bucket as buckets
from simulation.world import catalog as catalogs
from simulation.world import metadata as metadatas
from simulation.world.bucket import SimBucket
from simulation.world.catalog import CatalogServer
from simulation.world.loop import SimLoop, Stuck, Trace
from simulation.world.machine import MachineFaults, Outside
from simulation.world.metadata import MetadataServer
from simulation.world.net import NetFaults, SimNet
from simulation.world.process import Process, SimClock

from streamlake.broker import controller
from streamlake.core.errors import Corrupt, StreamLakeError
from streamlake.handlers.apis import HANDLERS
from streamlake.protocol.requests import prepare
from streamlake.registry.schema_registry import NewSchema
from streamlake.s3stream.compaction import plan as compaction
from streamlake.s3stream.objects.format import object_key
from streamlake.table.commit.progress import find

QUIET_S = 600.0  # the longest that a healed cluster may take to finish what it owes
NOTICED_S = 15.0  # within that time every broker notices that the metadata store went back
RENEWED_S = 20.0  # within that time every broker has tried to renew its lease
FAN_IN = (2, 2, 2)  # a life has few uploads, and they are to be compacted all the same
PART_BYTES = 4096  # the WALs of a life are small, and are to be drained in parts all the same
STEPS_MAX = 6_000_000
AVRO_TABLE = {
    "streamlake.table.enable": "true",
    "streamlake.table.convert.value.type": "by_schema_id",
    "streamlake.table.transform.value.type": "flatten",
    "streamlake.table.commit.interval.ms": "2000",
}
TEXT_TABLE = {
    "streamlake.table.enable": "true",
    "streamlake.table.convert.value.type": "string",
    "streamlake.table.commit.interval.ms": "1500",
}
TIGHT_RETENTION = {"retention.ms": "1000"}  # only the hold of its table keeps records that are uploaded
UNDRAINED = """
SELECT w.node, w.uri, w.epoch FROM wal w LEFT JOIN broker b ON b.node = w.node AND b.epoch = w.epoch WHERE b.node IS NULL
"""
HOLDS = "SELECT h.partition, h.hold_offset FROM table_progress h JOIN topic t ON t.id = h.topic_id WHERE t.name = ?"
FAULTS = {
    "calm": (buckets.CALM, metadatas.CALM, catalogs.CALM),
    "mild": (buckets.MILD, metadatas.MILD, catalogs.MILD),
    "wild": (buckets.WILD, metadatas.WILD, catalogs.WILD),
}


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


class FadingValues(AvroValues):
    """What workers make of later schemas depends on when they look: see Trouble.fade_schema."""

    def draw(self, key: bytes) -> Drawn:
        drawn = super().draw(key)
        fading = isinstance(drawn.meaning, Row) and drawn.value is not None and drawn.value[:5] != self.lasting
        return drawn._replace(meaning=Undecided(drawn.meaning.columns)) if fading else drawn  # type: ignore[union-attr]

    @property
    def lasting(self) -> bytes:
        return b"\0" + self.ids[0].to_bytes(4, "big")


class Life:
    def __init__(self, loop: SimLoop, plan: Plan) -> None:
        self.loop = loop
        self.plan = plan
        self.random = loop.derived("life")
        faults = FAULTS[plan.severity]
        net = SimNet(loop, NetFaults())
        self.bucket = SimBucket(loop, "bucket", faults[0])
        self.metadata = MetadataServer(loop, faults[1])
        self.catalog = CatalogServer(loop, faults[2])
        self.outside = Outside(
            loop, net, self.metadata, {"bucket": self.bucket}, self.catalog, MachineFaults(clock_rates=plan.clock_rates)
        )
        self.hosts = ["a"] if plan.embedded else list("abcdefg"[: max(3, plan.brokers + 1)])
        self.cluster = SimCluster(loop, net, self.outside, self.hosts)
        self.supervisor = Supervisor(loop, plan, self.cluster, self.random)
        clock = SimClock(loop)
        self.world = World(self.cluster.addresses, Ledger(clock), clock, asyncio.Event(), plan.request_timeout_s)
        self.values = FadingValues(loop.derived("values"), "rows-value", evolve_share=0.05, bad_share=0.1)
        self.trouble = Trouble(self)
        self.failures: list[str] = []
        self.actors: list[Process] = []
        self.tables: list[str] = []  # topics that must be in tables
        self.book = Book()
        self.follower: WholeReader | None = None
        self.begun_at: dict[str, dict[int, int]] = {}  # of those that were not from the beginning: by partition

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
        plan, world, derived, pace_s = self.plan, self.world, self.loop.derived, self.plan.pace
        retention_ms, retention_bytes = ((-1, 8_000, 60_000), (-1, 20_000)) if plan.retention else ((), ())
        admins = [
            Admin(
                world, name, derived(name), lasting=["plain", "strict"], scratch=["scratch"], pace_s=3 * pace_s,
                retention_ms=retention_ms, retention_bytes=retention_bytes,
            )
            for name in ("admin-1", "admin-2")
        ]  # fmt: skip
        for name, partitions, configs in self._topics():
            while not await admins[0].create(name, partitions, configs):
                await asyncio.sleep(0.5)
                await admins[0].client.refresh([name])
                if name in admins[0].client.ids:  # it was created, and the answer lost
                    break
        for admin in admins:
            self.act(admin.client.name, admin.run())
        plain = PlainProducer(world, "plain-1", derived("plain-1"), ["plain", "scratch"], pace_s=1.5 * pace_s)
        self.act("plain-1", plain.run())
        for name in ("strict-1", "strict-2"):
            strict = IdempotentProducer(world, name, derived(name), ["strict", "plain"], records_max=5, pace_s=pace_s)
            self.act(name, strict.run())
        self.act("tailer-1", Tailer(world, "tailer-1", derived("tailer-1"), ["plain", "strict"], pace_s=pace_s).run())
        if plan.groups:
            for name in ("member-1", "member-2"):
                member = GroupMember(world, name, derived(name), "group", ["strict"], pace_s=pace_s)
                self.act(name, member.run())
            watcher = GroupWatcher(world, "watcher", derived("watcher"), "group", ["strict"], pace_s=pace_s)
            self.act("watcher", watcher.run())
        if plan.transactions:
            await self._begin_transactions()
        if plan.tables:
            self.act("feeder", self._feed())
            registry = RegistryUser(world, derived("registry"), ["other"], self._register, self._lookup, pace_s=5)
            self.act("registry", registry.run())

    async def _begin_transactions(self) -> None:
        """In a topic of their own, about which the others know nothing."""
        world = replace(self.world, ledger=Ledger(self.world.clock))
        admin = Admin(world, "admin-3", self.loop.derived("admin-3"), lasting=[TOPIC], scratch=[], pace_s=1)
        while not await admin.create(TOPIC, 3) and TOPIC not in admin.client.ids:
            await asyncio.sleep(0.5)
            await admin.client.refresh([TOPIC])
        await admin.client.drop()
        for name in ("transactor-1", "transactor-2"):
            transactor = Transactor(world, name, self.loop.derived(name), self.book, pace_s=self.plan.pace)
            self.act(name, transactor.run())
        self.follower = WholeReader(world, "follower", self.loop.derived("follower"), pace_s=self.plan.pace)
        self.act("follower", self.follower.run())

    def _topics(self) -> list[tuple[str, int, dict[str, str]]]:
        rows = AVRO_TABLE | (TIGHT_RETENTION if self.plan.retention else {})
        text = TEXT_TABLE if self.plan.tables and self.random.random() < 0.5 else {}
        text = {} if "late_table" in self.plan.strikes else text
        self.tables = (["rows"] if self.plan.tables else []) + (["strict"] if text else [])
        topics = [("plain", 2, {}), ("strict", 2, text), ("scratch", 1, {})]
        return topics + ([("rows", 2, rows)] if self.plan.tables else [])

    async def _feed(self) -> None:
        await self.values.register_all(self.world, self._register)
        feeder = TableFeeder(
            self.world, "feeder", self.loop.derived("feeder"), ["rows"], self.values, records_max=5,
            pace_s=self.plan.pace,
        )  # fmt: skip
        await feeder.run()

    async def shorten_retention(self, broker: BrokerLife, topic: str) -> None:
        """By this broker. StreamLakeError: perhaps."""
        self.world.ledger.retains(topic, int(TIGHT_RETENTION["retention.ms"]))
        await broker.ask(lambda services: services.topics.alter_configs(topic, TIGHT_RETENTION))

    async def begin_table(self, broker: BrokerLife, topic: str) -> None:
        """By this broker: from now on the topic is a table. StreamLakeError: perhaps."""
        await broker.ask(lambda services: services.topics.alter_configs(topic, TEXT_TABLE))
        rows = self.metadata.query(HOLDS, topic)
        self.begun_at[topic] = {partition: hold for partition, hold in rows if hold is not None}
        self.tables.append(topic)

    async def _register(self, subject: str, text: str) -> int:
        return await self.cluster.ask(lambda services: services.registry.register(subject, NewSchema(text)))

    async def _lookup(self, schema_id: int) -> str:
        return (await self.cluster.ask(lambda services: services.registry.schema(schema_id))).text

    # -- the end -------------------------------------------------------------------------------------------------------

    async def lose_commits(self) -> None:
        """The metadata store goes back behind beats that it had acknowledged. Whoever beat then must stop, and say that
        the store is damaged: nothing may be built on what is left."""
        self.metadata.copy_to_standby()
        before = {life: life.beat for life in self.supervisor.running}
        await asyncio.sleep(self.random.uniform(1, 4))
        deceived = [life for life, beat in before.items() if life.serving and life.beat > beat]
        for process in self.actors:
            process.kill()  # what they would see now is no promise
        self.supervisor.end()
        self.cluster.may_find_damage = True
        self.metadata.lose_commits(self.random.uniform(0, 4))
        await asyncio.sleep(NOTICED_S)
        for life in deceived:
            if life.process.alive or not isinstance(life.error, Corrupt):
                state = "runs on" if life.process.alive else f"ended by {life.error!r}"
                self.failures.append(f"{life.process.name} {state}, though the metadata store lost its last beat")

    def heal(self) -> None:
        self.bucket.heal()
        self.metadata.heal()
        self.catalog.heal()
        self.cluster.net.heal()
        self.cluster.hidden_schemas.clear()
        self.outside.faults = MachineFaults()
        for host in self.hosts:
            self.cluster.hosts[host].power_on()
        for process in self.loop.processes:
            process.resume()

    async def finish(self) -> None:
        """Clients end, tables catch up. TimeoutError if that takes too long."""
        self.world.stop.set()
        for process in self.actors:
            await process.wait()
        while not (self._tables_caught_up() and not self.undrained()):
            await asyncio.sleep(0.5)
        # A zombie that was woken at the end answers reads from what it knew, until it tries to renew its lease.
        until = self.loop.time() + RENEWED_S
        many = self.supervisor.together
        while sum(life.process.alive for life in self.cluster.lives) > many and self.loop.time() < until:
            await asyncio.sleep(0.5)

    def _tables_caught_up(self) -> bool:
        """What the worker says now covers the ends of the logs, by the broker that serves."""
        serving, together = self.cluster.serving, self.supervisor.together
        if len(serving) < together or together > 1:
            return len(serving) >= together  # then the tables themselves are asked
        return all(table["lag"] == 0 for table in serving[-1].table_worker.describe())

    def undrained(self) -> list[Any]:
        """WALs of lives that are over: node, place, broker epoch."""
        return self.metadata.query(UNDRAINED)

    def unfinished(self) -> str:
        """Who has not come to an end, and why, as far as it says."""
        waiting = [process.name for process in self.actors if process.alive]
        serving = self.cluster.serving
        if len(serving) < self.supervisor.together:
            return f"{waiting}, and {len(serving)} brokers serve"
        if undrained := self.undrained():
            return f"{waiting}, and WALs of lives that are over are listed: {undrained}"
        tables = [(t["table"], t["state"], t["message"]) for t in serving[-1].table_worker.describe() if t["lag"]]
        return f"{waiting}, and of tables {tables}"

    async def check(self) -> None:
        if self.follower is not None:
            world = replace(self.world, ledger=Ledger(self.world.clock))
            await check_transactions(world, self.book, self.follower, self.loop.derived("last-reader"))
        logs = await check_all(self.world, self.loop.derived("check"))
        assert logs
        while self.supervisor.together > 1 and not all(self._table_holds(name, logs) for name in self.tables):
            await asyncio.sleep(0.5)
        for name in self.tables:
            begun_at = self.begun_at.get(name, {})
            check_table(self.world.ledger, self._facts_of(name), self._rows(name), self._dead(name), begun_at)
        self.cluster.check_images()
        await self._check_store()

    def _table_holds(self, name: str, logs: Mapping[Place, FinalLog]) -> bool:
        """By its own word, all of the topic: whichever brokers lead it, and whichever of them has the worker."""
        ends = {place.partition: log.end for place, log in logs.items() if place.topic_id == self._facts_of(name).id}
        progress = None
        if ("default", name) in self.table_identifiers():
            progress = find(self.catalog.catalog.load_table(("default", name)).metadata)
        return all(end <= (progress.position(partition) if progress else 0) for partition, end in ends.items())

    def _facts_of(self, name: str) -> TopicFacts:
        return [facts for facts in self.world.ledger.topics.values() if facts.name == name and not facts.deleted][-1]

    def table_identifiers(self) -> list[tuple[str, ...]]:
        catalog = self.catalog.catalog
        return sorted(i for namespace in catalog.list_namespaces() for i in catalog.list_tables(namespace))

    def _content(self, name: str) -> list[dict[str, Any]]:
        if ("default", name) not in self.table_identifiers():
            return []
        rows: list[dict[str, Any]] = self.catalog.catalog.load_table(("default", name)).scan().to_arrow().to_pylist()
        return rows

    def _rows(self, name: str) -> list[TableRow]:
        found = []
        for row in self._content(name):
            kafka = row.pop("_kafka")
            found.append(TableRow(kafka["partition"], kafka["offset"], _bytes(kafka["key"]), row))
        return found

    def _dead(self, name: str) -> list[DeadLetter]:
        rows = self._content(f"{name}__dlq")
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

    def facts(self) -> dict[str, int]:
        """What happened, to be counted over many lives."""
        ledger = self.world.ledger
        return {
            "acked": ledger.records_acked,
            "read": ledger.records_read,
            "lives": len(self.cluster.lives),
            "transactions": self.book.committed,
            "commits": sum(commit.landed for commit in self.catalog.history),
            **self.trouble.happened,
        }


def _bytes(key: bytes | str) -> bytes:
    """Keys are columns of text or of bytes, as the table's configs say."""
    return key.encode() if isinstance(key, str) else key


def _where(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)[-12:])


async def _live(life: Life) -> None:
    life.supervisor.begin()
    begun = life.loop.create_task(life.begin_clients())
    await life.trouble.run()
    life.heal()
    if life.plan.loses_commits:
        await life.lose_commits()
        return
    try:
        async with asyncio.timeout(QUIET_S):
            await begun
            await life.finish()
    except TimeoutError:
        life.failures.append(f"not finished {QUIET_S:g} s after all was healed: {life.unfinished()}")
    if not life.failures and not life.cluster.violations:
        try:
            async with asyncio.timeout(QUIET_S):
                await life.check()
        except (AssertionError, StreamLakeError, TimeoutError) as error:
            life.failures.append(f"{type(error).__name__}: {error}\n{_where(error)}")
    life.supervisor.end()


_prepared = False


def _prepare() -> None:
    """Once per Python process."""
    global _prepared
    if not _prepared:
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
        prepare([handler.api for handler in HANDLERS])
        controller.PART_BYTES = PART_BYTES
        compaction.FAN_IN = FAN_IN
        ExecutorFactory._instance, ExecutorFactory._instance_pid = Inline(), os.getpid()
        _prepared = True


def run_seed(seed: str, *, keep_trace: bool = False, plan: Plan | None = None) -> "tuple[Outcome, Trace]":
    """One whole life. Never raises for what the cluster did: the outcome tells."""
    _prepare()
    trace = Trace(keep=keep_trace)
    loop = SimLoop(seed, order="processes", trace=trace, steps_max=STEPS_MAX)
    drawn = plan or draw_plan(seed)
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
            outcome.facts = life.facts()
        outcome.digest = trace.digest
        outcome.virtual_s, outcome.steps = loop.time(), loop.steps
        loop.close()
    return outcome, trace
