"""A simulated cluster: brokers and their table workers as processes on hosts, around one bucket, metadata and catalog.

What runs in a broker process is the product, streamlake/broker/broker.py, without HTTP and signals. What runs in a worker
process is streamlake/worker/process.py's `serve`. Both know nothing of this.

A broker that ends for a reason that cannot be right (Corrupt; Fenced while nobody took its node over; an exception
that is none of ours) is a violation, whatever clients saw.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from simulation.actors.client import Address
from simulation.checks.history import Violation
from simulation.world.disk import SimDisk
from simulation.world.loop import SimLoop
from simulation.world.machine import Outside, SimHost, SimMachine
from simulation.world.metadata import Assignment, DrainEnd, Fence
from simulation.world.net import SimNet
from simulation.world.process import Process

from streamlake.broker.broker import Broker
from streamlake.broker.controller import SUSPECT_S
from streamlake.broker.services import Services, undo_all
from streamlake.broker.table_worker import TableWorker
from streamlake.catalogs.config import CatalogConfig
from streamlake.cluster.store.membership import LEASE_S, Membership
from streamlake.config import Config
from streamlake.core.errors import Corrupt, Fenced, NotFound, StreamLakeError, Unavailable
from streamlake.core.tasks import Executor
from streamlake.s3stream.wal.object.wal import ObjectWal
from streamlake.table.formats.port import LatestSchema, WriterSchema
from streamlake.table.task.control import LINE_BYTES_MAX, WorkerSettings
from streamlake.worker import process as worker

T = TypeVar("T")
FIRST_PORT = 9092
ASK_TIMEOUT_S = 30.0
ANSWERED_S = 1.0  # within that time most answers of the metadata store have come
WORKER_BYTES = 16 << 20
SHARED = "/shared"
SIM_CATALOG = CatalogConfig("sql", "lake", {"uri": "sim"})


class Schemas:
    """Implements SchemaSource: the registry's rows, read where they are, without those that are hidden now."""

    def __init__(self, outside: Outside, hidden: set[int]) -> None:
        self._outside = outside
        self._hidden = hidden

    def get(self, schema_id: int) -> WriterSchema:
        if self._outside.metadata.fate() != "done":
            raise Unavailable("the schema registry does not answer (simulated)")
        rows = self._outside.metadata.query("SELECT text FROM schema WHERE id = ?", schema_id)
        if not rows or schema_id in self._hidden:
            raise NotFound(f"the schema registry has no schema with id {schema_id}")
        return WriterSchema("AVRO", rows[0][0])

    def latest(self, subject: str) -> LatestSchema:
        raise NotImplementedError("no simulated table reads by the latest schema")


class SimWorkerMachine:
    """Implements WorkerMachine."""

    def __init__(self, machine: SimMachine, schemas: Schemas) -> None:
        self.clock = machine.clock
        self.ids = machine.ids
        self._machine = machine
        self._schemas = schemas

    def executor(self, catalog: str) -> Executor:
        return self._machine.executor("table", worker.THREADS)

    def request_executor(self, catalog: str) -> Executor:
        return self._machine.executor("catalog-requests", worker.REQUEST_THREADS)

    def load_catalog(self, config: CatalogConfig) -> Any:
        return self._machine.load_catalog(config)

    def schemas(self, settings: WorkerSettings) -> Schemas:
        return self._schemas


