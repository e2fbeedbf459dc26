"""One connection, fed by hand: frames, order, limits, and what closes it."""

import asyncio
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs
from support.deliver import deliver
from support.line import FRAME_BYTES_MAX, Gate, Line, settle
from support.wire import encoded
from support.wire_stub import VERSION, FakeTransport, echo, handlers, numbers, request

from streamlake.handlers import api_versions
from streamlake.handlers.apis import HANDLERS, Handler
from streamlake.handlers.context import Exchange
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.heartbeat import HeartbeatRequest, HeartbeatResponse
from streamlake.protocol.messages.metadata import MetadataRequest, MetadataResponse, MetadataResponseTopic
from streamlake.server import connection as module
from streamlake.server.connection import Connection, Counters
from streamlake.server.memory import ConnectionMemory

# -- frames ----------------------------------------------------------------------------------------------------------


async def test_frames_cut_at_every_byte() -> None:
    both = request(1, "some group") + request(2)
    for at in range(len(both) + 1):
        line = Line()
        line.feed(both[:at], both[at:])
        assert await line.answers() == [1, 2], at


async def test_byte_by_byte() -> None:
    line = Line()
    line.feed(*(bytes([byte]) for byte in request(1) + request(2)))
    assert await line.answers() == [1, 2]
    assert line.counters.bytes_in == len(request(1) + request(2))
    assert line.counters.bytes_out == len(line.transport.sent)
    assert line.counters.requests == {"heartbeat": 2}


async def test_handlers_learn_who_asks() -> None:
    seen: list[Exchange] = []

    async def look(number: int, exchange: Exchange) -> HeartbeatResponse:
        seen.append(exchange)
        return await echo(number, exchange)

    line = Line(look)
    line.feed(request(1, "g"))
    await line.answers()
    (exchange,) = seen
    assert (exchange.version, exchange.client_id, exchange.client_host) == (VERSION, "tester", "10.1.2.3")
    assert exchange.body == HeartbeatRequest(group_id="g", generation_id=1)


# -- order -----------------------------------------------------------------------------------------------------------


async def test_the_next_request_starts_when_the_one_before_is_answered() -> None:
    gate = Gate()
    line = Line(gate)
    line.feed(request(1) + request(2))
    await settle()
    assert gate.started == [1]
    gate.open(1)
    assert await line.answers() == [1]
    assert gate.started == [1, 2]
    gate.open(2)
    assert await line.answers() == [1, 2]


async def test_requests_that_were_released_run_together_and_are_answered_in_order() -> None:
    gate = Gate(release=True)
    line = Line(gate)
    line.feed(request(1) + request(2) + request(3))
    await settle()
    assert gate.started == [1, 2, 3]
    gate.open(3, 2)
    assert await line.answers() == []
    gate.open(1)
    assert await line.answers() == [1, 2, 3]


async def test_no_answer_is_no_bytes() -> None:
    async def silent(number: int, exchange: Exchange) -> HeartbeatResponse | None:
        return None if number == 1 else await echo(number, exchange)

    line = Line(silent)
    line.feed(request(1) + request(2))
    assert await line.answers() == [2]


# -- requests without a task -----------------------------------------------------------------------------------------


class Beginner:
    """Begins the requests below 100, and answers them when the test says so; the others go to `echo`."""

    def __init__(self) -> None:
        self.begun: dict[int, Exchange] = {}
        (known,) = handlers(echo)
        self.handlers = [replace(known, begin=self.begin)]

    def begin(self, _ctx: Any, exchange: Exchange) -> bool:
        number = exchange.body.generation_id
        if number == 13:
            raise KeyError("a bug")
        if number >= 100:
            return False
        self.begun[number] = exchange
        exchange.release()
        return True

    def answer(self, *which: int) -> None:
        for number in which:
            self.begun[number].answer(HeartbeatResponse(throttle_time_ms=number))


async def test_requests_that_begin_at_once_are_answered_in_order() -> None:
    beginner = Beginner()
    line = Line(served=beginner.handlers)
    line.feed(request(1) + request(2) + request(100) + request(3))
    assert list(beginner.begun) == [1, 2], "at once, and the next one only after one that has a task"
    assert not line.connection.idle
    beginner.answer(2)
    assert await line.answers() == []
    beginner.answer(1)
    assert await line.answers() == [1, 2, 100]
    assert list(beginner.begun) == [1, 2, 3]
    beginner.begun[3].answer(None)
    assert await line.answers() == [1, 2, 100]
    assert line.connection.idle


