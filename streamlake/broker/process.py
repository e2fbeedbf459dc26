"""The server process: a broker (broker.py), and all that only a real process has.

Start: lock the data directory, bind the ports (so that a mistake is clear before anything is recovered), then the
services, then HTTP and Kafka listen, then the table worker. Stop is the reverse: the worker ends its commit, clients
are answered, then the rest. A failure that cannot be survived (a lost disk, being fenced) ends the process: what is
durable is recovered at the next start, and nothing else may be trusted.
"""

import asyncio
import contextlib
import gc
import json
import os
import signal
import sys
import threading
from typing import Any

import structlog
import uvloop
from starlette.routing import Route

from streamlake.broker import worker_process
from streamlake.broker.broker import Broker
from streamlake.broker.cluster_requests import ClusterRequests
from streamlake.broker.machine import METADATA_FILE, Machine, RealMachine, metadata_url, store_url, wal_uri
from streamlake.broker.metrics import metrics_of
from streamlake.broker.services import Undo, undo_all
from streamlake.config import Config
from streamlake.core import native
from streamlake.core.disk import DiskFile
from streamlake.core.errors import Corrupt, StreamLakeError, Unavailable
from streamlake.core.version import version
from streamlake.handlers.apis import HANDLERS
from streamlake.http import app as http
from streamlake.http import cluster, iceberg, probes, registry, tables
from streamlake.http.app import HttpServer
from streamlake.protocol.requests import prepare
from streamlake.server import listener
from streamlake.table.task.control import RegistryAccess, S3AccessSettings, WorkerSettings
from streamlake.telemetry import log as logs
from streamlake.telemetry.loop_lag import LoopLag
from streamlake.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

READY_FILE = "server.json"
SWITCH_INTERVAL_S = 0.0002  # the default of 5 ms lets a thread of Python hold up the loop for so long (docs/adr/0013)
GC_GENERATION_2 = 100  # full collections of a large heap take long: make them rare


