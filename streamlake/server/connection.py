"""One Kafka connection: the shell between a socket and the sans-IO parts (framing, requests, pipeline).

Bytes in → frames → requests, started in order by the pipeline's rules → handlers → answers out, in order. A client
that does not read, or sends faster than it is served, is not read from until it has caught up. While all connections
together hold too much memory, none of them starts a second request before the answer to its first one has left. Bytes
that are not Kafka close the connection with one logged reason; a handler that fails unexpectedly does too, and only its
own.

Made for many small requests: one that its handler can begin at once needs no task, answers of one turn of the loop
leave together, and a large frame is received into its own buffer.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, cast

import structlog

from streamlake.cluster.secret import Life
from streamlake.core.buffers import Buffers
from streamlake.core.errors import StreamLakeError
from streamlake.handlers.apis import Handler
from streamlake.handlers.context import Begin, Context
from streamlake.handlers.produce_runs import PendingReply, Runs
from streamlake.protocol.framing import FrameReader
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.pipeline import Pipeline, Slot
from streamlake.protocol.requests import Call, encode_response, parse
from streamlake.protocol.wire import Buffer, Malformed
from streamlake.server.memory import ConnectionMemory
from streamlake.telemetry.metric import Metric, counter, gauge

log = structlog.get_logger(__name__)

IN_FLIGHT_MAX = 256  # a run of Produce requests counts as one
HELD_BYTES_MAX = 64 * 1024 * 1024
# What a connection's send buffer may hold uncounted. Above it the socket is written to at once, and what it does not
# take counts as held until it is gone.
SEND_BUFFER_BYTES = 64 * 1024
CLOSE_TIMEOUT_S = 5.0
# Started in one turn of the loop, about a millisecond of it: a request costs as much as so many bytes of a large one.
TURN_WORK, REQUEST_WORK = 512 * 1024, 32 * 1024
# Where every connection receives what belongs to no frame under way: its bytes are copied out in the same callback. How
# much at once depends on the frames before: of small ones a good number, of medium ones some whole ones, which begin
# where they lie; of large ones little more than the head, because the rest can be received into a buffer of its own.
RECEIVED = memoryview(bytearray(512 * 1024))
OF_SMALL, OF_LARGE = RECEIVED[: 64 * 1024], RECEIVED[: 16 * 1024]
MEDIUM_BYTES, LARGE_BYTES = 32 * 1024, 256 * 1024
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

    def metrics(self) -> Iterable[Metric]:
        return (
            Metric("counter", "streamlake_requests", "Kafka requests received, by API.",
                lambda: [(count, {"api": api}) for api, count in list(self.requests.items())]),
            gauge("streamlake_connections", "Open Kafka connections.", lambda: self.connections),
            counter("streamlake_connections_accepted", "Kafka connections accepted.",
                lambda: self.connections_accepted),
            counter("streamlake_connections_refused",
                "Kafka connections refused because server.connections_max was reached.",
                lambda: self.connections_refused),
            counter("streamlake_requests_malformed",
                "Kafka connections closed because the client sent a malformed request.", lambda: self.malformed),
            counter("streamlake_requests_failed", "Requests that failed with an unexpected error.",
                lambda: self.failures),
            counter("streamlake_bytes_received", "Bytes received from Kafka clients.", lambda: self.bytes_in),
            counter("streamlake_bytes_sent", "Bytes sent to Kafka clients.", lambda: self.bytes_out),
        )  # fmt: skip


class Request:
    """One request, as its handler sees it (`Exchange` in handlers/context.py)."""

    __slots__ = (
        "api",
        "body",
        "client_host",
        "client_id",
        "connection",
        "correlation_id",
        "slot",
        "version",
        "work_bytes",
    )

    def __init__(self, call: Call, client_host: str, slot: Slot, connection: "Connection") -> None:
        self.api = call.api
        self.version = call.version
        self.correlation_id = call.correlation_id
        self.body = None if call.unknown_version else call.request
        self.client_id = call.client_id
        self.client_host = client_host
        self.slot = slot
        self.connection = connection
        self.work_bytes = 0

    @property
    def peer(self) -> Life | None:
        return self.connection.peer

    @peer.setter
    def peer(self, peer: Life | None) -> None:
        self.connection.peer = peer

    def release(self) -> None:
        if not self.slot.released:
            self.slot.release()
            self.connection.advance_soon()

    def thread_started(self) -> None:
        self.connection.thread_started()

    def thread_ended(self) -> None:
        self.connection.thread_ended()

    def answer(self, response: Any) -> None:
        try:
            buffers = None if response is None else encode_response(self, response)
            self.connection.finish(self.slot, buffers)
        except Exception as error:
            self.fail(error)

    def fail(self, error: Exception) -> None:
        self.connection.fail(self.slot, error, api=self.api.name, version=self.version)


class Connection(asyncio.BufferedProtocol):
    def __init__(
        self,
        ctx: Context,
        handlers: Mapping[int, Handler],
        frame_bytes_max: int,
        counters: Counters,
        group: "dict[Connection, None]",
        memory: ConnectionMemory,
        buffers: Buffers | None = None,
    ) -> None:
        self._ctx = ctx
        self._handlers = handlers
        self._apis = {key: handler.api for key, handler in handlers.items()}
        produce = handlers.get(ApiKey.PRODUCE)
        runs = produce.runs if produce is not None else None
        self._runs = runs(ctx, self._apis, frame_bytes_max) if runs is not None else None
        self._frames = FrameReader(frame_bytes_max, buffers)
        self._pipeline = Pipeline(IN_FLIGHT_MAX, HELD_BYTES_MAX, memory)
        self._counters = counters
        self._group = group
        self._memory = memory
        self._polls: dict[asyncio.Task[None], None] = {}
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._loop = asyncio.get_running_loop()  # asked for once: before Python 3.12 each asking is a system call
        self._transport: asyncio.Transport | None = None
        self.peer: Life | None = None
        self._host = ""
        self._reading = True
        self._writable = True
        self._draining = False
        self._ended = False  # the client sends no more
        self._in_thread = False  # a thread works on the request that the next one waits for
        self._advancing = False
        self._advance_later = False
        self._direct = False  # the socket's next bytes go into a frame's own buffer
        self._window = OF_SMALL  # where they go else

    @property
    def idle(self) -> bool:
        """No request is under way but those that only wait for others."""
        return self._pipeline.idle

    @property
    def _may_start(self) -> bool:
        is_open = self._transport is not None and not self._transport.is_closing()
        return is_open and self._pipeline.may_start and not self._draining

    def drain(self) -> None:
        """Start no further request; those under way are finished and answered."""
        self._draining = True
        self.advance()

    # -- what asyncio calls ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own class is none by inheritance
        self._transport.set_write_buffer_limits(high=SEND_BUFFER_BYTES)
        peer = transport.get_extra_info("peername")
        self._host = str(peer[0]) if peer else ""
        self._counters.connections += 1
        self._counters.connections_accepted += 1
        self._group[self] = None

    def get_buffer(self, sizehint: int) -> memoryview:
        room = self._frames.room()
        self._direct = room is not None
        return self._window if room is None else room

    def buffer_updated(self, nbytes: int) -> None:
        self._counters.bytes_in += nbytes
        if self._direct:
            self._frames.filled(nbytes)
            self.advance_soon()  # to receive so much is a turn's work, and to check and copy it another's
        else:
            self.advance(nbytes)

    def eof_received(self) -> bool:
        """A producer that needs no answers sends its last requests and closes: they are begun all the same. But what
        would have to wait for others is not: a client that has given up, and sends its records again elsewhere, must
        not find them twice when there is room again."""
        self._ended = True
        self.advance_soon()
        return True  # it is closed when that is done

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._pipeline.sent()
        self.advance()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._counters.connections -= 1
        self._group.pop(self, None)
        self._memory.forget(self.advance_soon)
        self._pipeline.close()
        for task in list(self._polls):
            task.cancel()

    # -- the order of things -----------------------------------------------------------------------------------------

    def advance_soon(self) -> None:
        """In the loop's next turn, so that all that becomes ready in this one leaves in one write."""
        if not self._advancing and not self._advance_later:
            self._advance_later = True
            self._loop.call_soon(self._advance_now)

    def _advance_now(self) -> None:
        self._advance_later = False
        self.advance()

    def advance(self, received: int = 0) -> None:
        """Send what is ready, start what may start, read or stop reading; so many bytes are new in RECEIVED."""
        self._advancing = True
        more = False
        try:
            more = self._turn(self._take(received) if received else 0)
        except StreamLakeError as error:
            self._counters.malformed += 1
            log.warning("connection closed: unreadable request", client=self._host, reason=str(error))
            self.close()
        except Exception as error:  # what was begun half is not begun again: nothing more begins on this connection
            self._close_after(error)
        finally:
            self._advancing = False
        if more:
            self.advance_soon()

    def _take(self, size: int) -> int:
        """What was received: requests that share their head begin where they lie, the rest is copied. The work."""
        at = work = 0
        if self._runs is not None and not self._frames.buffered_bytes:
            while at < size and work < TURN_WORK and self._may_start:
                if (begun := self._begin_run(self._runs, RECEIVED, at, size)) is None:
                    break
                at += begun.size_bytes
                work += REQUEST_WORK + begun.work_bytes
                self._window = _window(begun.size_bytes // begun.count)
        if at < size:
            self._frames.feed(bytes(RECEIVED[at:size]))
        return work

    def _turn(self, work: int) -> bool:
        """True if there may be more to start, in another turn: other connections have theirs in between. So much work
        was done in this one."""
        transport, pipeline = self._transport, self._pipeline
        while transport is not None and not transport.is_closing():
            if self._writable and (ready := pipeline.take_ready()):
                self._counters.bytes_out += sum(map(len, ready))
                transport.writelines(ready)
                if self._writable:
                    pipeline.sent()
            frame = None  # of the turn before: its buffer is free when the request is
            if self._frames.buffered_bytes and work < TURN_WORK and pipeline.may_start and not self._draining:
                if begun := self._begin_chunk():
                    work += REQUEST_WORK + begun.work_bytes
                    continue
                frame = self._frames.next_frame()
            if frame is None:
                if work >= TURN_WORK:
                    return True
                if pipeline.buffered_bytes != self._frames.buffered_bytes:
                    pipeline.buffer(self._frames.buffered_bytes)
                    continue  # what was counted as waiting may have been in its own way
                if not self._ended:
                    self._read_or_not(transport)
                elif not self._in_thread:
                    self.close()
                return False
            _check_size(frame)
            self._window = _window(len(frame))
            work += REQUEST_WORK + len(frame) + self._begin(parse(self._apis, frame), len(frame))
        return False

    def _read_or_not(self, transport: asyncio.Transport) -> None:
        may_read = not self._draining and self._pipeline.may_read
        if not may_read and self._memory.is_full:
            self._memory.when_free(self.advance_soon)
            if self._reading:
                self._memory.pauses += 1
        if may_read != self._reading:
            self._reading = may_read
            transport.resume_reading() if may_read else transport.pause_reading()

    def _begin(self, call: Call, request_bytes: int) -> int:
        """Returns the work beyond its size that was done for it at once."""
        name, handler = call.api.name, self._handlers[call.api.key]
        slot = self._pipeline.begin(request_bytes)
        request = Request(call, self._host, slot, self)
        requests = self._counters.requests
        requests[name] = requests.get(name, 0) + 1
        if handler.begin is not None and self._has_begun(handler.begin, request):
            return request.work_bytes
        slot.may_be_abandoned = handler.abandon
        task = self._loop.create_task(self._serve(handler, request))
        tasks = self._polls if handler.abandon else self._tasks
        tasks[task] = None
        task.add_done_callback(tasks.pop)
        return request.work_bytes

    def _begin_chunk(self) -> PendingReply | None:
        """The next requests of what was copied, if they share their head."""
        if self._runs is None or (chunk := self._frames.chunk()) is None:
            return None
        received, at = chunk
        if begun := self._begin_run(self._runs, received, at, len(received)):
            self._frames.skip(begun.size_bytes)
        return begun

    def _begin_run(self, runs: Runs, received: bytes | memoryview, at: int, end: int) -> PendingReply | None:
        """The requests that were begun, when one may start; None: the next frame goes the ordinary way."""
        if (begun := runs.begin(received, at, end)) is None:
            return None
        requests = self._counters.requests
        requests["produce"] = requests.get("produce", 0) + begun.count
        begun.reply_to(self, self._pipeline.begin(begun.size_bytes, release=True))
        return begun

    def thread_started(self) -> None:
        self._in_thread = True

    def thread_ended(self) -> None:
        self._in_thread = False
        self.advance_soon()

    def _has_begun(self, begin: Begin, request: Request) -> bool:
        try:
            return begin(self._ctx, request)
        except Exception as error:
            request.fail(error)
            return True

    async def _serve(self, handler: Handler, request: Request) -> None:
        try:
            response = await handler.handle(self._ctx, request)
        except Exception as error:
            request.fail(error)
        else:
            request.answer(response)

    def finish(self, slot: Slot, buffers: list[Buffer] | None) -> None:
        """The one end of what was begun: its answers, None if it has none."""
        slot.finish(buffers)
        # At once if no other answer could leave with this one: a turn of the loop costs as much as a small request. But
        # not before a turn that is due: it would come before the first step of a task that begins here, and take it
        # for one that waits.
        if self._pipeline.is_alone and not (self._advancing or self._advance_later):
            self.advance()
        else:
            self.advance_soon()

    def fail(self, slot: Slot, error: Exception, **facts: str | int) -> None:
        """Instead of `finish`: something that must not happen. Nothing is answered any more."""
        self._close_after(error, **facts)
        if not slot.finished:
            slot.finish(None)

    def _close_after(self, error: Exception, **facts: str | int) -> None:
        self._counters.failures += 1
        log.error("connection closed: a request failed", **facts, exc_info=error)
        self.close()

    def close(self) -> None:
        """What was sent already still leaves; a client that does not read it cannot keep its place for ever."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.close()
            self._loop.call_later(CLOSE_TIMEOUT_S, self._abort)

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _window(frame_bytes: int) -> memoryview:
    """Where to receive what comes after a frame of that size."""
    if frame_bytes < MEDIUM_BYTES:
        return OF_SMALL
    return RECEIVED if frame_bytes < LARGE_BYTES else OF_LARGE


def _check_size(frame: Buffer) -> None:
    if len(frame) > OTHER_REQUEST_BYTES_MAX and frame[:2] != PRODUCE_KEY:
        raise Malformed(f"a request of {len(frame)} bytes: only Produce may be over {OTHER_REQUEST_BYTES_MAX}")
