"""One Kafka connection: the shell between a socket and the sans-IO parts (framing, requests, pipeline).

Bytes in → frames → requests, started in order by the pipeline's rules → handlers → answers out, in order. A client
that does not read, or sends faster than it is served, is not read from until it has caught up. Bytes that are not
Kafka close the connection with one logged reason; a handler that fails unexpectedly does too, and only its own.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import structlog

from streamlake.core.errors import StreamLakeError
from streamlake.handlers.apis import Handler
from streamlake.handlers.context import Context
from streamlake.protocol.framing import FrameReader
from streamlake.protocol.pipeline import Pipeline, Slot
from streamlake.protocol.requests import Call, encode_response, parse
from streamlake.protocol.wire import Buffer, Malformed

log = structlog.get_logger(__name__)

IN_FLIGHT_MAX = 256
HELD_BYTES_MAX = 64 * 1024 * 1024
WRITE_BUFFER_BYTES = 1024 * 1024
CLOSE_TIMEOUT_S = 5.0
PRODUCE_KEY = b"\0\0"
# Decoding costs up to 0.4 s of the loop a MiB when a hostile frame is nothing but tiny elements. Only Produce, whose
# bytes are records, has a reason to be larger.
OTHER_REQUEST_BYTES_MAX = 8 * 1024 * 1024


class Counters:
    """Of all connections; plain integers, read at scrape time."""

    def __init__(self) -> None:
        self.connections = 0
        self.connections_accepted = 0
        self.connections_refused = 0
        self.malformed = 0
        self.failures = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.requests: dict[str, int] = {}


@dataclass(slots=True)
class Exchange:
    """A request as its handler sees it (handlers/context.py)."""

    version: int
    body: Any
    client_id: str | None
    client_host: str
    slot: Slot
    connection: "Connection"

    def release(self) -> None:
        if not self.slot.released:
            self.slot.release()
            self.connection.advance()


class Connection(asyncio.Protocol):
    def __init__(
        self,
        ctx: Context,
        handlers: Mapping[int, Handler],
        frame_bytes_max: int,
        counters: Counters,
        group: "dict[Connection, None]",
    ) -> None:
        self._ctx = ctx
        self._handlers = handlers
        self._apis = {key: handler.api for key, handler in handlers.items()}
        self._frames = FrameReader(frame_bytes_max)
        self._pipeline = Pipeline(IN_FLIGHT_MAX, HELD_BYTES_MAX)
        self._counters = counters
        self._group = group
        self._polls: dict[asyncio.Task[None], None] = {}
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._transport: asyncio.Transport | None = None
        self._host = ""
        self._reading = True
        self._writable = True
        self._draining = False

    @property
    def idle(self) -> bool:
        """No request is under way but those that only wait for others."""
        return not self._tasks

    def drain(self) -> None:
        """Start no further request; those under way are finished and answered."""
        self._draining = True
        self.advance()

    # -- what asyncio calls ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own class is none by inheritance
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        peer = transport.get_extra_info("peername")
        self._host = str(peer[0]) if peer else ""
        self._counters.connections += 1
        self._counters.connections_accepted += 1
        self._group[self] = None

    def data_received(self, data: bytes) -> None:
        self._counters.bytes_in += len(data)
        self._frames.feed(data)
        self.advance()

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self.advance()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._counters.connections -= 1
        self._group.pop(self, None)
        for task in list(self._polls):
            task.cancel()

    # -- the order of things -----------------------------------------------------------------------------------------

    def advance(self) -> None:
        """Send what is ready, start what may start, read or stop reading."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if self._writable and (ready := self._pipeline.take_ready()):
            self._counters.bytes_out += sum(map(len, ready))
            transport.writelines(ready)
        try:
            while not self._draining and self._pipeline.may_start and (frame := self._frames.next_frame()) is not None:
                _check_size(frame)
                call = parse(self._apis, frame)
                self._begin(call, self._pipeline.begin(len(frame)))
        except StreamLakeError as error:
            self._counters.malformed += 1
            log.warning("connection closed: unreadable request", client=self._host, reason=str(error))
            self.close()
            return
        may_read = not self._draining and self._pipeline.may_read(self._frames.buffered_bytes)
        if may_read != self._reading:
            self._reading = may_read
            transport.resume_reading() if may_read else transport.pause_reading()

    def _begin(self, call: Call, slot: Slot) -> None:
        handler = self._handlers[call.api.key]
        body = None if call.unknown_version else call.request
        exchange = Exchange(call.version, body, call.client_id, self._host, slot, self)
        self._counters.requests[call.api.name] = self._counters.requests.get(call.api.name, 0) + 1
        task = asyncio.get_running_loop().create_task(self._serve(handler, call, exchange))
        tasks = self._polls if handler.abandon else self._tasks
        tasks[task] = None
        task.add_done_callback(tasks.pop)

    async def _serve(self, handler: Handler, call: Call, exchange: Exchange) -> None:
        try:
            response = await handler.handle(self._ctx, exchange)
            buffers = None if response is None else encode_response(call, response)
        except Exception as error:
            self._counters.failures += 1
            log.error("connection closed: a request failed", api=call.api.name, version=call.version, exc_info=error)
            self.close()
            return
        exchange.slot.finish(buffers)
        self.advance()

    def close(self) -> None:
        """What was sent already still leaves; a client that does not read it cannot keep its place for ever."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.close()
            asyncio.get_running_loop().call_later(CLOSE_TIMEOUT_S, self._abort)

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _check_size(frame: Buffer) -> None:
    if len(frame) > OTHER_REQUEST_BYTES_MAX and frame[:2] != PRODUCE_KEY:
        raise Malformed(f"a request of {len(frame)} bytes: only Produce may be over {OTHER_REQUEST_BYTES_MAX}")
