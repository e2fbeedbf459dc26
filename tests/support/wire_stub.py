"""Handlers that a test scripts, and a socket that it looks into, for tests of the server's side of a connection.

The API is Heartbeat: a request's `generation_id` numbers it and comes back as the answer's `throttle_time_ms`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import Struct
from support.wire import encoded

from streamlake.handlers.apis import Handler
from streamlake.handlers.context import Exchange
from streamlake.protocol.framing import FrameReader
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.heartbeat import HeartbeatRequest, HeartbeatResponse
from streamlake.protocol.requests import api, decode_response

VERSION = 4
Script = Callable[[int, Exchange], Awaitable[Struct | None]]


def handlers(script: Script, *, abandon: bool = False) -> list[Handler]:
    """`script` is given a request's number and its exchange."""

    async def handle(_ctx: Any, exchange: Exchange) -> Struct | None:
        return await script(exchange.body.generation_id, exchange)

    return [Handler(api(ApiKey.HEARTBEAT), handle, abandon)]


async def echo(number: int, _exchange: Exchange) -> HeartbeatResponse:
    return HeartbeatResponse(throttle_time_ms=number)


def request(number: int, text: str = "") -> bytes:
    return encoded(ApiKey.HEARTBEAT, VERSION, HeartbeatRequest(group_id=text, generation_id=number), number)


def numbers(data: bytes) -> list[int]:
    """Of the answers in what the server sent."""
    frames = FrameReader(1 << 30)
    frames.feed(bytes(data))
    found = []
    while (frame := frames.next_frame()) is not None:
        found.append(decode_response(api(ApiKey.HEARTBEAT), VERSION, frame).throttle_time_ms)
    return found


class FakeTransport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.sent = bytearray()
        self.reading = True
        self.closed = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("10.1.2.3", 4567) if name == "peername" else default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def writelines(self, buffers: Any) -> None:
        for buffer in buffers:
            self.sent += buffer

    def pause_reading(self) -> None:
        assert self.reading and not self.closed
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading and not self.closed
        self.reading = True

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True
