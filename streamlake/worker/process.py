"""The table worker's composition root: `python -m streamlake.worker.process FD`, started by the server only.

FD is one end of a socket pair. The first line carries the settings, the following ones the tables and requests to the
Iceberg REST catalog; the worker sends reports and answers. When the pair closes the server is gone, and the worker
exits at once: it holds nothing that could not be translated again from the log, and an orphan would only race its
successor.
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

from streamlake.catalogs.config import CatalogConfig
from streamlake.catalogs.kinds import load
from streamlake.core.budget import Budget
from streamlake.core.clock import Clock, SystemClock
from streamlake.core.errors import Fenced
from streamlake.core.ids import Ids
from streamlake.core.tasks import Executor, ThreadExecutor
from streamlake.iceberg_rest.service import IcebergRest
from streamlake.peers.kafka import KafkaPeer
from streamlake.table.commit.committer import describe
from streamlake.table.commit.tools import Tools
from streamlake.table.formats.port import SchemaSource
from streamlake.table.formats.resolve import SchemaCache
from streamlake.table.task.control import (
    LINE_BYTES_MAX,
    CatalogAnswer,
    FromServer,
    FromWorker,
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
from streamlake.worker.schema_source import HttpSchemaSource

log = structlog.get_logger(__name__)

REQUEST_TIMEOUT_S = 60.0
NICENESS = 5  # the broker's answers come first
THREADS = 4
REQUEST_THREADS = 4
CATALOG_PAUSE_S = 2.0
FENCED_PAUSE_S = 0.5  # long enough for the report to be sent


class WorkerMachine(Protocol):
    """What a worker gets from outside, except the network: in a simulation all of it comes from a seed."""

    clock: Clock
    ids: Ids
    executor: Executor  # the table's blocking work; one table's upload need not wait for another's translation
    requests: Executor  # calls of the catalog for clients of the REST endpoint: they hold up no table

    def load_catalog(self, config: CatalogConfig) -> Any:
        """pyiceberg's catalog. Blocks; raises what its library raises when it cannot be reached."""
        ...

    def schemas(self, settings: WorkerSettings) -> SchemaSource: ...


class RealWorkerMachine:
    """Implements WorkerMachine."""

    def __init__(self) -> None:
        self.clock: Clock = SystemClock()
        self.ids = Ids()
        self.executor: Executor = ThreadExecutor("table", THREADS)
        self.requests: Executor = ThreadExecutor("catalog-requests", REQUEST_THREADS)

    def load_catalog(self, config: CatalogConfig) -> Any:
        return load(config)

    def schemas(self, settings: WorkerSettings) -> SchemaSource:
        return HttpSchemaSource(settings.registry_url)


class ControlWriter(Protocol):
    """The part of asyncio.StreamWriter that the control channel needs."""

    def write(self, data: bytes) -> None: ...

    def drain(self) -> Awaitable[None]: ...


class Pipe:
    """Reports and answers to the server. The latest report of a table replaces one that was not sent yet: it says
    everything. There are as many answers as the server lets there be requests."""

    def __init__(self, writer: ControlWriter) -> None:
        self._writer = writer
        self._waiting: dict[str, TableReport] = {}
        self._answers: list[CatalogAnswer] = []
        self._wake = asyncio.Event()

    def report(self, report: TableReport) -> None:
        self._waiting[str(report.topic_id)] = report
        self._wake.set()

    def answer(self, answer: CatalogAnswer) -> None:
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
    configure_logs: Callable[[WorkerSettings], None] = lambda settings: None,
) -> int:
    """The life of a worker on its control channel, until the server is gone or `stop` is set; its exit code."""
    settings = await read_message(reader, WorkerSettings)
    if settings is None:
        return 1
    configure_logs(settings)
    pipe = Pipe(writer)
    updates: asyncio.Queue[list[TableSpec]] = asyncio.Queue()
    calls = CatalogCalls(pipe.answer)
    start = asyncio.get_running_loop().create_task
    listening, sending = start(_listen(reader, updates, calls)), start(pipe.send())
    working = start(_work(settings, pipe, updates, calls, machine, stop))
    await asyncio.wait([listening, sending, working], return_when=asyncio.FIRST_COMPLETED)
    for task in (working, listening):
        if task.done() and (error := task.exception()) is not None:
            log.error("the table worker failed", reason=describe(error))
    return 0 if any(task.done() and task.exception() is None for task in (working, listening)) else 1