async def test_a_client_that_sends_much_shares_the_loop_with_others() -> None:
    beginner = Beginner()
    line = Line(served=beginner.handlers)
    line.feed(b"".join(request(number) for number in range(14, 64)))
    at_once = len(beginner.begun)
    assert 1 < at_once < 50
    await settle()
    assert len(beginner.begun) == 50


async def test_answers_of_one_turn_leave_together() -> None:
    beginner = Beginner()
    line = Line(served=beginner.handlers)
    writes: list[int] = []
    line.transport.writelines = lambda buffers: writes.append(len(buffers))  # type: ignore[method-assign]
    line.feed(*(request(number) for number in range(1, 6)))
    beginner.answer(1, 2, 3, 4)
    await settle()
    assert writes == [4]


async def test_an_answer_for_a_connection_that_is_gone_is_for_nobody() -> None:
    beginner = Beginner()
    line = Line(served=beginner.handlers)
    line.feed(request(1))
    line.connection.connection_lost(None)
    beginner.answer(1)
    assert await line.answers() == [] and line.connection.idle


@pytest.mark.parametrize("how", ["begin", "answer", "fail"])
async def test_a_request_that_fails_without_a_task_closes_only_its_own_connection(how: str) -> None:
    beginner, other = Beginner(), Line()
    line = Line(served=beginner.handlers)
    with capture_logs() as logged:
        line.feed(request(13 if how == "begin" else 1))
        if how == "answer":
            beginner.begun[1].answer(HeartbeatResponse(throttle_time_ms="no number"))
        elif how == "fail":
            beginner.begun[1].fail(KeyError("a bug"))
        other.feed(request(3))
        assert await line.answers() == []
    assert line.transport.closed and line.connection.idle
    assert len(logged) == line.counters.failures == 1
    assert await other.answers() == [3]


# -- large requests --------------------------------------------------------------------------------------------------


async def test_a_large_request_is_received_into_its_own_buffer() -> None:
    counters, transport = Counters(), FakeTransport()
    connection = Connection(
        None, {h.api.key: h for h in handlers(echo)}, 1 << 20, counters, {}, ConnectionMemory(1 << 30)
    )
    connection.connection_made(transport)
    data = request(1, "x" * 30_000)
    data = struct.pack(">i", len(data) - 4 + 200_000) + data[4:] + bytes(200_000)
    buffer = connection.get_buffer(-1)
    buffer[:40_000] = data[:40_000]
    connection.buffer_updated(40_000)
    buffer = connection.get_buffer(-1)
    assert len(buffer) == len(data) - 40_000, "room for exactly what is missing"
    buffer[:] = data[40_000:]
    connection.buffer_updated(len(buffer))
    deliver(connection, request(2))
    await settle()
    assert numbers(transport.sent) == [1, 2]
    assert counters.bytes_in == len(data) + len(request(2))


# -- what closes it --------------------------------------------------------------------------------------------------


def frame(body: bytes) -> bytes:
    return struct.pack(">i", len(body)) + body


JUNK = {
    "http": b"GET / HTTP/1.1\r\nHost: example\r\n\r\n",
    "tls": bytes.fromhex("16030100c8010000c40303"),
    "a negative length": struct.pack(">i", -1),
    "a length over the limit": struct.pack(">i", FRAME_BYTES_MAX + 1),
    "an empty frame": frame(b""),
    "no header": frame(b"\x00\x0c"),
    "an unknown api": frame(struct.pack(">hhih", 999, 0, 1, -1)),
    "an api that is not served": frame(struct.pack(">hhih", ApiKey.CREATE_ACLS, 1, 1, -1)),
    "an unknown version": frame(struct.pack(">hhih", ApiKey.HEARTBEAT, 99, 1, -1)),
    "a negative version": frame(struct.pack(">hhih", ApiKey.HEARTBEAT, -1, 1, -1)),
    "half a body": frame(request(1, "group")[4:-7]),
    "a client id that is no text": frame(struct.pack(">hhih", ApiKey.HEARTBEAT, 0, 1, 2) + b"\xff\xff"),
    "a client id beyond the frame": frame(struct.pack(">hhih", ApiKey.HEARTBEAT, 0, 1, 500)),
}


