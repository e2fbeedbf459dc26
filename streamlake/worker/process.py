"""The table worker's composition root: `python -m streamlake.worker.process FD`, started by the server only.

FD is one end of a socket pair. The first line carries the settings, the following ones the tables; the worker
answers with reports. When the pair closes the server is gone, and the worker exits at once: it holds nothing that
could not be translated again from the log, and an orphan would only race its successor.
"""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import pyarrow
import structlog
from msgspec.structs import replace

from streamlake.catalogs.config import CatalogConfig
from streamlake.catalogs.kinds import capabilities_of, load
from streamlake.catalogs.named import NamedCatalogs
from streamlake.catalogs.secrets import hider
from streamlake.catalogs.trouble import remedy
from streamlake.core.budget import Budget
from streamlake.core.clock import Clock, SystemClock
from streamlake.core.errors import StreamLakeError, Unavailable, describe
from streamlake.core.ids import Ids
from streamlake.core.tasks import Executor, ThreadExecutor
from streamlake.iceberg_rest.s3.access import S3Access
from streamlake.iceberg_rest.service import IcebergRest
from streamlake.iceberg_rest.warehouses import Warehouses
from streamlake.peers.kafka import KafkaPeer
from streamlake.table.commit.tools import Tools
from streamlake.table.formats.port import SchemaSource
from streamlake.table.formats.resolve import SchemaCache
from streamlake.table.task.catalogs import Catalogs
from streamlake.table.task.control import (
    LINE_BYTES_MAX,
    CatalogAnswer,
    CatalogCall,
    FromServer,
    FromWorker,
    TableCall,
    TableReport,
    TableSpec,
    WorkerSettings,
    encode,
    read_message,
)
from streamlake.table.task.tables import Tables
from streamlake.table.task.task import Work
from streamlake.telemetry import log as logs
from streamlake.worker.catalog_calls import CatalogCalls
from streamlake.worker.log_reader import KafkaLogReader
from streamlake.worker.patient_source import PatientSource
from streamlake.worker.schema_source import HttpSchemaSource
from streamlake.worker.table_calls import TableCalls

log = structlog.get_logger(__name__)

REQUEST_TIMEOUT_S = 60.0
NICENESS = 5  # the broker's answers come first
THREADS = 4
REQUEST_THREADS = 4
ERROR_STATUS_MIN = 400


class WorkerMachine(Protocol):
    """What a worker gets from outside, except the network: in a simulation all of it comes from a seed."""

    clock: Clock
    ids: Ids

    def executor(self, catalog: str) -> Executor:
        """For the blocking work of the tables of one catalog: one table's upload need not wait for another's
        translation, nor any table for another catalog."""
        ...

    def request_executor(self, catalog: str) -> Executor:
        """For the calls of one catalog that clients of the REST endpoint make: they hold up no table, and those of a
        catalog that hangs hold up no other."""
        ...

    def load_catalog(self, config: CatalogConfig) -> Any:
        """pyiceberg's catalog. Blocks; raises what its library raises when it cannot be reached."""
        ...

    def schemas(self, settings: WorkerSettings) -> SchemaSource: ...


class RealWorkerMachine:
    """Implements WorkerMachine."""

    def __init__(self) -> None:
        self.clock: Clock = SystemClock()
        self.ids = Ids()

    def executor(self, catalog: str) -> Executor:
        return ThreadExecutor(f"table-{catalog}", THREADS)

    def request_executor(self, catalog: str) -> Executor:
        return ThreadExecutor(f"requests-{catalog}", REQUEST_THREADS)

    def load_catalog(self, config: CatalogConfig) -> Any:
        return load(config)

    def schemas(self, settings: WorkerSettings) -> SchemaSource:
        source = HttpSchemaSource(settings.registry_url, self.clock, settings.registry_access)
        return PatientSource(source, self.clock, self.ids)


class ControlWriter(Protocol):
    """The part of asyncio.StreamWriter that the control channel needs."""

    def write(self, data: bytes) -> None: ...

    def drain(self) -> Awaitable[None]: ...