class SimWorkerProcess:
    """Implements WorkerProcess: what the broker holds of a worker that it started."""

    def __init__(self, cluster: "SimCluster", host: SimHost, parent: Process) -> None:
        self.process, machine = host.process("worker")
        self.pid = len(cluster.loop.processes)
        ends = cluster.net.stream_pair(parent, self.process, LINE_BYTES_MAX)
        self.reader, self.writer = ends[0]
        self._stop = asyncio.Event()
        schemas = Schemas(cluster.outside, cluster.hidden_schemas)
        self.process.start(self._run(SimWorkerMachine(machine, schemas), *ends[1]))

    async def _run(self, machine: SimWorkerMachine, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.process.exit(await worker.serve(reader, writer, machine, self._stop))

    @property
    def returncode(self) -> int | None:
        return self.process.returncode

    def terminate(self) -> None:
        self.process.call_soon(self._stop.set)

    def kill(self) -> None:
        self.process.kill()

    async def wait(self) -> int:
        return await self.process.wait()


class MountedDisk:
    """Implements Disk: a host's own disk, and under `/shared` one that all hosts mount.

    As on many network file systems, locks there do not reach beyond a machine: what keeps zombies out must not need them."""

    def __init__(self, own: SimDisk, shared: SimDisk) -> None:
        self._own = own
        self._shared = shared

    def _at(self, path: str) -> SimDisk:
        return self._shared if path.startswith(SHARED) else self._own

    def open(self, path: str, *, create: bool = False) -> Any:
        file = self._at(path).open(path, create=create)
        return file if self._at(path) is self._own else _WithoutLock(file)

    def read_cached(self, path: str, size: int, offset: int) -> None:
        self._at(path).read_cached(path, size, offset)

    def makedirs(self, path: str) -> None:
        self._at(path).makedirs(path)

    def rename(self, source: str, target: str) -> None:
        self._at(source).rename(source, target)

    def link(self, source: str, target: str) -> None:
        self._at(source).link(source, target)

    def unlink(self, path: str) -> None:
        self._at(path).unlink(path)

    def sync_dir(self, path: str) -> None:
        self._at(path).sync_dir(path)

    def listdir(self, path: str) -> list[str]:
        return self._at(path).listdir(path)

    def is_dir(self, path: str) -> bool:
        return self._at(path).is_dir(path)

    def size(self, path: str) -> int:
        return self._at(path).size(path)


class _WithoutLock:
    def __init__(self, file: Any) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def lock(self) -> bool:
        return True


class BrokerLife:
    """One process of a broker, from its start to its end."""

    def __init__(self, cluster: "SimCluster", host: SimHost, config: Config) -> None:
        self.cluster = cluster
        self.host = host
        self.node = config.server.node_id
        self.config = config
        self.process, self.machine = host.process(f"broker{self.node}")
        shared = cluster.shared.session()
        self.machine.disk = MountedDisk(self.machine.disk, shared)  # type: ignore[assignment]
        self.process.at_end.append(lambda: shared.kill() and None)
        self.address: Address = (host.name, FIRST_PORT + len(cluster.lives))
        self.ready = False
        self.error: BaseException | None = None  # why it ended by itself
        self.services: Services
        self.table_worker: TableWorker
        self.worker: SimWorkerProcess | None = None
        self._stop = asyncio.Event()
        self.process.start(self._run(), "broker")

    @property
    def serving(self) -> bool:
        return self.ready and self.process.alive and not self.process.paused

    @property
    def appended_position(self) -> int:
        """Of the newest record that the WAL was given; 0 before there is one."""
        return self.services.streams.appender.last_position if self.ready else 0

    @property
    def durable_position(self) -> int:
        """Of the newest record that may be acknowledged; 0 before there is one."""
        return self.services.streams.appender.durable_position if self.ready else 0

    @property
    def wal_has_gap(self) -> bool:
        """Something has landed in a bucket, and what comes before it has not."""
        wal = self.services.wal if self.ready else None
        return isinstance(wal, ObjectWal) and any(batch.landed for batch in wal._unacked)

    @property
    def writes_wait(self) -> bool:
        """For the metadata store, which is busy with others."""
        return self.ready and len(self.services.coordination._writes) > 0

    @property
    def epoch(self) -> int | None:
        """Of the broker; None before it is registered."""
        membership = self._membership
        return membership._identity.epoch if membership and membership._identity else None

    @property
    def beat(self) -> int:
        """The last one that was acknowledged."""
        return self._membership._beat if self._membership else 0

    @property
    def owns_streams(self) -> bool:
        """Whether it alone, or whoever drains its WAL, may have records of streams that are in no object."""
        query = "SELECT 1 FROM stream WHERE owner = ? AND owner_epoch = ? LIMIT 1"
        return bool(self.cluster.outside.metadata.query(query, self.node, self.epoch))

    @property
    def _membership(self) -> Membership | None:
        return getattr(getattr(self, "services", None), "membership", None)

    def judges(self, node: int) -> bool:
        """It is looking, and when it still sees the same beat it fences the node."""
        membership = self._membership
        if membership is None or membership._beats._drain is None:
            return False
        seen = membership.watch._watched.get(node)
        return seen is not None and self.process.clock.boottime() - seen.since >= membership.watch._still_s

    def lose_beats(self, length_s: float) -> None:
        """Its connection for beats is down for a while: it shows no life, and is not told that it was fenced."""
        if self._membership is not None:
            self._membership._beats.lose(length_s)  # type: ignore[attr-defined]

    def shut_down(self) -> None:
        """Ctrl-C."""
        self.process.call_soon(self._stop.set)

    async def ask(self, question: Callable[[Services], Awaitable[T]]) -> T:
        """Run it in the broker; from outside, as a client of an HTTP API would. Unavailable if no answer comes."""
        loop = self.cluster.loop
        answer: asyncio.Future[T] = loop.create_future()

        async def run() -> None:
            try:
                value = await question(self.services)
            except StreamLakeError as error:
                loop.in_world(0.001, _settle, answer, None, error)
            else:
                loop.in_world(0.001, _settle, answer, value, None)

        if not self.serving:
            raise Unavailable("this broker does not serve")
        self.process.start(run())
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                return await answer
        except TimeoutError:
            raise Unavailable("the broker does not answer") from None

    # -- in the process ------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        self._failed: asyncio.Future[BaseException] = loop.create_future()
        kafka_socket = self.cluster.net.bind(*self.address)
        self._broker = Broker(self.config, self.machine, kafka_socket, self._fatal)  # type: ignore[arg-type]
        self.services = self._broker.services
        self._undo: list[Any] = [("kafka port", kafka_socket.close)]
        stopping = loop.create_task(self._stop.wait())
        starting = loop.create_task(self._start())
        await asyncio.wait([starting, stopping, self._failed], return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
        try:
            await starting
        except asyncio.CancelledError:
            pass  # it was stopped, or fenced, before it served
        except StreamLakeError as error:
            self._ended_by(error)
        except Exception as error:
            self.cluster.violation(f"{self.process.name} could not start: {error!r}", error)
        else:
            self.ready = True
            await asyncio.wait([stopping, self._failed], return_when=asyncio.FIRST_COMPLETED)
            self.ready = False
        await undo_all(self._undo)
        self.process.exit(1 if self.error else 0)

    async def _start(self) -> None:
        await self._broker.recover(*self.address, self._undo)
        self.table_worker = self._broker.table_worker(self._worker_settings(), self._launch)
        await self._broker.serve(self.table_worker, self._undo)

    def _worker_settings(self) -> WorkerSettings:
        host, port = self.address
        identity = self.services.identity
        return WorkerSettings(
            host,
            port,
            identity.node,
            "sim",
            identity.cluster_id,
            WORKER_BYTES,
            1 << 20,
            "info",
            False,
            {"sql": SIM_CATALOG},
            "sql",
        )

    async def _launch(self) -> SimWorkerProcess:
        self.worker = SimWorkerProcess(self.cluster, self.host, self.process)
        return self.worker  # which must notice by itself when its parent is gone

    def _fatal(self, error: BaseException) -> None:
        if not self._failed.done():
            self._ended_by(error)
            self._failed.set_result(error)

    def _ended_by(self, error: BaseException) -> None:
        self.error = error
        name = self.process.name
        self.cluster.loop.event(f"ended by {type(error).__name__}: {error}")
        if isinstance(error, Corrupt) and not self.cluster.may_find_damage:
            self.cluster.violation(f"{name} found its data damaged: {error}", error)
        if isinstance(error, Fenced) and not self.was_fenced and not self.cluster.may_find_damage:
            self.cluster.violation(f"{name} says that it was fenced, by nobody: {error}", error)
        if not isinstance(error, StreamLakeError | OSError):
            self.cluster.violation(f"{name} ended by {error!r}", error)

    @property
    def was_fenced(self) -> bool:
        """Its own node was, or was registered anew. Whatever happens to other nodes is no reason to end."""
        rows = self.cluster.outside.metadata.query("SELECT epoch FROM broker WHERE node = ?", self.node)
        return bool(rows) and self.epoch is not None and rows[0][0] > self.epoch


class SimCluster:
    """Hosts, what they share, and every life that a broker had on them."""

    def __init__(self, loop: SimLoop, net: SimNet, outside: Outside, hosts: list[str]) -> None:
        self.loop = loop
        self.net = net
        self.outside = outside
        self.hosts = {name: SimHost(name, outside) for name in hosts}
        self.shared = SimDisk()  # a storage box of its own: no host's power cut reaches it
        self.lives: list[BrokerLife] = []
        self.violations: list[Violation] = []
        self.may_find_damage = False  # the metadata store has lost commits: not even a registration is sure to be there
        outside.metadata.on_fence = self._check_fence
        outside.metadata.on_assign = self._check_assignment
        outside.metadata.on_drained = self._check_drain
        self.hidden_schemas: set[int] = set()  # ids that workers' registries do not know at present

    def start(self, host: str, config: Config) -> BrokerLife:
        life = BrokerLife(self, self.hosts[host], config)
        self.lives.append(life)
        return life

    @property
    def serving(self) -> list[BrokerLife]:
        return [life for life in self.lives if life.serving]

    def addresses(self) -> list[Address]:
        """What clients are told to begin with: the last few brokers, dead ones among them, and all that live."""
        return [life.address for life in self.lives if life.process.alive or life in self.lives[-3:]]

    async def ask(self, question: Callable[[Services], Awaitable[T]]) -> T:
        """The broker that serves, whichever it is."""
        if not self.serving:
            raise Unavailable("no broker serves")
        return await self.serving[-1].ask(question)

    def _check_fence(self, fence: Fence) -> None:
        """Whoever fences another node, or a process that writes to a shared disk, has watched it without a gap until
        this very moment: for a whole lease, or behind an object WAL for as long as makes it a suspect. (What else proves
        that a process of its own node is dead, see streamlake/broker/registration.py, has nothing to do with time.)"""
        found = [life for life in self.lives if (life.node, life.epoch) == (fence.node, fence.epoch)]
        life = found[0] if found else None
        wal = str(life.config.storage.wal) if life else ""
        if not fence.ran or not (fence.by_another_node or (life and life.ready and SHARED in wal)):
            return
        still_s = SUSPECT_S if wal == "object" else LEASE_S
        if fence.since_outage_s < still_s:
            self.violation(f"node {fence.node} was judged {fence.since_outage_s:.3f} s after an outage")
        if life is not None:
            # A beat that came before the fence may be answered after it, and renew the lease.
            self.loop.in_world(ANSWERED_S, self._check_lease, life, life.process.clock.boottime() + LEASE_S - still_s)

    def _check_assignment(self, assignment: Assignment) -> None:
        controller = (assignment.controller_node, assignment.controller_epoch)
        for life in self.lives:
            if life.process is assignment.by and (life.node, life.epoch) != controller:
                self.violation(
                    f"{life.process.name} assigns partitions or drains, though its term as controller is over"
                )

    def _check_drain(self, end: DrainEnd) -> None:
        for life in self.lives:
            if life.process is end.by and (life.node, life.epoch) != (end.given_node, end.given_epoch):
                self.violation(f"{life.process.name} ends a drain that was given to another broker")

    def check_images(self) -> None:
        """An image that has all changes up to the revision of the metadata store has its topics, and no others."""
        query = self.outside.metadata.query
        ((revision,),) = query("SELECT revision FROM cluster") or [(None,)]
        rows = query('SELECT t.name, t.id, p."index", p.node FROM topic t JOIN partition p ON p.topic_id = t.id')
        for life in self.serving:
            topics = life.services.topics
            found = [(t.name, t.id.hex, p.index, p.node) for t in topics.all() for p in t.partitions]
            if topics.revision == revision and sorted(found) != sorted(rows):
                self.violation(f"{life.process.name} has revision {revision} and other topics: {found}, not {rows}")

    def _check_lease(self, life: BrokerLife, until: float) -> None:
        if life.services.membership._lease.deadline > until:
            self.violation(f"{life.process.name} was fenced while it held its lease")

    def violation(self, text: str, cause: BaseException | None = None) -> None:
        found = Violation(text)
        found.__cause__ = cause
        self.violations.append(found)


def _settle(answer: "asyncio.Future[Any]", value: Any, error: BaseException | None) -> None:
    if answer.done():
        return
    if error is None:
        answer.set_result(value)
    else:
        answer.set_exception(error)