@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK)
async def test_junk_closes_the_connection_with_one_line(junk: bytes) -> None:
    line, other = Line(), Line()
    with capture_logs() as logged:
        line.feed(junk, request(1))
        other.feed(request(2))
        assert await line.answers() == []
    assert line.transport.closed
    assert [(entry["log_level"], entry["client"]) for entry in logged] == [("warning", "10.1.2.3")]
    assert logged[0]["reason"]
    assert line.counters.malformed == 1
    assert await other.answers() == [2] and not other.transport.closed


async def test_after_junk_nothing_more_is_read_or_said() -> None:
    """The requests before it end later, and must not find the junk again."""
    gate = Gate(release=True)
    line = Line(gate)
    with capture_logs() as logged:
        line.feed(request(1) + request(2))
        await settle()
        line.feed(JUNK["http"])
        gate.open(1, 2)
        await settle()
    assert len(logged) == line.counters.malformed == 1
    assert line.transport.sent == b""


async def test_an_unknown_version_of_api_versions_is_answered() -> None:
    (handler,) = [h for h in HANDLERS if h.handle is api_versions.handle]
    line = Line(served=[handler])
    line.feed(frame(struct.pack(">hhih", ApiKey.API_VERSIONS, 99, 5, -1) + b"whatever"))
    await settle()
    assert not line.transport.closed
    assert line.transport.sent[4:10] == struct.pack(">ih", 5, 35)


async def test_a_handler_that_fails_closes_only_its_own_connection() -> None:
    async def fail(number: int, exchange: Exchange) -> HeartbeatResponse:
        if number == 13:
            raise KeyError("a bug")
        return await echo(number, exchange)

    line, other = Line(fail), Line(fail)
    with capture_logs() as logged:
        line.feed(request(1), request(13), request(2))
        other.feed(request(3))
        assert await line.answers() == [1]
    assert line.transport.closed
    assert line.counters.failures == 1
    assert [(e["log_level"], e["api"], e["version"]) for e in logged] == [("error", "heartbeat", VERSION)]
    assert await other.answers() == [3] and not other.transport.closed


async def test_an_answer_that_cannot_be_encoded_is_a_failure_too() -> None:
    async def wrong(_ctx: Any, _exchange: Exchange) -> MetadataResponse:
        return MetadataResponse(topics=(MetadataResponseTopic(name=None),))

    (known,) = [h for h in HANDLERS if h.api.key == ApiKey.METADATA]
    line = Line(served=[Handler(known.api, wrong)])
    with capture_logs() as logged:
        line.feed(encoded(ApiKey.METADATA, 1, MetadataRequest()))
        await settle()
    assert line.transport.closed and len(logged) == line.counters.failures == 1


# -- limits ----------------------------------------------------------------------------------------------------------


