"""Produce requests that share their head, begun together: as if they had been begun one by one."""

import asyncio
import random
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from support.deliver import deliver
from support.fake_stream import FakeStream
from support.log_bench import NOW_MS
from support.produce_pair import (
    COUNT_AT,
    LAST_OFFSET_DELTA_AT,
    TOPIC_NAMED,
    Requests,
    Server,
    cut,
    durable,
    same,
    server,
    settle,
)
from support.raw_kafka import signed, with_payload
from support.wire import encoded, produce_request

from streamlake.core.errors import Closed
from streamlake.handlers import produce_runs
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.framing import FrameReader
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.produce import PartitionProduceResponse
from streamlake.protocol.requests import api, correlation_id_of, decode_response, encode_request
from streamlake.protocol.wire import varint
from streamlake.record.compression import Compression
from streamlake.record.decode import Record
from streamlake.record.encode import encode_batch
from streamlake.record.validate import AT_ONCE_BYTES, check_run

pytestmark = pytest.mark.skipif(not produce_runs._kernel, reason="there is no kernel")
VERSION = 9


def batch(*, count: int = 1, at_ms: int = NOW_MS, value: bytes = b"value", **kind: object) -> bytes:
    return encode_batch([Record(n, at_ms, None, value) for n in range(count)], **kind)


def request(number: int, data: bytes, *, index: int = 0, acks: int = -1, version: int = VERSION) -> bytes:
    return encoded(ApiKey.PRODUCE, version, produce_request(TOPIC_NAMED, {index: data}, acks), number)


async def send(one: Server, data: bytes) -> None:
    deliver(one.connection, data)
    await settle()


async def send_durably(one: Server, data: bytes) -> None:
    await send(one, data)
    durable(one)
    await settle()


def answers(one: Server, version: int = VERSION) -> list[tuple[int, PartitionProduceResponse]]:
    """(correlation id, answer)"""
    frames, found = FrameReader(1 << 20), []
    frames.feed(bytes(one.transport.sent))
    while (frame := frames.next_frame()) is not None:
        ((partition,),) = (
            t.partition_responses for t in decode_response(api(ApiKey.PRODUCE), version, frame).responses
        )
        found.append((correlation_id_of(frame), partition))
    return found


@pytest.mark.parametrize("version", range(3, 14))
async def test_a_row_is_begun_at_once(version: int) -> None:
    one = await same([b"".join(request(n, batch(count=n), version=version) for n in range(1, 6))])
    assert one.began == [5]
    found = answers(one, version)
    assert [n for n, _ in found] == [1, 2, 3, 4, 5]
    assert [a.base_offset for _, a in found] == [0, 1, 3, 6, 10]
    assert {(a.error_code, a.log_append_time_ms) for _, a in found} == {(0, -1)}
    assert {a.log_start_offset for _, a in found} == ({0} if version >= 5 else {-1})
    assert len(one.streams[0]._chunks) == 1


async def test_answers_tell_the_logs_start() -> None:
    one = await server(True)
    await send_durably(one, request(1, batch(count=3)))
    await one.partitions[0].move_start(2)
    await send_durably(one, request(2, batch()))
    assert [a.log_start_offset for _, a in answers(one)] == [0, 2]


async def test_nothing_is_answered_before_all_is_durable() -> None:
    one = await server(True)
    await send(one, request(1, batch()) + request(2, batch(count=2)))
    assert one.began == [2] and not one.transport.sent and not one.connection.idle
    durable(one)
    await settle()
    assert [(n, a.base_offset) for n, a in answers(one)] == [(1, 0), (2, 1)] and one.connection.idle


async def test_when_the_log_fails_every_request_is_told() -> None:
    one = await server(True)
    deliver(one.connection, request(1, batch()) + request(2, batch()))
    one.streams[0].fail(Closed("the disk is gone"))
    await settle()
    codes = [(n, a.error_code, a.base_offset) for n, a in answers(one)]
    assert codes == [(n, ErrorCode.NOT_LEADER_OR_FOLLOWER, -1) for n in (1, 2)]
    await send(one, request(3, batch()))
    assert answers(one)[2][1].error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER
    assert one.began == [2, 1] and one.room.used_bytes == 2 * len(batch())


async def test_who_waits_too_long_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamlake.core.deadlines.TICK_S", 0.01)
    monkeypatch.setattr("streamlake.handlers.produce.TIMEOUT_MS_MAX", 20)
    one = await server(True)
    deliver(one.connection, request(1, batch()) + request(2, batch()))
    while not one.transport.sent:
        await asyncio.sleep(0.01)
    durable(one)
    await settle()
    assert [(n, a.error_code) for n, a in answers(one)] == [(n, ErrorCode.REQUEST_TIMED_OUT) for n in (1, 2)]


