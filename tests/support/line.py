"""A connection whose other end is the test, fed by hand, and a handler that answers when the test says so."""

import asyncio

from support.deliver import deliver
from support.wire_stub import FakeTransport, Script, echo, handlers, numbers

from streamlake.handlers.apis import Handler
from streamlake.handlers.context import Exchange
from streamlake.protocol.messages.heartbeat import HeartbeatResponse
from streamlake.server.connection import Connection, Counters
from streamlake.server.memory import ConnectionMemory

FRAME_BYTES_MAX = 1000


class Line:
    """A connection whose other end is the test."""

    def __init__(
        self,
        script: Script = echo,
        *,
        abandon: bool = False,
        served: list[Handler] | None = None,
        memory: ConnectionMemory | None = None,
        transport: FakeTransport | None = None,
    ) -> None:
        self.counters = Counters()
        self.group: dict[Connection, None] = {}
        self.transport = transport or FakeTransport()
        by_key = {h.api.key: h for h in served or handlers(script, abandon=abandon)}
        memory = memory or ConnectionMemory(1 << 30)
        self.connection = Connection(None, by_key, FRAME_BYTES_MAX, self.counters, self.group, memory)
        self.connection.connection_made(self.transport)

    def feed(self, *parts: bytes) -> None:
        for part in parts:
            if not self.transport.closed:
                deliver(self.connection, part)

    async def answers(self) -> list[int]:
        """After everything that can run has run."""
        await settle()
        return numbers(self.transport.sent)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


class Gate:
    """A script whose requests wait until the test opens them, one by one."""

    def __init__(self, *, release: bool = False) -> None:
        self.started: list[int] = []
        self._release = release
        self._gates: dict[int, asyncio.Future[None]] = {}

    async def __call__(self, number: int, exchange: Exchange) -> HeartbeatResponse:
        self.started.append(number)
        self._gates[number] = asyncio.get_running_loop().create_future()
        if self._release:
            exchange.release()
        await self._gates[number]
        return HeartbeatResponse(throttle_time_ms=number)

    def open(self, *which: int) -> None:
        for number in which:
            self._gates[number].set_result(None)

    def cancelled(self, number: int) -> bool:
        return self._gates[number].cancelled()
