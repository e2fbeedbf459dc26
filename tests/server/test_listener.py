"""The Kafka port on real sockets: limits, a taken port, clients that never read, and its end."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from structlog.testing import capture_logs
from support.wait import DEADLINE_S
from support.wire import encoded
from support.wire_stub import Script, echo, handlers, numbers, request

from streamlake.core.errors import Invalid, Unavailable
from streamlake.handlers.apis import Handler
from streamlake.handlers.context import Exchange
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.heartbeat import HeartbeatResponse
from streamlake.protocol.messages.sync_group import SyncGroupRequest, SyncGroupResponse
from streamlake.protocol.requests import api, decode_response
from streamlake.server import connection as module
from streamlake.server.listener import Listener, bind
from streamlake.server.memory import ConnectionMemory

Open = Callable[..., Awaitable[Listener]]


@pytest.fixture
async def listen() -> AsyncIterator[Open]:
    opened = []

    async def listen(script: Script = echo, connections_max: int = 10, abandon: bool = False) -> Listener:
        listener = Listener(bind("127.0.0.1", 0), connections_max, 1 << 20)
        await listener.start(None, handlers(script, abandon=abandon), ConnectionMemory(1 << 30))
        opened.append(listener)
        return listener

    yield listen
    for listener in opened:
        await listener.stop(0)


class Peer:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, listener: Listener) -> "Peer":
        return cls(*await asyncio.open_connection("127.0.0.1", listener.port))

    async def answer(self) -> int:
        async with asyncio.timeout(DEADLINE_S):
            size = await self.reader.readexactly(4)
            return numbers(size + await self.reader.readexactly(int.from_bytes(size, "big")))[0]

    async def ask(self, number: int) -> int:
        self.writer.write(request(number))
        return await self.answer()

    async def is_closed(self) -> bool:
        async with asyncio.timeout(DEADLINE_S):
            return await self.reader.read(1) == b""


async def test_serves_several_connections(listen: Open) -> None:
    listener = await listen()
    peers = [await Peer.connect(listener) for _ in range(5)]
    assert [await peer.ask(at) for at, peer in enumerate(peers)] == [0, 1, 2, 3, 4]
    assert (listener.counters.connections, listener.counters.connections_accepted) == (5, 5)


async def test_connections_over_the_limit_are_closed_at_once(listen: Open) -> None:
    listener = await listen(connections_max=2)
    first, second = await Peer.connect(listener), await Peer.connect(listener)
    assert [await first.ask(1), await second.ask(2)] == [1, 2]
    with capture_logs() as logged:
        for _ in range(3):
            assert await (await Peer.connect(listener)).is_closed()
    assert listener.counters.connections_refused == 3
    assert len(logged) == 1, "a storm of clients must not fill the log"
    assert await first.ask(3) == 3
    second.writer.close()
    while listener.counters.connections > 1:
        await asyncio.sleep(0.001)
    assert await (await Peer.connect(listener)).ask(4) == 4


def test_a_taken_port_is_a_clear_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            Unavailable, match=f"cannot listen on 127.0.0.1:{port} for Kafka: .*Give another server.port"
        ):
            Listener(bind("127.0.0.1", port), 10, 1000)


def test_a_host_that_is_not_this_one_is_a_clear_error() -> None:
    with pytest.raises(Invalid, match=r"cannot listen on 192\.0\.2\.1:0 .*Give server\.host"):
        Listener(bind("192.0.2.1", 0), 10, 1000)


async def test_a_client_that_never_reads_is_served_no_further_than_the_limits(
    listen: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And gets everything, in order, once it reads."""
    monkeypatch.setattr(module, "HELD_BYTES_MAX", 8 << 20)
    total, served = 100, 0

    async def large(_ctx: object, exchange: Exchange) -> SyncGroupResponse:
        nonlocal served
        served += 1
        return SyncGroupResponse(assignment=exchange.body.generation_id.to_bytes(1 << 20, "big"))

    sync = api(ApiKey.SYNC_GROUP)
    listener = Listener(bind("127.0.0.1", 0), 10, 1 << 20)
    await listener.start(None, [Handler(sync, large)], ConnectionMemory(1 << 30))
    peer = await Peer.connect(listener)
    peer.writer.writelines(encoded(ApiKey.SYNC_GROUP, 0, SyncGroupRequest(generation_id=n)) for n in range(total))
    while not listener._connections or next(iter(listener._connections))._reading:
        await asyncio.sleep(0)
    assert served < total / 2, "what the kernel's buffers hold, one write buffer, and the limit"
    for number in range(total):
        size = int.from_bytes(await peer.reader.readexactly(4), "big")
        answer = decode_response(sync, 0, await peer.reader.readexactly(size))
        assert int.from_bytes(answer.assignment, "big") == number
    assert served == total
    peer.writer.close()
    await listener.stop(DEADLINE_S)


