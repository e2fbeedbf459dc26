"""A TCP link to a server that can be parted: bytes go through as they are, until `part`, and again after `join`.

Parted `silently`, connections stay, and what is sent on them arrives when the link is joined again, as TCP would have it
after a network came back. Else they are reset, and new ones are refused. Runs on a thread of its own.
"""

import asyncio
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from support.fault_proxy import reset
from support.wait import DEADLINE_S

T = TypeVar("T")
CHUNK_BYTES = 1 << 18  # read and not yet passed on, for each direction of a connection
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Link:
    def __init__(self, upstream: tuple[str, int] | Path) -> None:
        """`upstream`: host and port, or a Unix socket."""
        self._upstream = upstream
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="link", daemon=True)
        self._thread.start()
        self._passing = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self.port = 0
        self._run(self._join())

    def part(self, *, silently: bool) -> None:
        self._run(self._part(silently))

    def join(self) -> None:
        self._run(self._join())

    def close(self) -> None:
        self._run(self._part(False))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # -- on the thread -------------------------------------------------------------------------------------------------

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(DEADLINE_S)

    async def _join(self) -> None:
        self._passing.set()
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _part(self, silently: bool) -> None:
        if silently:
            self._passing.clear()
            return
        if self._server is not None:
            self._server.close()
            self._server = None
        tasks = list(self._connections)
        for task, writer in self._connections.items():
            reset(writer)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self._serve((reader, writer)))
        self._connections[task] = writer
        task.add_done_callback(self._connections.pop)

    async def _serve(self, client: Streams) -> None:
        """One client's connection, and one to the server that goes with it. When one side ends, so does the other."""
        server: Streams | None = None
        pumps: list[asyncio.Task[None]] = []
        try:
            await self._passing.wait()
            server = await self._connect()
            ways = ((client[0], server[1]), (server[0], client[1]))
            pumps = [self._loop.create_task(self._pump(reader, writer)) for reader, writer in ways]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        except OSError:
            reset(client[1])
        finally:
            for pump in pumps:
                pump.cancel()
            client[1].close()
            if server is not None:
                server[1].close()

    async def _connect(self) -> Streams:
        if isinstance(self._upstream, Path):
            return await asyncio.open_unix_connection(str(self._upstream))
        return await asyncio.open_connection(*self._upstream)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(CHUNK_BYTES):
                await self._passing.wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            pass  # the other side is told by the end of this connection
