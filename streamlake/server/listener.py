"""The Kafka port: accepts connections up to a limit, and drains them at the end."""

import asyncio
import socket
from collections.abc import Sequence

import structlog

from streamlake.core import sockets
from streamlake.core.buffers import Buffers
from streamlake.handlers.apis import Handler
from streamlake.handlers.context import Context
from streamlake.server.connection import Connection, Counters
from streamlake.server.memory import ConnectionMemory

log = structlog.get_logger(__name__)

SPARE_BYTES_MAX = 16 << 20  # of buffers for large requests, all connections together
BACKLOG = 512


class Listener:
    """Serves on a socket of `bind`, from `start` on."""

    def __init__(self, bound: socket.socket, connections_max: int, frame_bytes_max: int) -> None:
        self.counters = Counters()
        self._connections_max = connections_max
        self._frame_bytes_max = frame_bytes_max
        self._connections: dict[Connection, None] = {}  # in order, so that a simulated stop is repeatable
        self._server: asyncio.Server | None = None
        self._socket = bound
        self._buffers = Buffers(SPARE_BYTES_MAX)

    @property
    def port(self) -> int:
        return int(self._socket.getsockname()[1])

    async def start(self, ctx: Context, handlers: Sequence[Handler], memory: ConnectionMemory) -> None:
        """`memory`: of the requests and answers of all connections."""
        by_key = {handler.api.key: handler for handler in handlers}

        def accept() -> asyncio.BaseProtocol:
            if len(self._connections) >= self._connections_max:
                return _Refused(self.counters)
            group, buffers = self._connections, self._buffers
            return Connection(ctx, by_key, self._frame_bytes_max, self.counters, group, memory, buffers)

        self._server = await asyncio.get_running_loop().create_server(accept, sock=self._socket)

    def close(self) -> None:
        """Free the port."""
        self._socket.close()

    async def stop(self, timeout_s: float) -> None:
        """Accept and start nothing more; let running requests finish for `timeout_s` at most; close."""
        if self._server is None:
            return
        self._server.close()
        for connection in list(self._connections):
            connection.drain()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while any(not c.idle for c in self._connections) and loop.time() < deadline:  # noqa: ASYNC110 - once in a life
            await asyncio.sleep(0.01)
        for connection in list(self._connections):
            connection.close()
        await asyncio.sleep(0)  # transports close in the loop's next turn


def bind(host: str, port: int) -> socket.socket:
    """Invalid, Unavailable."""
    return sockets.bind(host, port, "Kafka", "server.host (--host)", "server.port (--port)", BACKLOG)


class _Refused(asyncio.Protocol):
    """Over the limit: closed at once, so that the client tries again later."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._counters.connections_refused += 1
        if self._counters.connections_refused % 1000 == 1:
            log.warning(
                "connection refused: server.connections_max reached", refused=self._counters.connections_refused
            )
        transport.close()
