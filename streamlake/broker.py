"""The server's composition root: knows every class, and in which order they start and stop.

Start: lock the data directory, bind the ports (so that a mistake is clear before anything is recovered), metadata,
registration (which fences whoever was this node before), storage recovery, partitions, coordinator, then listen, then
the table worker. Stop is the reverse: the worker ends its commit, clients are answered, then the rest. A failure that
cannot be survived (a lost disk, being fenced) ends the process: what is durable is recovered at the next start, and
nothing else may be trusted.
"""

import asyncio
import gc
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
import uvloop

from streamlake.catalogs import config as catalog_config
from streamlake.cluster.configs import BrokerConfigs
from streamlake.cluster.database import Database
from streamlake.cluster.groups_store import GroupStore
from streamlake.cluster.membership import BrokerIdentity, Membership
from streamlake.cluster.producer_ids import ProducerIdBlocks
from streamlake.cluster.schemas_store import SchemaStore
from streamlake.cluster.stream_metadata import SqlStreamMetadata
from streamlake.cluster.table_progress import TableProgress
from streamlake.cluster.topics import Topics
from streamlake.config import Config
from streamlake.coordinator.groups import Groups
from streamlake.coordinator.offsets import Offsets
from streamlake.coordinator.producer_ids import ProducerIds
from streamlake.coordinator.settings import GroupSettings
from streamlake.core.budget import Budget
from streamlake.core.clock import Clock, SystemClock
from streamlake.core.disk import Disk, DiskFile, RealDisk
from streamlake.core.errors import Corrupt, StreamLakeError, Unavailable
from streamlake.core.ids import Ids
from streamlake.core.tasks import Supervisor, ThreadExecutor
from streamlake.handlers.apis import HANDLERS
from streamlake.handlers.context import Context, Node
from streamlake.handlers.fetch_session import FetchSessions
from streamlake.log.manager import LogManager
from streamlake.protocol.requests import prepare
from streamlake.registry.api import routes
from streamlake.registry.schema_registry import SchemaRegistry
from streamlake.s3stream.file_wal import FileWal, FileWalSettings
from streamlake.s3stream.flusher import Flusher
from streamlake.s3stream.local_store import LocalStore
from streamlake.s3stream.settings import StreamsSettings
from streamlake.s3stream.streams import Streams
from streamlake.server.broker_metrics import Sources, export
from streamlake.server.http import HttpServer, bind
from streamlake.server.listener import Listener
from streamlake.server.partitions import Partitions
from streamlake.server.table_worker import TableWorker
from streamlake.table.control import WorkerSettings
from streamlake.telemetry import log as logs
from streamlake.telemetry.loop_lag import LoopLag
from streamlake.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from streamlake.s3stream.s3_store import S3Store

log = structlog.get_logger(__name__)

READY_FILE = "server.json"
SWITCH_INTERVAL_S = 0.0002  # the default of 5 ms lets a busy loop starve the thread that syncs the WAL (docs/adr/0007)
GC_GENERATION_2 = 100  # full collections of a large heap take long: make them rare