async def test_a_client_that_never_reads_cannot_keep_a_connection_that_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The close waits for bytes that nobody takes: ten thousand of such clients would be all that are let in."""
    monkeypatch.setattr(module, "CLOSE_TIMEOUT_S", 0.05)

    async def large(_ctx: object, _exchange: Exchange) -> SyncGroupResponse:
        return SyncGroupResponse(assignment=bytes(32 << 20))

    listener = Listener(bind("127.0.0.1", 0), 10, 1 << 20)
    await listener.start(None, [Handler(api(ApiKey.SYNC_GROUP), large)], ConnectionMemory(1 << 30))
    peer = await Peer.connect(listener)
    peer.writer.write(encoded(ApiKey.SYNC_GROUP, 0, SyncGroupRequest()) + b"junk")
    async with asyncio.timeout(DEADLINE_S):
        while not listener.counters.malformed or listener.counters.connections:
            await asyncio.sleep(0.001)
    peer.writer.close()
    await listener.stop(0)


async def test_stop_waits_for_what_runs(listen: Open) -> None:
    started, gate = asyncio.Event(), asyncio.Event()

    async def slow(number: int, _exchange: Exchange) -> HeartbeatResponse:
        started.set()
        await gate.wait()
        return HeartbeatResponse(throttle_time_ms=number)

    listener = await listen(slow)
    peer = await Peer.connect(listener)
    peer.writer.write(request(1) + request(2))
    await started.wait()
    stopping = asyncio.create_task(listener.stop(DEADLINE_S))
    while True:
        try:  # until nobody is accepted any more
            (await Peer.connect(listener)).writer.close()
        except OSError:
            break
    gate.set()
    await stopping
    assert await peer.answer() == 1
    assert await peer.is_closed(), "the second request came too late: its client asks again elsewhere"


async def test_stop_does_not_wait_for_ever(listen: Open) -> None:
    started = asyncio.Event()

    async def stuck(_number: int, _exchange: Exchange) -> None:
        started.set()
        await asyncio.Event().wait()

    listener = await listen(stuck)
    peer = await Peer.connect(listener)
    peer.writer.write(request(1))
    await started.wait()
    await listener.stop(0.01)
    assert await peer.is_closed()


async def test_stop_does_not_wait_for_polls(listen: Open) -> None:
    started = asyncio.Event()

    async def poll(_number: int, _exchange: Exchange) -> None:
        started.set()
        await asyncio.Event().wait()

    listener = await listen(poll, abandon=True)
    peer = await Peer.connect(listener)
    peer.writer.write(request(1))
    await started.wait()
    async with asyncio.timeout(DEADLINE_S):
        await listener.stop(10 * DEADLINE_S)
    assert await peer.is_closed()


async def test_stop_under_a_load_that_does_not_stop(listen: Open) -> None:
    """A producer that never pauses must not keep the server up until the timeout."""

    async def busy(number: int, exchange: Exchange) -> HeartbeatResponse:
        exchange.release()
        await asyncio.sleep(0.001)
        return HeartbeatResponse(throttle_time_ms=number)

    listener = await listen(busy)
    peer = await Peer.connect(listener)

    async def load() -> None:
        number = 0
        while not peer.writer.is_closing():
            number += 1
            peer.writer.write(request(number))
            await peer.writer.drain()
            await asyncio.sleep(0)

    loading = asyncio.create_task(load())
    assert await peer.answer() == 1
    async with asyncio.timeout(DEADLINE_S):
        await listener.stop(10 * DEADLINE_S)
    loading.cancel()
    await asyncio.gather(loading, return_exceptions=True)


async def test_a_listener_that_was_never_started_frees_its_port() -> None:
    listener = Listener(bind("127.0.0.1", 0), 10, 1000)
    port = listener.port
    await listener.stop(1)
    listener.close()
    Listener(bind("127.0.0.1", port), 10, 1000).close()