class ServerProcess:
    broker: Broker

    def __init__(self, config: Config, machine: Machine) -> None:
        self.config = config
        self.failed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self._machine = machine
        self._data_dir = config.storage.data_dir.absolute()
        self._undo: list[tuple[str, Undo]] = []

    # -- start -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Everything, in order. On an error what was started is stopped again, and the error raised."""
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> None:
        server = self.config.server
        self._lock_data_dir()
        self._check_data_dir()
        kafka_socket = listener.bind(server.host, server.port)
        self._undo.append(("kafka port", kafka_socket.close))
        self._http_socket = http.bind(self._http_host, server.http_port)
        self._undo.append(("http port", self._http_socket.close))
        self.broker = Broker(self.config, self._machine, kafka_socket, self._fatal)
        await self.broker.recover(self._advertised_host, self._advertised_port, self._undo)
        self._worker = self.broker.table_worker(self._worker_settings(), worker_process.launch)
        self.broker.services.topics.table_problems = self._worker.problems
        await self._start_http()
        prepare([handler.api for handler in HANDLERS])  # else the first request of each kind waits for its codec
        await self.broker.serve(self._worker, self._undo)
        self._announce()

    def _lock_data_dir(self) -> None:
        """Before anything in the directory is touched: it may be a running server's."""
        disk = self._machine.disk
        try:
            disk.makedirs(str(self._data_dir))
            lock: DiskFile = disk.open(str(self._data_dir / "lock"), create=True)
        except OSError as error:
            text = f"{self._data_dir} cannot be used: {error.strerror}; give a --data-dir that can be written"
            raise Unavailable(text) from None
        if not lock.lock():
            lock.close()
            raise Unavailable(
                f"another server uses {self._data_dir}: stop it first, or give this one another directory (--data-dir)"
            )
        self._undo.append(("data directory", lock.close))
        (self._data_dir / READY_FILE).unlink(missing_ok=True)

    def _check_data_dir(self) -> None:
        """Data without its metadata, or metadata without its data: a part was lost, and to go on would lose the rest.

        A first start makes the empty directories before the metadata, so no crash of its own looks like that."""
        if self.config.storage.metadata_url:
            return
        metadata, disk = self._data_dir / METADATA_FILE, self._machine.disk
        parts = ["wal"] if self.config.storage.url else ["wal", "objects"]
        for part in (str(self._data_dir / name) for name in parts):
            if metadata.exists() and not disk.is_dir(part):
                raise Corrupt(
                    f"{part} is missing, and {metadata} knows of data in it: bring it back, or make it an empty "
                    "directory to go on without that data"
                )
            if not metadata.exists() and disk.listdir(part):
                raise Corrupt(
                    f"{metadata} is missing, and {part} holds data that only it can tell what they are: bring it back, "
                    "or start with another --data-dir"
                )
            disk.makedirs(part)

    async def _start_http(self) -> None:
        metrics = Metrics()
        self._undo.append(("metrics", metrics.close))
        self._export(metrics)
        server = HttpServer(
            self._http_socket,
            [
                *registry.routes(self.broker.services.registry),
                *self._iceberg_routes(),
                *self._cluster_routes(),
                *self._table_routes(),
                *probes.routes(self._why_not_live, self._why_not_ready),
            ],
            metrics,
            self._problems,
            self._worker.describe,
            lambda: self._worker.pid,
            [name for name, _ in self._catalogs()],
        )
        self._undo.append(("http", server.stop))
        await server.start()

    def _iceberg_routes(self) -> list[Route]:
        settings = self.config.http
        if not settings.iceberg or not self.config.tables.enabled:
            return []
        refusal = iceberg.refusal_of(self._http_host, settings.tokens)
        if refusal is not None:
            log.warning("requests to /iceberg are refused", reason=refusal)
        return iceberg.routes(self._worker.requests.ask, settings.tokens, refusal)

    def _table_routes(self) -> list[Route]:
        return tables.routes(self._worker, self.config.http.tokens) if self.config.tables.enabled else []

    def _cluster_routes(self) -> list[Route]:
        requests = ClusterRequests(self.broker.services.administration, self.config)
        return cluster.routes(requests, self.config.http.tokens)

    def _export(self, metrics: Metrics) -> None:
        loop_lag = LoopLag()
        broker = self.broker
        broker.tasks.start("loop lag", loop_lag.run())
        metrics.add(metrics_of(broker.services, broker.listener.counters, self._worker, loop_lag))

    def _worker_settings(self) -> WorkerSettings:
        settings, catalogs = self.config.tables, self.broker.services.catalogs
        return WorkerSettings(
            bootstrap_host=_reachable(self.config.server.host),
            bootstrap_port=self.broker.listener.port,
            node_id=self.broker.services.identity.node,
            registry_url=self.config.registry.url or self._http_url,
            cluster_id=self.broker.services.identity.cluster_id,
            memory_bytes=settings.memory_bytes,
            round_bytes=settings.round_bytes,
            log_level=self.config.logging.level,
            log_json=self.config.logging.format == "json",
            catalogs=dict(catalogs.by_name),
            default_catalog=catalogs.default,
            s3_access=self._s3_access(),
            registry_access=self._registry_access(),
        )

    def _registry_access(self) -> RegistryAccess | None:
        given = self.config.registry
        return RegistryAccess(**given.model_dump(exclude={"url"})) if given.url else None

    def _s3_access(self) -> S3AccessSettings:
        http, own = self.config.http, (store_url(self.config), wal_uri(self.config).place)
        return S3AccessSettings(http.vend_credentials, http.sign_requests, http.sts_role, http.sts_endpoint, own)

    # -- stop --------------------------------------------------------------------------------------------------------

    def hurry(self) -> None:
        """A stop does not wait for other brokers."""
        broker: Broker | None = getattr(self, "broker", None)  # not made yet early in a start
        if broker is not None:
            broker.services.hurry()

    async def stop(self) -> None:
        """The reverse of the start."""
        await undo_all(self._undo)
        self._machine.close()

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
        return self.config.server.advertised_port or self.broker.listener.port

    @property
    def _http_host(self) -> str:
        return self.config.server.http_host or self.config.server.host

    @property
    def _http_url(self) -> str:
        return f"http://{_address(_reachable(self._http_host), self._http_socket.getsockname()[1])}"

    def _problems(self) -> list[str]:
        stopping = [f"stopping: {self.failed.result()}"] if self.failed.done() else []
        return stopping + self.broker.services.problems()

    def _why_not_live(self) -> str | None:
        return f"stopping: {self.failed.result()}" if self.failed.done() else None

    def _why_not_ready(self) -> str | None:
        return self._why_not_live() or (None if self.broker.is_ready else "starting, or stopping")

    def _catalogs(self) -> list[tuple[str, str]]:
        """Names and kinds, the default first."""
        if not self.config.tables.enabled:
            return []
        catalogs = self.broker.services.catalogs
        named = sorted(catalogs.by_name.items(), key=lambda item: item[0] != catalogs.default)
        return [(name, found.kind) for name, found in named]

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
        kernels = native.compiled()
        catalogs = [name if name == kind else f"{name} ({kind})" for name, kind in self._catalogs()]
        log.info(
            "this is StreamLake",
            version=version(),
            wal=wal_uri(self.config).kind,
            store=store_url(self.config),
            metadata=metadata_url(self.config).partition(":")[0],
            catalogs=", ".join(catalogs) or "none: tables.enabled is false",
            kernels=", ".join(what for what, there in kernels.items() if there) or "none",
        )
        if missing := [what for what, there in kernels.items() if not there]:
            log.warning(
                "kernels are missing, and Python does their work, slower: install StreamLake where a C compiler is",
                missing=", ".join(missing),
            )