class Pipe:
    """Reports and answers to the server. The latest report of a table replaces one that was not sent yet: it says
    everything. There are as many answers as the server lets there be requests. `hide` keeps secrets out of reports and
    errors: a catalog's error may quote what it was given."""

    def __init__(self, writer: ControlWriter, hide: Callable[[str], str]) -> None:
        self._writer = writer
        self._hide = hide
        self._waiting: dict[str, TableReport] = {}
        self._answers: list[CatalogAnswer] = []
        self._wake = asyncio.Event()

    def report(self, report: TableReport) -> None:
        message, maintenance = self._hide(report.message), self._hide(report.maintenance)
        redrive = report.redrive and replace(report.redrive, message=self._hide(report.redrive.message))
        shown = replace(report, message=message, maintenance=maintenance, redrive=redrive)
        self._waiting[str(report.topic_id)] = shown
        self._wake.set()

    def answer(self, answer: CatalogAnswer) -> None:
        if answer.status >= ERROR_STATUS_MIN:
            answer = replace(answer, body=self._hide(answer.body.decode()).encode())
        self._answers.append(answer)
        self._wake.set()

    async def send(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            waiting, self._waiting = self._waiting, {}
            answers, self._answers = self._answers, []
            for report in waiting.values():
                self._writer.write(encode(FromWorker(report=report)))
            for answer in answers:
                self._writer.write(encode(FromWorker(answer=answer)))
                await self._writer.drain()
            await self._writer.drain()


async def serve(
    reader: asyncio.StreamReader,
    writer: ControlWriter,
    machine: WorkerMachine,
    stop: asyncio.Event,
    configure_logs: Callable[[WorkerSettings, Callable[[str], str]], None] = lambda settings, hide: None,
) -> int:
    """The life of a worker on its control channel, until the server is gone or `stop` is set; its exit code."""
    settings = await read_message(reader, WorkerSettings)
    if settings is None:
        return 1
    registry = settings.registry_access
    hide = hider(settings.catalogs.values(), registry.secrets if registry is not None else ())
    configure_logs(settings, hide)
    pipe = Pipe(writer, hide)
    updates: asyncio.Queue[list[TableSpec]] = asyncio.Queue()
    calls: asyncio.Queue[CatalogCall | TableCall] = asyncio.Queue()  # as many as the server lets there be
    start = asyncio.get_running_loop().create_task
    listening, sending = start(_listen(reader, updates, calls)), start(pipe.send())
    working = start(_work(settings, pipe, updates, calls, machine, stop))
    await asyncio.wait([listening, sending, working], return_when=asyncio.FIRST_COMPLETED)
    for task in (working, listening):
        if task.done() and (error := task.exception()) is not None:
            log.error("the table worker failed", reason=describe(error))
    return 0 if any(task.done() and task.exception() is None for task in (working, listening)) else 1


async def _listen(
    reader: asyncio.StreamReader,
    updates: asyncio.Queue[list[TableSpec]],
    calls: asyncio.Queue[CatalogCall | TableCall],
) -> None:
    """Returns when the server is gone, whatever the tables are waiting for then."""
    while (message := await read_message(reader, FromServer)) is not None:
        if message.tables is not None:
            updates.put_nowait(message.tables)
        if message.call is not None:
            calls.put_nowait(message.call)
        if message.table_call is not None:
            calls.put_nowait(message.table_call)


async def _work(
    settings: WorkerSettings,
    pipe: Pipe,
    updates: asyncio.Queue[list[TableSpec]],
    calls: asyncio.Queue[CatalogCall | TableCall],
    machine: WorkerMachine,
    stop: asyncio.Event,
) -> None:
    """Run the tables that the server lists, until `stop`. Raises the error that a table's task died of."""
    loop = asyncio.get_running_loop()
    stopping = loop.create_task(stop.wait())
    failed: asyncio.Future[BaseException] = loop.create_future()

    def fail(error: BaseException) -> None:
        if not failed.done():
            failed.set_result(error)

    def connect(host: str, port: int) -> KafkaPeer:
        return KafkaPeer(host, port, "streamlake-worker", REQUEST_TIMEOUT_S)

    own = connect(settings.bootstrap_host, settings.bootstrap_port)
    work = Work(
        cluster_id=settings.cluster_id,
        reader=KafkaLogReader(own, settings.node_id, connect),
        budget=Budget(settings.memory_bytes),
        report=pipe.report,
        round_bytes=settings.round_bytes,
    )
    catalogs = _catalogs(settings, machine)
    tables = Tables(work, catalogs, lambda _name, error: fail(error))
    warehouses = Warehouses(_named(settings))
    answering = CatalogCalls(warehouses, lambda name: _rest(name, settings, catalogs, tables, machine), pipe.answer)
    specs = await updates.get()
    receiving = loop.create_task(_receive(calls, answering, TableCalls(tables, pipe.answer)))
    while True:
        await tables.apply(specs)
        next_update = loop.create_task(updates.get())
        waited: list[asyncio.Future[Any]] = [next_update, stopping, failed]
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if failed.done():
            raise failed.result()
        if stopping.done():
            receiving.cancel()
            await tables.close()  # waits for commits under way
            await answering.finish()
            return
        specs = next_update.result()


async def _receive(
    calls: asyncio.Queue[CatalogCall | TableCall], catalog_calls: CatalogCalls, table_calls: TableCalls
) -> None:
    while True:
        call = await calls.get()
        if isinstance(call, CatalogCall):
            catalog_calls.receive(call)
        else:
            table_calls.receive(call)


async def _rest(
    name: str, settings: WorkerSettings, catalogs: Catalogs, tables: Tables, machine: WorkerMachine
) -> IcebergRest:
    """Over one catalog, by name. Unavailable tells clients no more than they need: reasons name files and addresses."""
    try:
        tools = await catalogs.tools(name)
    except StreamLakeError as error:
        raise Unavailable(f"the catalog {name} cannot be opened: the server's log says why") from error
    access = S3Access(settings.s3_access, name, tools.catalog, machine.clock)
    return IcebergRest(tools.catalog, name, tools.capabilities, tables, machine.request_executor(name), access)


def _named(settings: WorkerSettings) -> NamedCatalogs:
    return NamedCatalogs(settings.default_catalog, settings.catalogs)


def _catalogs(settings: WorkerSettings, machine: WorkerMachine) -> Catalogs:
    schemas = SchemaCache(machine.schemas(settings))
    executors: dict[str, Executor] = {}
    told: dict[str, str] = {}

    async def open_(name: str, config: CatalogConfig) -> Tools:
        if name not in executors:
            executors[name] = machine.executor(name)
        executor = executors[name]
        try:
            catalog = await executor.run(machine.load_catalog, config)
        except StreamLakeError:
            raise
        except Exception as error:  # what a catalog raises when it cannot be reached is its library's business
            reason = f"{describe(error)}; {remedy(config, error)}"
            if told.get(name) != reason:  # it is tried again every few seconds
                log.warning("the catalog cannot be opened, retrying", catalog=name, reason=reason)
            told[name] = reason
            raise Unavailable(reason) from error
        capabilities = capabilities_of(config.kind, catalog)
        return Tools(catalog, schemas, executor, machine.clock, machine.ids, capabilities)

    return Catalogs(_named(settings), open_)


async def _serve(control: socket.socket) -> int:
    """In a process of its own, until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    reader, writer = await asyncio.open_connection(sock=control, limit=LINE_BYTES_MAX)
    return await serve(
        reader, writer, RealWorkerMachine(), stop, lambda s, hide: logs.configure(s.log_level, s.log_json, hide)
    )


def _control() -> socket.socket:
    """The end of the pair that the server has handed over."""
    try:
        (fd,) = sys.argv[1:]
        return socket.socket(fileno=int(fd))
    except (ValueError, OverflowError, OSError):
        sys.exit("this is started by the server: run `streamlake server`")


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the server decides when we stop
    os.nice(NICENESS)
    pyarrow.set_cpu_count(1)  # tables share the machine with the broker
    code = asyncio.run(_serve(_control()))
    sys.stderr.flush()
    os._exit(code)  # not sys.exit: a thread that waits for a hung catalog must not keep an orphan alive


if __name__ == "__main__":
    main()
