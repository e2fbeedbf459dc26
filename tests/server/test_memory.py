"""Clients that do not read: what all connections together may hold for them, and that each of them is served at last."""

import asyncio
import gc
import socket
import weakref
from typing import Any

import pytest
from support.line import Gate, Line, settle
from support.wait import DEADLINE_S, until
from support.wire import encoded
from support.wire_stub import FakeTransport, request

from streamlake.handlers.apis import Handler
from streamlake.handlers.context import Exchange
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.sync_group import SyncGroupRequest, SyncGroupResponse
from streamlake.protocol.requests import api, decode_response
from streamlake.server.listener import Listener, bind
from streamlake.server.memory import ConnectionMemory

ANSWER_BYTES = 100_000  # more than a send buffer takes uncounted
ANSWER_OVERHEAD_BYTES = 64
SYNC = api(ApiKey.SYNC_GROUP)


def ask(count: int) -> bytes:
    return b"".join(encoded(ApiKey.SYNC_GROUP, 0, SyncGroupRequest(generation_id=n)) for n in range(count))


class Unread(FakeTransport):
    """The socket of a client that reads only when the test says so; it counts bytes and keeps none."""

    def __init__(self) -> None:
        super().__init__()
        self.connection: Any = None
        self.unread_bytes = 0
        self.sent_bytes = 0
        self._high_bytes = 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high_bytes = high or 0

    def writelines(self, buffers: Any) -> None:
        size = sum(map(len, buffers))
        assert self.unread_bytes <= self._high_bytes, "written to although it was full"
        self.sent_bytes += size
        self.unread_bytes += size
        if self.unread_bytes > self._high_bytes:
            self.connection.pause_writing()

    def read_all(self) -> None:
        full, self.unread_bytes = self.unread_bytes > self._high_bytes, 0
        if full:
            self.connection.resume_writing()


class Crowd:
    """Connections of such clients, whose requests are answered with ANSWER_BYTES each."""

    def __init__(self, count: int, limit_bytes: int) -> None:
        self.memory = ConnectionMemory(limit_bytes)
        self.served = 0
        self.peak_bytes = 0
        self.lines = [self._line() for _ in range(count)]

    def _line(self) -> Line:
        transport = Unread()
        line = Line(served=[Handler(SYNC, self._answer)], memory=self.memory, transport=transport)
        transport.connection = line.connection
        return line

    async def _answer(self, _ctx: Any, _exchange: Exchange) -> SyncGroupResponse:
        await asyncio.sleep(0)  # so that all that may start has started before the first answer is known
        self.served += 1
        self.peak_bytes = max(self.peak_bytes, self.unread_bytes)
        return SyncGroupResponse(assignment=bytes(ANSWER_BYTES))

    @property
    def transports(self) -> list[Unread]:
        return [line.transport for line in self.lines]  # type: ignore[misc]

    @property
    def unread_bytes(self) -> int:
        return sum(transport.unread_bytes for transport in self.transports)