def _reachable(host: str) -> str:
    """An address to connect to, for one to listen on."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def run(config: Config, until_stdin_closes: bool) -> None:
    """Serve until SIGINT, SIGTERM or, if wanted, the end of stdin (exit code 0), or until something that cannot be
    survived (1). A second signal ends the wait for other brokers (server.drain_timeout_s)."""
    logs.configure(config.logging.level, json=config.logging.format == "json")
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    sys.exit(uvloop.run(_serve(config, until_stdin_closes)))


async def _serve(config: Config, until_stdin_closes: bool) -> int:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    server = ServerProcess(config, RealMachine(config.s3))

    def end() -> None:
        if stop.is_set():
            server.hurry()
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end)
    if until_stdin_closes:
        threading.Thread(target=_stop_at_end_of_stdin, args=(loop, stop), name="stdin", daemon=True).start()
    gc.set_threshold(50_000, 20, GC_GENERATION_2)
    stopping = loop.create_task(stop.wait())
    starting = loop.create_task(server.start())
    # A start may wait for a store or a lease: it can be stopped, and being fenced ends it too.
    ends: list[asyncio.Future[Any]] = [starting, stopping, server.failed]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
    try:
        await starting
    except asyncio.CancelledError:
        return 1
    except StreamLakeError as error:
        log.error("not started", reason=str(error))
        return 1
    gc.freeze()  # what is there after the start stays: collections need not look at it again
    waited: list[asyncio.Future[Any]] = [stopping, server.failed]
    await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
    log.info("stopping")
    await server.stop()
    return 1 if server.failed.done() else 0


def _stop_at_end_of_stdin(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """On a thread, because stdin may be a pipe, a terminal or a file: a loop cannot wait for all of these."""
    with contextlib.suppress(OSError):  # stdin that is not there has ended
        while os.read(0, 4096):
            pass
    with contextlib.suppress(RuntimeError):  # the loop has ended by itself
        loop.call_soon_threadsafe(stop.set)