async def test_a_duplicate_within_a_row_gets_the_first_answer() -> None:
    def sent(number: int, sequence: int) -> bytes:
        return request(number, batch(producer_id=5, producer_epoch=0, base_sequence=sequence))

    one = await same([b"".join([sent(1, 0), sent(2, 1), sent(3, 2)]), sent(4, 1) + sent(5, 3), sent(6, 9)])
    assert one.began == [3, 1, 1, 1]
    assert [(n, a.error_code, a.base_offset) for n, a in answers(one)] == [
        (1, 0, 0), (2, 0, 1), (3, 0, 2), (4, 0, 1), (5, 0, 3), (6, ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, -1),
    ]  # fmt: skip


async def test_a_duplicate_waits_for_the_row_of_the_original() -> None:
    one = await server(True)
    await send(one, b"".join(request(n, batch(producer_id=5, producer_epoch=0, base_sequence=n)) for n in range(3)))
    await send(one, request(9, batch(producer_id=5, producer_epoch=0, base_sequence=1)))
    assert one.began == [3, 1] and not one.transport.sent
    durable(one)
    await settle()
    assert [(n, a.base_offset) for n, a in answers(one)] == [(0, 0), (1, 1), (2, 2), (9, 1)]


@pytest.mark.parametrize(
    ("odd", "began"),
    [
        (batch()[:-1] + b"x", [2, 2]),
        (batch(count=2) + batch(), [2, 2]),
        (batch(at_ms=-1), [2, 1, 2]),
        (b"", [2, 2]),
    ],
    ids=["damaged", "two batches", "no timestamp", "nothing"],
)
async def test_what_is_odd_interrupts_the_run(odd: bytes, began: list[int]) -> None:
    one = await same([b"".join(map(request, range(5), [batch(), batch(), odd, batch(), batch()]))])
    assert one.began == began


@pytest.mark.parametrize("codec", [codec for codec in Compression if codec])
async def test_compressed_batches_come_in_rows_and_their_lies_interrupt_them(codec: Compression) -> None:
    good, liar = batch(count=3, compression=codec), bytearray(batch(compression=codec))
    struct.pack_into(">i", liar, LAST_OFFSET_DELTA_AT, 2**31 - 2)
    struct.pack_into(">i", liar, COUNT_AT, 2**31 - 1)
    damaged = with_payload(codec, b"these records are not compressed")
    one = await same([b"".join(map(request, range(6), [good, good, signed(liar), damaged, good, good]))])
    assert one.began == [2, 2]
    assert [(a.error_code, a.base_offset) for _, a in answers(one)] == [
        (0, 0), (0, 3), (ErrorCode.INVALID_RECORD, -1), (ErrorCode.INVALID_RECORD, -1), (0, 6), (0, 9),
    ]  # fmt: skip