async def test_a_thousand_clients_that_do_not_read_take_the_limit_and_an_answer_each() -> None:
    limit_bytes, count, each = 10 * ANSWER_BYTES, 1000, 5
    crowd = Crowd(count, limit_bytes)
    for line in crowd.lines:
        line.feed(ask(each))
    await settle()
    most_bytes = limit_bytes + count * (ANSWER_BYTES + ANSWER_OVERHEAD_BYTES)
    assert crowd.unread_bytes < most_bytes, "each has an answer, and no more was begun"
    held_bytes = crowd.memory.held_bytes
    assert crowd.unread_bytes <= held_bytes < most_bytes, "what the sockets did not take counts"
    assert crowd.memory.pauses == count
    assert not any(transport.reading for transport in crowd.transports), "they are not read from"
    assert not any(transport.closed for transport in crowd.transports), "nor refused"

    while crowd.served < count * each:  # they read, one after the other
        for transport in crowd.transports:
            transport.read_all()
            await asyncio.sleep(0)
            assert crowd.unread_bytes < most_bytes
    await settle()
    for transport in crowd.transports:
        transport.read_all()
    await settle()
    assert crowd.peak_bytes < most_bytes
    assert {transport.sent_bytes // ANSWER_BYTES for transport in crowd.transports} == {each}
    assert crowd.memory.held_bytes == 0 and all(transport.reading for transport in crowd.transports)


async def test_those_that_wait_go_on_when_others_drain() -> None:
    crowd = Crowd(2, ANSWER_BYTES)
    slow, other = crowd.lines
    slow.feed(ask(1))
    await settle()
    assert crowd.memory.is_full
    gate = Gate(release=True)
    waiting = Line(gate, memory=crowd.memory)
    waiting.feed(request(1), request(2), request(3))
    await settle()
    assert gate.started == [1] and not waiting.transport.reading
    other.feed(ask(1))
    await settle()
    assert crowd.served == 2, "one request of a connection always fits"
    crowd.transports[0].read_all()
    await settle()
    assert gate.started == [1], "the account is still full"
    crowd.transports[1].read_all()
    await settle()
    assert gate.started == [1, 2, 3] and waiting.transport.reading
    gate.open(1, 2, 3)
    assert await waiting.answers() == [1, 2, 3]
    assert crowd.memory.held_bytes == 0


async def test_while_memory_is_full_a_connection_has_one_request_at_a_time() -> None:
    memory = ConnectionMemory(100)
    memory.count(100)
    gate = Gate(release=True)
    line = Line(gate, memory=memory)
    line.feed(*(request(n) for n in (1, 2, 3)))
    for number in (1, 2, 3):
        await settle()
        assert gate.started == list(range(1, number + 1))
        gate.open(number)
        assert await line.answers() == list(range(1, number + 1))
    assert memory.held_bytes == 100


async def test_a_lost_connection_is_not_kept_by_those_that_wait() -> None:
    memory = ConnectionMemory(100)
    memory.count(100)
    line = Line(Gate(release=True), memory=memory, abandon=True)
    line.feed(request(1), request(2))
    await settle()
    assert not line.transport.reading
    connection = weakref.ref(line.connection)
    line.connection.connection_lost(None)
    await settle()
    del line
    gc.collect()
    assert connection() is None and memory.held_bytes == 100


async def test_bytes_that_became_requests_do_not_count_twice() -> None:
    """Else the last of some requests would wait for an answer, which may be a long poll's, although there is memory."""
    first: list[Exchange] = []
    gate = Gate(release=True)

    async def script(number: int, exchange: Exchange) -> Any:
        if number == 1:
            first.append(exchange)
            await asyncio.Event().wait()
        return await gate(number, exchange)

    memory = ConnectionMemory(7 * len(request(1)))
    line = Line(script, memory=memory, abandon=True)
    line.feed(b"".join(request(n) for n in range(1, 6)))
    await settle()
    assert gate.started == []
    first[0].release()
    await settle()
    assert gate.started == [2, 3, 4, 5]
    line.connection.connection_lost(None)
    await settle()
    assert memory.held_bytes == 0


@pytest.mark.parametrize("finished_before", [False, True])
async def test_a_connection_that_is_lost_gives_back_what_it_held(finished_before: bool) -> None:
    memory, gate = ConnectionMemory(1 << 20), Gate(release=True)
    line = Line(gate, memory=memory)
    line.feed(request(1), request(2), request(3)[:9])
    await settle()
    assert memory.held_bytes == len(request(1)) + len(request(2)) - 8 + 9, "with what is still to become a request"
    if finished_before:
        gate.open(2)  # its answer waits for the first one
        await settle()
    line.connection.connection_lost(None)
    assert memory.held_bytes == (len(request(1)) - 4) * (1 if finished_before else 2), "what runs has its request"
    gate.open(*((1,) if finished_before else (2, 1)))
    await settle()
    assert memory.held_bytes == 0


async def test_on_real_sockets() -> None:
    """The kernel's buffers are small beside an answer, so what a client does not read stays with the server."""
    size_bytes, peers, each = 8 << 20, 8, 4
    memory = ConnectionMemory(size_bytes)
    content = bytes(size_bytes)
    served = 0

    async def answer(_ctx: Any, _exchange: Exchange) -> SyncGroupResponse:
        nonlocal served
        served += 1
        return SyncGroupResponse(assignment=content)

    listener = Listener(bind("127.0.0.1", 0), peers, 1 << 20)
    await listener.start(None, [Handler(SYNC, answer)], memory)
    clients = []
    for _ in range(peers):
        client = socket.create_connection(("127.0.0.1", listener.port))
        client.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=client, limit=1 << 16)
        writer.write(ask(each))
        clients.append((reader, writer))
    await until(lambda: memory.pauses == peers)
    await settle()
    assert served <= peers + 1, "an answer each, and what the limit allows"
    assert size_bytes <= memory.held_bytes <= (peers + 1) * (size_bytes + ANSWER_OVERHEAD_BYTES)
    for reader, writer in clients:
        for _ in range(each):
            async with asyncio.timeout(DEADLINE_S):
                size = int.from_bytes(await reader.readexactly(4), "big")
                assert len(decode_response(SYNC, 0, await reader.readexactly(size)).assignment) == size_bytes
        writer.close()
    assert served == peers * each
    await until(lambda: not listener.counters.connections)
    assert memory.held_bytes == 0
    await listener.stop(0)