async def _listen(reader: asyncio.StreamReader, updates: asyncio.Queue[list[TableSpec]], calls: CatalogCalls) -> None:
    """Returns when the server is gone, whatever the tables are waiting for then."""
    while (message := await read_message(reader, FromServer)) is not None:
        if message.tables is not None:
            updates.put_nowait(message.tables)
        if message.call is not None:
            calls.receive(message.call)


async def _work(
    settings: WorkerSettings,
    pipe: Pipe,
    updates: asyncio.Queue[list[TableSpec]],
    calls: CatalogCalls,
    machine: WorkerMachine,
    stop: asyncio.Event,
) -> None:
    """Run the tables that the server lists, until `stop`. Raises the error that a table's task died of, and Fenced."""
    loop = asyncio.get_running_loop()
    stopping = loop.create_task(stop.wait())
    specs = await updates.get()
    opening = loop.create_task(_tools(settings, machine, specs, pipe.report, calls))
    await asyncio.wait([opening, stopping], return_when=asyncio.FIRST_COMPLETED)
    if not opening.done():
        return
    failed: asyncio.Future[BaseException] = loop.create_future()

    def fail(error: BaseException) -> None:
        if not failed.done():
            failed.set_result(error)

    def report(report: TableReport) -> None:
        pipe.report(report)
        if report.state == "fenced":  # another worker writes our tables: this process is a leftover
            loop.call_later(FENCED_PAUSE_S, fail, Fenced(report.message))

    peer = KafkaPeer(settings.bootstrap_host, settings.bootstrap_port, "streamlake-worker", REQUEST_TIMEOUT_S)
    work = Work(
        cluster_id=settings.cluster_id,
        reader=KafkaLogReader(peer),
        tools=opening.result(),
        budget=Budget(settings.memory_bytes),
        report=report,
        round_bytes=settings.round_bytes,
    )
    tables = Tables(work, lambda _name, error: fail(error))
    calls.open(IcebergRest(work.tools.catalog, tables, machine.requests))
    while True:
        await tables.apply(specs)
        next_update = loop.create_task(updates.get())
        waited: list[asyncio.Future[Any]] = [next_update, stopping, failed]
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if failed.done():
            raise failed.result()
        if stopping.done():
            await tables.close()  # waits for commits under way
            await calls.finish()
            return
        specs = next_update.result()


async def _tools(
    settings: WorkerSettings,
    machine: WorkerMachine,
    specs: list[TableSpec],
    report: Callable[[TableReport], None],
    calls: CatalogCalls,
) -> Tools:
    """Opens the catalog. While it cannot be reached, the tables report so and wait; the topics are not affected."""
    catalog = CatalogConfig(settings.catalog_kind, settings.catalog_name, settings.catalog_properties)
    while True:
        try:
            opened = await machine.executor.run(machine.load_catalog, catalog)
            break
        except Exception as error:  # what a catalog raises when it cannot be reached is its library's business
            reason = describe(error)
            log.warning("the catalog cannot be opened, retrying", catalog=catalog.name, reason=reason)
            message = f"the catalog {catalog.name} cannot be opened: {reason}"
            calls.failed(f"the catalog {catalog.name} cannot be opened: the server's log says why")
            for spec in specs:
                report(TableReport(spec.topic, spec.topic_id, spec.topic, "retrying", message))
            await asyncio.sleep(CATALOG_PAUSE_S)
    return Tools(opened, SchemaCache(machine.schemas(settings)), machine.executor, machine.clock, machine.ids)


async def _serve(control: socket.socket) -> int:
    """In a process of its own, until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    reader, writer = await asyncio.open_connection(sock=control, limit=LINE_BYTES_MAX)
    return await serve(
        reader, writer, RealWorkerMachine(), stop, lambda s: logs.configure(s.log_level, json=s.log_json)
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