async def test_a_row_unpacks_no_more_than_the_loop_can_spare() -> None:
    large = batch(value=bytes(AT_ONCE_BYTES // 2), compression=Compression.ZSTD)
    one = await same([b"".join(request(n, large) for n in range(3))])
    assert one.began == [1, 1, 1]  # two come out as more than that
    too_large = batch(value=bytes(AT_ONCE_BYTES), compression=Compression.ZSTD)
    one = await same([b"".join(map(request, range(3), [too_large, batch(), batch()]))])
    assert one.began == [2]
    assert [a.base_offset for _, a in answers(one)] == [0, 1, 2]


async def test_a_request_over_the_limit_is_refused_in_a_row_too() -> None:
    fits, too_long = batch(value=bytes(700)), batch(value=bytes(1100))
    row = request(1, fits) + request(2, fits) + request(3, too_long) + request(4, fits)
    one = await same([row], frame_bytes_max=1024)
    assert one.transport.closed and one.began == [2] and one.counters.malformed == 1


async def test_a_length_of_too_many_bytes_is_refused_in_a_row_too() -> None:
    data = batch()
    good = request(2, data)
    length = varint(len(data) + 1)
    long = bytes(each | 0x80 for each in length.ljust(5, b"\0")) + b"\0"
    bad = good[4:].replace(length + data, long + data)
    one = await same([request(1, data) + good + len(bad).to_bytes(4, "big") + bad])
    assert one.transport.closed and one.began == [2]


@pytest.mark.parametrize("copied", [False, True], ids=["where it was received", "from a copy"])
async def test_a_bug_closes_the_connection_and_nothing_is_begun_twice(
    monkeypatch: pytest.MonkeyPatch, copied: bool
) -> None:
    one = await server(True)
    monkeypatch.setattr(one.partitions[0]._producers, "apply", lambda *args: 1 / 0)
    data = request(1, batch(producer_id=5, producer_epoch=0, base_sequence=0))
    with capture_logs() as logged:
        if copied:
            one.connection._frames.feed(data + data)
            one.connection.advance_soon()
            await settle()
        else:
            await send(one, data + data)
    assert one.transport.closed and one.counters.failures == len(logged) == 1
    one.connection.advance_soon()
    await settle()
    assert one.streams[0].next_offset == 1


async def test_an_answer_that_fails_closes_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    one = await server(True)
    await send(one, request(1, batch()))
    monkeypatch.setattr(produce_runs.PendingReply, "_answers", lambda self: 1 / 0)
    with capture_logs() as logged:
        durable(one)
        await settle()
    assert one.transport.closed and one.connection.idle and one.counters.failures == len(logged) == 1


async def test_very_long_heads_are_not_kept() -> None:
    one = await server(True)
    await send_durably(one, encoded_as("x" * 600))
    assert one.began == [] and len(answers(one)) == 1


async def test_of_more_heads_than_are_kept_most_still_come_in_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(produce_runs, "ROUTES_MAX", 8)
    one = await server(True)
    for n in range(200):
        await send_durably(one, encoded_as(f"client {n % 10}"))
    assert len(one.connection._runs._routes) == 8  # type: ignore[union-attr]
    assert len(one.began) > 0.7 * 200 and len(answers(one)) == 200


async def test_a_partition_that_was_closed_and_opened_again_is_found_again() -> None:
    one = await server(True)
    await send_durably(one, request(1, batch()))
    one.partitions[0].close()
    one.streams[0] = FakeStream(stream_id=9)
    one.partitions[0] = await one.bench.open(one.streams[0])
    await send_durably(one, request(2, batch()))
    assert one.streams[0].next_offset == 1 and one.began == [1, 1]
    assert [a.error_code for _, a in answers(one)] == [0, 0]


async def test_a_run_that_is_refused_is_checked_twice_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[int] = []

    def counted(received: Any, spans: bytes, max_batch_bytes: int) -> Any:
        checked.append(len(spans) // 16)
        return check_run(received, spans, max_batch_bytes)

    monkeypatch.setattr(produce_runs, "check_run", counted)
    future = batch(at_ms=NOW_MS + 100 * 3_600_000)
    row = b"".join(map(request, range(5), [batch(), batch(), future, batch(), batch()]))
    one = await same([row, request(9, batch())], message_timestamp_after_max_ms=3_600_000)
    assert [a.error_code for _, a in answers(one)] == [0, 0, ErrorCode.INVALID_TIMESTAMP, 0, 0, 0]
    assert checked == [5, 1, 1, 1, 1, 1, 1] and one.began == [1] * 6


async def test_compressed_batches_of_a_producer() -> None:
    data = [
        batch(count=9, compression=c, producer_id=1, producer_epoch=0, base_sequence=9 * n)
        for n, c in enumerate(Compression)
    ]
    one = await same([b"".join(request(n, each) for n, each in enumerate(data))])
    assert one.began == [len(data)]


async def test_log_append_time_is_given_to_all() -> None:
    data = [batch(at_ms=5, compression=codec) for codec in Compression]
    one = await same(
        [b"".join(request(n, each) for n, each in enumerate(data))], message_timestamp_type="LogAppendTime"
    )
    assert one.began == [len(data)]
    assert {a.log_append_time_ms for _, a in answers(one)} == {NOW_MS}


async def test_medium_requests_begin_where_they_are_received() -> None:
    """A good number of bytes is received at once after them; after large ones little more than a head."""
    medium, large = batch(value=bytes(100_000)), batch(value=bytes(300_000))
    one = await server(True, frame_bytes_max=1 << 20)
    await send(one, request(1, medium))
    assert one.began == [], "it came in two pieces"
    await send(one, request(2, medium) + request(3, medium) + request(4, medium))
    assert one.began == [3]
    assert len(one.connection.get_buffer(-1)) > 4 * len(medium)
    await send(one, request(5, large))
    assert len(one.connection.get_buffer(-1)) < 20_000
    await send(one, request(6, batch()))
    durable(one)
    await settle()
    assert [(n, a.base_offset) for n, a in answers(one)] == [(n, n - 1) for n in range(1, 7)]


async def test_without_room_requests_wait() -> None:
    one = await server(True)
    taken = one.room.total_bytes
    assert one.room.try_take("other", taken)
    await send(one, request(1, batch()) + request(2, batch()))
    assert one.began == [] and not one.streams[0]._chunks
    one.room.give("other", taken)
    await settle()
    durable(one)
    await settle()
    assert [(n, a.base_offset) for n, a in answers(one)] == [(1, 0), (2, 1)]


async def test_acks_0_has_no_answer() -> None:
    one = await same([request(1, batch(), acks=0) + request(2, batch(), acks=0) + request(3, batch())])
    assert one.began == [2, 1]
    assert [n for n, _ in answers(one)] == [3]


def encoded_as(client: str) -> bytes:
    return b"".join(encode_request(api(ApiKey.PRODUCE), VERSION, 1, client, produce_request(TOPIC_NAMED, {0: batch()})))


@settings(max_examples=150)
@given(st.integers(0, 1 << 62))
async def test_any_requests(seed: int) -> None:
    rng = random.Random(seed)
    data = b"".join(Requests(rng).draw(rng.choice([1, 5, 40])))
    if rng.random() < 0.3:
        damaged = bytearray(data)
        for _ in range(rng.randrange(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.choice([0, 1, 2, 0x7F, 0x80, 0xFF, rng.randrange(256)])
        data = bytes(damaged)
    limits = {
        "frame_bytes_max": rng.choice([300, 1 << 16]),
        "message_timestamp_before_max_ms": rng.choice([60_000, 10**15]),
    }
    await same(cut(data, rng), **limits)
