"""The table worker's composition root: `python -m streamlake.worker FD`, started by the server only.

FD is one end of a socket pair. The first line that comes over it says where everything is, then come the tables; what
goes back are reports. When the pair closes the server is gone, and the worker exits at once: it holds nothing that
could not be translated again from the log, and an orphan would only race its successor.
"""

import asyncio
import os
import signal
import socket
import sys

import pyarrow
import structlog

from streamlake.catalogs.config import CatalogConfig
from streamlake.catalogs.load import load
from streamlake.core.budget import Budget
from streamlake.core.clock import SystemClock
from streamlake.core.errors import Unavailable
from streamlake.core.ids import Ids
from streamlake.core.tasks import ThreadExecutor
from streamlake.peers.kafka import KafkaPeer
from streamlake.peers.log_reader import KafkaLogReader
from streamlake.peers.schema_source import HttpSchemaSource
from streamlake.table.control import (
    LINE_BYTES_MAX,
    FromServer,
    FromWorker,
    TableReport,
    WorkerSettings,
    encode,
    read_message,
)
from streamlake.table.resolve import SchemaCache
from streamlake.table.tables import Tables
from streamlake.table.task import Work
from streamlake.table.topic_table import Tools
from streamlake.telemetry import log as logs

log = structlog.get_logger(__name__)

REQUEST_TIMEOUT_S = 60.0
NICENESS = 5  # the broker's answers come first
THREADS = 4  # one table's upload need not wait for another's translation
CATALOG_PAUSE_S = 2.0


class Pipe:
    """Reports to the server. The latest report of a table replaces one that was not sent yet: it says everything."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._waiting: dict[str, TableReport] = {}
        self._wake = asyncio.Event()

    def report(self, report: TableReport) -> None:
        self._waiting[str(report.topic_id)] = report
        self._wake.set()

    async def send(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            waiting, self._waiting = self._waiting, {}
            for report in waiting.values():
                self._writer.write(encode(FromWorker(report)))
            await self._writer.drain()


async def _serve(fd: int) -> int:
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=fd), limit=LINE_BYTES_MAX)
    settings = await read_message(reader, WorkerSettings)
    if settings is None:
        return 1
    logs.configure(settings.log_level, json=settings.log_json)
    loop = asyncio.get_running_loop()
    pipe = Pipe(writer)
    sending = loop.create_task(pipe.send())
    peer = KafkaPeer(settings.bootstrap_host, settings.bootstrap_port, "streamlake-worker", REQUEST_TIMEOUT_S)
    failed = loop.create_future()
    tables = Tables(
        Work(
            cluster_id=settings.cluster_id,
            reader=KafkaLogReader(peer),
            tools=await _tools(settings),
            budget=Budget(settings.memory_bytes),
            report=pipe.report,
            round_bytes=settings.round_bytes,
        ),
        lambda name, error: None if failed.done() else failed.set_result(error),
    )
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    stopping = loop.create_task(stop.wait())
    while True:
        reading = loop.create_task(read_message(reader, FromServer))
        await asyncio.wait([reading, stopping, failed, sending], return_when=asyncio.FIRST_COMPLETED)
        if failed.done() or sending.done():
            return 1
        if stopping.done():
            await tables.close()  # waits for commits under way
            return 0
        message = reading.result()
        if message is None:
            return 0
        await tables.apply(message.tables)


async def _tools(settings: WorkerSettings) -> Tools:
    """Opens the catalog; while it cannot be reached, tables wait and the topics do not notice."""
    ids = Ids()
    executor = ThreadExecutor("table", THREADS)
    catalog = CatalogConfig(settings.catalog_kind, settings.catalog_name, settings.catalog_properties)
    while True:
        try:
            opened = await executor.run(load, catalog)
            break
        except Exception as error:  # what a catalog raises when it cannot be reached is its library's business
            log.warning("the catalog cannot be opened, trying again", catalog=catalog.name, reason=str(error))
            await asyncio.sleep(CATALOG_PAUSE_S)
    return Tools(opened, SchemaCache(HttpSchemaSource(settings.registry_url)), executor, SystemClock(), ids)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the server tells us when to stop
    os.nice(NICENESS)
    pyarrow.set_cpu_count(1)  # tables share the machine with the broker
    if len(sys.argv) != 2 or not sys.argv[1].isdigit():
        raise Unavailable("this is started by the server: run `streamlake server`")
    code = asyncio.run(_serve(int(sys.argv[1])))
    sys.stderr.flush()
    os._exit(code)  # not sys.exit: a thread that waits for a hung catalog must not keep an orphan alive


if __name__ == "__main__":
    main()
