"""What our proxies have in common: a port of this machine, and its connections, on an event loop in a thread of its own."""

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from support.wait import DEADLINE_S

T = TypeVar("T")
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER of no seconds


class ProxyThread:
    """A subclass serves connections. `run` waits for work that is done on the thread."""

    def __init__(self, name: str) -> None:
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    def start(self) -> None:
        self._thread.start()
        self.up()

    def end(self) -> None:
        self.down()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def up(self) -> None:
        self.run(self._listen())

    def down(self) -> None:
        """Nobody listens any more, and every connection is reset."""
        self.run(self._drop())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(DEADLINE_S)

    # -- on the thread -------------------------------------------------------------------------------------------------

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client's connection."""
        raise NotImplementedError

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _drop(self) -> None:
        if self._server is None:
            return
        self._server.close()
        self._server = None
        tasks = list(self._connections)
        for task, writer in self._connections.items():
            reset(writer)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self.serve(reader, writer))
        self._connections[task] = writer
        task.add_done_callback(self._connections.pop)


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with a TCP reset, not in order."""
    connection: Any = writer.get_extra_info("socket")
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    except OSError:
        pass  # closed already
    writer.transport.abort()
