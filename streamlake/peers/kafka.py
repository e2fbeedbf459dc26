"""One connection to a Kafka server, ours or another: typed requests in, typed answers out.

Requests are pipelined and matched with their answers by order and correlation id. The connection is opened at the first
call, and again at the first call after it was lost. Nothing is retried and nothing routed: callers know what may be
asked twice. No TLS, no SASL.

As in Kafka's own client a request that gets no answer in time closes the connection: all that were in flight fail with
Unavailable. Such a request may have been carried out, so after a write the caller reads back before it writes again.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self, cast

from msgspec import Struct

from streamlake.core.errors import Closed, Full, Invalid, StreamLakeError, Unavailable
from streamlake.protocol.broker_messages import BrokerKey
from streamlake.protocol.framing import FrameReader
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.requests import Api, api, correlation_id_of, decode_response, encode_request
from streamlake.protocol.wire import Buffer, Malformed

MAX_RESPONSE_BYTES = 128 << 20
MAX_IN_FLIGHT = 64


class KafkaPeer:
    def __init__(
        self,
        host: str,
        port: int,
        client_id: str,
        request_timeout_s: float,
        *,
        max_response_bytes: int = MAX_RESPONSE_BYTES,
        max_in_flight: int = MAX_IN_FLIGHT,
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_lost`: called when the server has ended a connection."""
        self.address = f"{host}:{port}"
        self._host = host
        self._port = port
        self._client_id = client_id
        self._request_timeout_s = request_timeout_s
        self._max_response_bytes = max_response_bytes
        self._max_in_flight = max_in_flight
        self._on_lost = on_lost
        self._apis: dict[int, Api] = {}
        self._connection: Connection | None = None
        self._connecting = asyncio.Lock()
        self._closed = False

    async def call(self, key: ApiKey | BrokerKey, request: Struct, max_version: int) -> Any:
        """The answer to `request`, in the newest version that both sides know, at most `max_version`.

        `max_version` is the newest version whose meaning the caller has in mind: fields that it does not have are not
        sent. `records` of a Fetch answer are views of the received frame.

        Unavailable (connection refused, lost or silent), Invalid (no common version), Full (too many in flight),
        Malformed (not an answer), Closed.
        """
        found = self._apis.get(key) or self._apis.setdefault(key, api(key))
        connection: Connection | None = None
        try:
            async with asyncio.timeout(self._request_timeout_s):
                connection = await self._connected()
                version = connection.version_of(found, max_version)
                return await connection.call(found, version, request)
        except TimeoutError:
            silent = Unavailable(
                f"{self.address} did not answer {found.name} within {self._request_timeout_s:g} s: is it overloaded?"
            )
            if connection:
                connection.abort(silent)
            raise silent from None

    async def _connected(self) -> "Connection":
        async with self._connecting:
            if self._closed:
                raise self._closed_error()
            if self._connection is None or self._connection.lost:
                self._connection = await self._connect()
            return self._connection

    async def _connect(self) -> "Connection":
        connection = Connection(
            self.address, self._client_id, self._max_response_bytes, self._max_in_flight, self._on_lost
        )
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: connection, self._host, self._port)
            await self.greet(connection)
        except OSError as error:
            raise Unavailable(f"cannot connect to {self.address}: {error}") from error
        except BaseException:
            connection.abort(Unavailable(f"the handshake with {self.address} was given up"))
            raise
        if self._closed:
            connection.abort(self._closed_error())
            raise self._closed_error()
        return connection

    async def greet(self, connection: "Connection") -> None:
        """Begin a new connection."""
        await connection.handshake()

    async def close(self) -> None:
        """Drop the connection; calls in flight fail with Closed."""
        self._closed = True
        if self._connection:
            self._connection.abort(self._closed_error())

    def _closed_error(self) -> Closed:
        return Closed(f"the client of {self.address} is closed")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


@dataclass(frozen=True, slots=True)
class _InFlight:
    api: Api
    version: int
    correlation_id: int
    answer: "asyncio.Future[Any]"


class Connection(asyncio.Protocol):
    """`served`: the versions of each API that the server knows, once it was greeted."""

    def __init__(
        self,
        address: str,
        client_id: str,
        max_response_bytes: int,
        max_in_flight: int,
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        self.lost = False
        self._on_lost = on_lost
        self._address = address
        self._client_id = client_id
        self._reader = FrameReader(max_response_bytes)
        self._max_in_flight = max_in_flight
        self._in_flight: deque[_InFlight] = deque()
        self._next_correlation_id = 0
        self.served: dict[int, range] = {}
        self._transport: asyncio.Transport | None = None
        self._reason: StreamLakeError | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    async def handshake(self) -> None:
        """Learn what the server serves. ApiVersions version 0 is what every server answers."""
        versions = api(ApiKey.API_VERSIONS)
        answer = await self.call(versions, 0, versions.request())
        if answer.error_code:
            raise Unavailable(f"{self._address} refused the handshake with code {answer.error_code}")
        self.served = {served.api_key: range(served.min_version, served.max_version + 1) for served in answer.api_keys}

    def version_of(self, found: Api, max_version: int) -> int:
        served = self.served.get(found.key)
        if not served:
            raise Invalid(f"{self._address} does not serve {found.name}")
        lowest = max(found.versions[0], served[0])
        newest = min(found.versions[-1], served[-1], max_version)
        if newest < lowest:
            raise Invalid(
                f"{found.name}: {self._address} serves the versions {served[0]} to {served[-1]}, "
                f"we know {found.versions[0]} to {min(found.versions[-1], max_version)}"
            )
        return newest

    async def call(self, found: Api, version: int, request: Struct) -> Any:
        await self._writable.wait()
        if self.lost or self._transport is None:
            raise self._why()
        if len(self._in_flight) >= self._max_in_flight:
            raise Full(f"{len(self._in_flight)} requests wait for answers of {self._address}: wait for some of them")
        correlation_id = self._next_correlation_id
        frame = encode_request(found, version, correlation_id, self._client_id, request)
        self._next_correlation_id = (correlation_id + 1) & 0x7FFFFFFF
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._in_flight.append(_InFlight(found, version, correlation_id, answer))
        self._transport.writelines(frame)
        return await answer

    def abort(self, reason: StreamLakeError) -> None:
        """Drop the connection now; what is in flight fails with `reason`."""
        self._fail(reason)
        if self._transport:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.lost:
            self._fail(Unavailable(f"{self._address} closed the connection" + (f": {exc}" if exc else "")))
            self._on_lost()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        if self.lost:
            return
        self._reader.feed(data)
        try:
            while (frame := self._reader.next_frame()) is not None:
                self._answered(frame)
        except Malformed as error:
            self.abort(error)

    def _answered(self, frame: Buffer) -> None:
        correlation_id = correlation_id_of(frame)
        if not self._in_flight or self._in_flight[0].correlation_id != correlation_id:
            raise Malformed(f"{self._address} answered request {correlation_id}, which is not the next to be answered")
        first = self._in_flight[0]
        if not first.answer.done():  # its caller may have stopped waiting
            first.answer.set_result(decode_response(first.api, first.version, frame))
        self._in_flight.popleft()

    def _fail(self, reason: StreamLakeError) -> None:
        if self.lost:
            return
        self.lost = True
        self._reason = reason
        self._writable.set()
        while self._in_flight:
            answer = self._in_flight.popleft().answer
            if not answer.done():
                answer.set_exception(reason)

    def _why(self) -> StreamLakeError:
        return self._reason or Unavailable(f"there is no connection to {self._address}")