class Broker:
    def __init__(self, config: Config, clock: Clock, ids: Ids, disk: Disk) -> None:
        self.config = config
        self.failed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self._clock = clock
        self._ids = ids
        self._disk = disk
        self._data_dir = config.storage.data_dir.absolute()
        self._undo: list[tuple[str, Callable[[], Awaitable[None] | None]]] = []
        self._tasks = Supervisor(lambda name, error: self._fatal(error))
        self._executors: dict[str, ThreadExecutor] = {}

    # -- start -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Everything, in order. On an error what was started is stopped again, and the error raised."""
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> None:
        config = self.config
        self._lock_data_dir()
        self._check_data_dir()
        self._listener = Listener(
            config.server.host, config.server.port, config.server.connections_max, config.server.request_bytes_max
        )
        self._undo.append(("kafka port", self._listener.close))
        self._http_socket = bind(self._http_host, config.server.http_port)
        self._undo.append(("http port", self._http_socket.close))
        identity = await self._start_metadata()
        await self._start_storage(identity)
        await self._start_partitions(identity)
        await self._start_coordinator(identity)
        self._worker = self._table_worker(identity)
        await self._start_registry_and_http(identity)
        prepare([handler.api for handler in HANDLERS])  # else the first request of each kind waits for its codec
        await self._listener.start(self._context(identity), HANDLERS)
        # Requests under way need all that was started before, so they end first.
        self._undo.append(("listener", lambda: self._listener.stop(config.server.shutdown_timeout_s)))
        if config.tables.enabled:
            self._tasks.start("table worker", self._worker.run())
            self._undo.append(("table worker", self._worker.stop))
        self._tasks.start("lease", self._membership.run())
        self._announce()

    def _lock_data_dir(self) -> None:
        """Before anything in the directory is touched: it may be a running server's."""
        try:
            self._disk.makedirs(str(self._data_dir))
            lock: DiskFile = self._disk.open(str(self._data_dir / "lock"), create=True)
        except OSError as error:
            text = f"{self._data_dir} cannot be used: {error.strerror}; give a --data-dir that can be written"
            raise Unavailable(text) from None
        if not lock.lock():
            lock.close()
            raise Unavailable(
                f"another server uses {self._data_dir}: stop it first, or give this one another --data-dir"
            )
        self._undo.append(("data directory", lock.close))
        (self._data_dir / READY_FILE).unlink(missing_ok=True)

    def _check_data_dir(self) -> None:
        """Data without its metadata, or metadata without its data: a part was lost, and to go on would lose the rest.

        A first start makes the empty directories before the metadata, so no crash of its own looks like that."""
        metadata = self._data_dir / "metadata.db"
        parts = ["wal"] if self.config.storage.url else ["wal", "objects"]
        for part in (str(self._data_dir / name) for name in parts):
            if metadata.exists() and not self._disk.is_dir(part):
                raise Corrupt(
                    f"{part} is missing, and {metadata} knows of data in it: bring it back, or make it an empty "
                    "directory to go on without that data"
                )
            if not metadata.exists() and self._disk.listdir(part):
                raise Corrupt(
                    f"{metadata} is missing, and {part} holds data that only it can tell what they are: bring it back, "
                    "or start with another --data-dir"
                )
            self._disk.makedirs(part)

    async def _start_metadata(self) -> BrokerIdentity:
        config = self.config
        url = f"sqlite:///{self._data_dir / 'metadata.db'}"
        database = await Database.open(url, self._executor("metadata"), self._clock)
        self._undo.append(("metadata", database.close))
        self._database = database
        self._membership = Membership(database, self._clock, self._ids)
        wal_uri = f"file://{self._data_dir / 'wal'}"
        identity = await self._membership.register(
            config.server.node_id, self._advertised_host, self._advertised_port, wal_uri
        )
        self._undo.append(("membership", self._membership.leave))
        self._configs = BrokerConfigs(database, identity, config.kafka)
        await self._configs.refresh()
        return identity

    async def _start_storage(self, identity: BrokerIdentity) -> None:
        storage, memory = self.config.storage, self.config.memory
        store = await self._open_store()
        self._undo.append(("object store", store.close))
        flusher = Flusher(self._executor("wal-sync"), self._clock)
        wal = FileWal(
            str(self._data_dir / "wal"),
            self._disk,
            executor=self._executor("wal-files"),
            flusher=flusher,
            ids=self._ids,
            broker_epoch=identity.epoch,
            settings=FileWalSettings(
                capacity_bytes=storage.wal_capacity_bytes, segment_bytes=storage.wal_segment_bytes
            ),
        )
        self._store, self._wal, self._flusher = store, wal, flusher
        self._streams = Streams(
            store,
            wal,
            SqlStreamMetadata(self._database, identity),
            self._clock,
            self._ids,
            StreamsSettings(
                log_cache_bytes=memory.log_cache_bytes,
                block_cache_bytes=memory.block_cache_bytes,
                upload_bytes=storage.upload_bytes,
                upload_interval_ms=int(storage.upload_interval_s * 1000),
                gc_interval_ms=int(storage.gc_interval_s * 1000),
                gc_grace_ms=int(storage.gc_grace_s * 1000),
            ),
            Budget(memory.total_bytes),
            self._fatal,
        )
        self._undo.append(("streams", self._close_streams))
        await self._streams.start()

    async def _open_store(self) -> "LocalStore | S3Store":
        url = self.config.storage.url or f"file://{self._data_dir / 'objects'}"
        if url.startswith("file://"):
            root = url.removeprefix("file://")
            return await LocalStore.open(root, self._disk, self._executor("objects", 2), self._ids)
        from streamlake.s3stream.s3_store import S3Options, S3Store  # obstore takes a while to import

        s3 = self.config.s3
        options = S3Options(
            endpoint=s3.endpoint,
            region=s3.region,
            access_key=s3.access_key,
            secret_key=s3.secret_key,
            allow_http=s3.allow_http,
            path_style=s3.path_style,
        )
        return S3Store(url, self._ids, self._executor("objects", 2), options)

    async def _close_streams(self) -> None:
        """A clean stop uploads first: the next start has nothing to replay. A store outage cannot hold it up."""
        if not self.failed.done():
            try:
                async with asyncio.timeout(self.config.server.shutdown_timeout_s):
                    await self._streams.flush()
            except (TimeoutError, StreamLakeError) as error:
                log.warning("not all was uploaded; the write-ahead log keeps it", reason=str(error))
        await self._streams.close()

    async def _start_partitions(self, identity: BrokerIdentity) -> None:
        self._topics = Topics(self._database, identity, self._clock, self._ids)
        await self._topics.refresh()
        self._progress = TableProgress(self._database, identity)
        self._logs = LogManager(self._clock, self._executor("log"))
        self._undo.append(("partitions", self._logs.close_all))
        self._undo.append(("tasks", self._tasks.stop))
        self._partitions = Partitions(
            self._topics,
            self._configs,
            self._progress,
            self._streams,
            self._logs,
            self._tasks,
            self.config.storage.retention_interval_s,
        )
        await self._partitions.start()

    async def _start_coordinator(self, identity: BrokerIdentity) -> None:
        groups = self.config.groups
        settings = GroupSettings(
            initial_rebalance_delay_ms=groups.initial_rebalance_delay_ms,
            session_timeout_min_ms=groups.session_timeout_min_ms,
            session_timeout_max_ms=groups.session_timeout_max_ms,
            group_size_max=groups.group_size_max,
            offsets_retention_ms=groups.offsets_retention_ms,
        )
        store = GroupStore(self._database, identity)
        self._groups = Groups(store, self._clock, self._ids, settings)
        self._offsets = Offsets(self._groups, store, self._clock, self._has_partition)
        await self._groups.start()
        self._undo.append(("groups", self._groups.stop))
        self._producer_ids = ProducerIds(ProducerIdBlocks(self._database, identity))

    async def _start_registry_and_http(self, identity: BrokerIdentity) -> None:
        registry = SchemaRegistry(SchemaStore(self._database, identity), self._executor("registry"))
        metrics = Metrics()
        self._undo.append(("metrics", metrics.close))
        self._export(metrics)
        http = HttpServer(
            self._http_socket,
            routes(registry),
            metrics,
            self._problems,
            self._worker.describe,
            lambda: self._worker.pid,
        )
        self._undo.append(("http", http.stop))
        await http.start()

    def _export(self, metrics: Metrics) -> None:
        loop_lag = LoopLag()
        self._tasks.start("loop lag", loop_lag.run())
        export(
            metrics,
            Sources(
                connections=self._listener.counters,
                logs=self._logs,
                streams=self._streams,
                wal=self._wal,
                flusher=self._flusher,
                store=self._store,
                database=self._database,
                groups=self._groups,
                offsets=self._offsets,
                worker=self._worker,
                loop_lag=loop_lag,
            ),
        )

    def _table_worker(self, identity: BrokerIdentity) -> TableWorker:
        tables = self.config.tables
        if tables.catalog == "sql":
            catalog = catalog_config.embedded(self._data_dir, tables.warehouse)
        else:
            catalog = catalog_config.read(Path(tables.catalog), os.environ)
        settings = WorkerSettings(
            bootstrap_host=_reachable(self.config.server.host),
            bootstrap_port=self._listener.port,
            registry_url=self._http_url,
            cluster_id=identity.cluster_id,
            memory_bytes=tables.memory_bytes,
            round_bytes=tables.round_bytes,
            log_level=self.config.logging.level,
            log_json=self.config.logging.format == "json",
            catalog_kind=catalog.kind,
            catalog_name=catalog.name,
            catalog_properties=dict(catalog.properties),
        )
        return TableWorker(settings, self._topics, self._configs, self._progress, self._logs, self._clock)

    def _context(self, identity: BrokerIdentity) -> Context:
        node = Node(identity.node, self._advertised_host, self._advertised_port, identity.cluster_id)
        return Context(
            node=node,
            topics=self._topics,
            broker_configs=self._configs,
            logs=self._logs,
            streams=self._streams,
            groups=self._groups,
            offsets=self._offsets,
            producer_ids=self._producer_ids,
            fetch_sessions=FetchSessions(self._ids),
            settled=self._partitions.settled,
            clock=self._clock,
            ids=self._ids,
        )

    # -- stop --------------------------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """The reverse of the start. One part that fails to stop does not keep the others running."""
        while self._undo:
            what, undo = self._undo.pop()
            try:
                done = undo()
                if done is not None:
                    await done
            except Exception:
                log.exception("did not stop cleanly", part=what)
        for executor in self._executors.values():
            executor.close()

    def _fatal(self, error: BaseException) -> None:
        if not self.failed.done():
            log.error("the server must stop: restart it, and it recovers what is durable", reason=str(error))
            self.failed.set_result(error)

    # -- small things ------------------------------------------------------------------------------------------------

    @property
    def _advertised_host(self) -> str:
        return self.config.server.advertised_host or _reachable(self.config.server.host)

    @property
    def _advertised_port(self) -> int:
        return self.config.server.advertised_port or self._listener.port

    @property
    def _http_host(self) -> str:
        return self.config.server.http_host or self.config.server.host

    @property
    def _http_url(self) -> str:
        return f"http://{_address(_reachable(self._http_host), self._http_socket.getsockname()[1])}"

    def _executor(self, name: str, threads: int = 1) -> ThreadExecutor:
        return self._executors.setdefault(name, ThreadExecutor(name, threads))

    def _has_partition(self, name: str, index: int) -> bool:
        topic = self._topics.get(name)
        return topic is not None and 0 <= index < len(topic.partitions)

    def _problems(self) -> list[str]:
        problems = []
        if self.failed.done():
            problems.append(f"stopping: {self.failed.result()}")
        if not self._membership.holds_lease():
            problems.append("the lease has run out: the metadata store cannot be reached")
        if self._partitions.unopened:
            problems.append(f"{self._partitions.unopened} partitions could not be opened: see the log")
        return problems

    def _announce(self) -> None:
        addresses = {
            "pid": os.getpid(),
            "bootstrap": _address(self._advertised_host, self._advertised_port),
            "http": self._http_url,
        }
        ready = self._data_dir / READY_FILE
        self._undo.append(("ready file", lambda: ready.unlink(missing_ok=True)))
        written = self._data_dir / f"{READY_FILE}.tmp"
        written.write_text(json.dumps(addresses))
        written.replace(ready)
        log.info("ready", kafka=addresses["bootstrap"], http=addresses["http"], data=str(self._data_dir))


def _reachable(host: str) -> str:
    """An address to connect to, for one to listen on."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def run(config: Config) -> None:
    """Serve until SIGINT or SIGTERM (exit code 0) or until something that cannot be survived (1)."""
    logs.configure(config.logging.level, json=config.logging.format == "json")
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    sys.exit(uvloop.run(_serve(config)))


async def _serve(config: Config) -> int:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    broker = Broker(config, SystemClock(), Ids(), RealDisk())
    try:
        await broker.start()
    except StreamLakeError as error:
        log.error("not started", reason=str(error))
        return 1
    gc.freeze()  # what is there after the start stays: collections need not look at it again
    gc.set_threshold(50_000, 20, GC_GENERATION_2)
    stopping = loop.create_task(stop.wait())
    waited: list[asyncio.Future[Any]] = [stopping, broker.failed]
    await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
    log.info("stopping")
    await broker.stop()
    return 1 if broker.failed.done() else 0
