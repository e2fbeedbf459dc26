"""A TCP link to a server that can be parted: bytes go through as they are, until `part`, and again after `join`.

Parted `silently`, connections stay, and what is sent on them arrives when the link is joined again, as TCP would have it
after a network came back. Else they are reset, and new ones are refused. Runs on a thread of its own.
"""

import asyncio
from pathlib import Path
from typing import TypeVar

from support.proxy_thread import ProxyThread, reset

T = TypeVar("T")
CHUNK_BYTES = 1 << 18  # read and not yet passed on, for each direction of a connection
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Link(ProxyThread):
    def __init__(self, upstream: tuple[str, int] | Path) -> None:
        """`upstream`: host and port, or a Unix socket."""
        super().__init__("link")
        self._upstream = upstream
        self._passing = asyncio.Event()
        self._passing.set()
        self.start()

    def part(self, *, silently: bool) -> None:
        if silently:
            self.run(self._pass(False))
        else:
            self.down()

    def join(self) -> None:
        self.run(self._pass(True))
        self.up()

    # -- on the thread -------------------------------------------------------------------------------------------------

    async def _pass(self, passing: bool) -> None:
        self._passing.set() if passing else self._passing.clear()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client's connection, and one to the server that goes with it. When one side ends, so does the other."""
        client = reader, writer
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