async def test_a_client_that_does_not_read_is_not_read_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers that cannot leave go on to count; above the limit nothing starts and nothing is read."""
    monkeypatch.setattr(module, "HELD_BYTES_MAX", 200)
    gate = Gate(release=True)
    line = Line(gate)
    line.connection.pause_writing()
    fed = 0
    while line.transport.reading:
        fed += 1
        assert fed < 50
        line.feed(request(fed))
        await settle()
        gate.open(*(n for n in gate.started if n == fed))
    assert await line.answers() == []
    started = len(gate.started)
    assert started <= fed
    line.connection.resume_writing()
    await settle()
    gate.open(*gate.started[started:])
    assert await line.answers() == list(range(1, fed + 1))
    assert line.transport.reading


async def test_a_client_that_sends_faster_than_it_is_served_is_not_read_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IN_FLIGHT_MAX", 5)
    gate = Gate(release=True)
    line = Line(gate)
    line.feed(b"".join(request(n) for n in range(1, 9)))
    await settle()
    assert (gate.started, line.transport.reading) == ([1, 2, 3, 4, 5], False)
    gate.open(1)
    assert await line.answers() == [1]
    assert gate.started == [1, 2, 3, 4, 5, 6]
    gate.open(2, 3, 4, 5, 6)
    await settle()
    gate.open(7, 8)
    assert await line.answers() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert line.transport.reading


async def test_a_request_as_large_as_the_limit_gets_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HELD_BYTES_MAX", 100)
    line = Line()
    large = request(1, "x" * (FRAME_BYTES_MAX - len(request(1)) + 4 - 2))
    assert FRAME_BYTES_MAX - 4 <= len(large) - 4 <= FRAME_BYTES_MAX
    line.feed(*(large[at : at + 10] for at in range(0, len(large), 10)))
    assert await line.answers() == [1]


async def test_only_produce_may_be_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OTHER_REQUEST_BYTES_MAX", 100)
    line = Line()
    with capture_logs() as logged:
        line.feed(request(1, "x" * 60), request(2, "x" * 200))
        await settle()
    assert line.transport.closed
    assert "only Produce" in logged[0]["reason"]
    assert line.counters.malformed == 1


# -- the end ---------------------------------------------------------------------------------------------------------


async def test_all_that_came_before_the_end_is_begun() -> None:
    beginner = Beginner()
    line = Line(served=beginner.handlers)
    line.feed(b"".join(request(n) for n in range(14, 94)) + request(9)[:7])
    assert len(beginner.begun) < 80, "the rest in other turns of the loop"
    line.connection.eof_received()
    await settle()
    assert line.transport.closed and list(beginner.begun) == list(range(14, 94))
    beginner.answer(*beginner.begun)
    assert await line.answers() == [] and line.connection.idle


async def test_what_must_wait_ends_with_the_connection() -> None:
    gate = Gate()
    line = Line(gate)
    line.feed(request(1) + request(2))
    await settle()
    line.connection.eof_received()
    await settle()
    assert line.transport.closed
    gate.open(1)
    await settle()
    assert gate.started == [1] and line.connection.idle


async def test_a_large_request_right_before_the_end_is_begun() -> None:
    beginner, transport = Beginner(), FakeTransport()
    connection = Connection(
        None, {h.api.key: h for h in beginner.handlers}, 1 << 20, Counters(), {}, ConnectionMemory(1 << 30)
    )
    connection.connection_made(transport)
    deliver(connection, request(7, "x" * 30_000))
    data = request(8, "x" * 30_000)
    data = struct.pack(">i", len(data) - 4 + 200_000) + data[4:] + bytes(200_000)
    deliver(connection, data)
    connection.eof_received()
    await settle()
    assert list(beginner.begun) == [7, 8] and transport.closed


@pytest.mark.parametrize("rest", [b"", request(2)[:9]])
async def test_a_client_that_ends_does_not_wait_for_data(rest: bytes) -> None:
    gate = Gate(release=bool(rest))
    line = Line(gate, abandon=True)
    line.feed(request(1) + rest)
    await settle()
    line.connection.eof_received()
    await settle()
    assert line.transport.closed


async def test_what_a_lost_client_asked_for_is_done() -> None:
    gate = Gate()
    line = Line(gate)
    line.feed(request(1))
    await settle()
    assert list(line.group) == [line.connection] and line.counters.connections == 1
    line.connection.connection_lost(None)
    await settle()
    assert not gate.cancelled(1)
    gate.open(1)
    await settle()
    assert (line.group, line.counters.connections, line.transport.sent) == ({}, 0, b"")


async def test_what_a_lost_client_waited_for_is_abandoned() -> None:
    gate = Gate(release=True)
    line = Line(gate, abandon=True)
    line.feed(request(1) + request(2))
    await settle()
    line.connection.connection_lost(ConnectionResetError())
    await settle()
    assert gate.cancelled(1) and gate.cancelled(2)
    assert line.counters.failures == 0


@pytest.mark.parametrize("abandon", [False, True])
async def test_draining_finishes_what_runs_and_starts_nothing(abandon: bool) -> None:
    gate = Gate(release=True)
    line = Line(gate, abandon=abandon)
    line.feed(request(1))
    await settle()
    line.connection.drain()
    assert line.connection.idle == abandon
    assert not line.transport.reading
    line.feed(request(2))
    gate.open(1)
    assert await line.answers() == [1]
    assert (gate.started, line.connection.idle) == ([1], True)
    line.connection.close()
    assert line.transport.closed


def test_it_is_told_of_nothing_after_its_end() -> None:
    """uvloop may call back once more; that must harm nobody."""

    async def run(what: Callable[[Connection], None]) -> None:
        line = Line()
        line.connection.connection_lost(None)
        what(line.connection)

    for what in (Connection.advance, Connection.resume_writing, Connection.close, Connection.drain):
        asyncio.run(run(what))
