"""Produce: what is refused and how, and that answers are right, durable and in order."""

import asyncio
import random
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from support.deliver import deliver
from support.log_bench import NOW_MS
from support.produce_pair import TOPIC_NAMED, durable, server, settle
from support.raw_kafka import batch, signed, with_payload
from support.two_brokers import OTHER
from support.wait import DEADLINE_S, until
from support.wire import Client, Topic, encoded, ends, fetch_partition, fetch_topic, newest, produce_request
from support.wire_stub import FakeTransport

from streamlake.cluster.store.topic_rows import PartitionInfo, TopicInfo
from streamlake.core.errors import Closed
from streamlake.handlers import leaders
from streamlake.handlers.error_codes import Failure
from streamlake.handlers.leaders import Leader
from streamlake.handlers.produce import Reservation, stage_one
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey, fetch, produce
from streamlake.protocol.requests import api, decode_response
from streamlake.record.batch import FRAME_BYTES, HEADER, MAGIC_AT, frames
from streamlake.record.compression import Compression
from streamlake.record.decode import Record
from streamlake.record.encode import encode_batch
from streamlake.record.validate import AT_ONCE_BATCH_BYTES
from streamlake.server.connection import Connection, Counters
from streamlake.server.memory import ConnectionMemory

VERSIONS = ends(ApiKey.PRODUCE)
NEWEST = newest(ApiKey.PRODUCE)
NEWEST_NAMED = 12  # the last version with names of topics


def only(answer: produce.ProduceResponse) -> produce.PartitionProduceResponse:
    (topic,) = answer.responses
    (partition,) = topic.partition_responses
    return partition


def idempotent(sequence: int, count: int = 1, producer_id: int = 77_000, epoch: int = 0) -> bytes:
    records = [Record(at, -1, None, b"v") for at in range(count)]
    return encode_batch(records, producer_id=producer_id, producer_epoch=epoch, base_sequence=sequence)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("acks", [-1, 1])
def test_offsets_follow_one_another(client: Client, topic: Topic, version: int, acks: int) -> None:
    answers = [
        only(client.ask(ApiKey.PRODUCE, version, produce_request(topic, {0: batch([b"v"] * count)}, acks)))
        for count in (3, 1, 2)
    ]
    assert [a.base_offset for a in answers] == [0, 3, 4]
    assert {a.error_code for a in answers} == {0}
    assert {a.log_append_time_ms for a in answers} == {-1}
    assert {a.log_start_offset for a in answers} == ({0} if version >= 5 else {-1})


def test_the_answer_names_topics_as_its_version_does(client: Client, topic: Topic) -> None:
    by_name = client.ask(ApiKey.PRODUCE, 12, produce_request(topic, {0: batch([b"v"])}))
    by_id = client.ask(ApiKey.PRODUCE, 13, produce_request(topic, {0: batch([b"v"])}))
    assert (by_name.responses[0].name, by_name.responses[0].topic_id) == (topic.name, None)
    assert (by_id.responses[0].name, by_id.responses[0].topic_id) == ("", topic.id)


def test_acks_0_has_no_answer_and_is_taken(client: Client, topic: Topic) -> None:
    client.post(ApiKey.PRODUCE, NEWEST, produce_request(topic, {0: batch([b"v"])}, acks=0), correlation_id=1)
    client.post(ApiKey.PRODUCE, NEWEST, produce_request(topic, {0: batch([b"v"])}), correlation_id=2)
    assert only(client.answer(ApiKey.PRODUCE, NEWEST, correlation_id=2)).base_offset == 1


@pytest.mark.parametrize("size_bytes", [1_000, 100_000, 900_000])
def test_acks_0_is_taken_however_soon_the_client_closes(
    client: Client, topic: Topic, connect: Callable[[], Client], size_bytes: int
) -> None:
    for _ in range(5):
        leaving = connect()
        data = batch([random.Random(1).randbytes(size_bytes)])
        leaving.post(ApiKey.PRODUCE, NEWEST, produce_request(topic, {0: data}, acks=0), correlation_id=1)
        leaving.close()
    wanted = fetch.FetchRequest(
        max_wait_ms=10_000,
        min_bytes=5 * size_bytes,
        topics=(fetch_topic(topic, fetch_partition(max_bytes=8 << 20)),),
    )
    (answer,) = client.ask(ApiKey.FETCH, 13, wanted).responses[0].partitions
    assert answer.high_watermark == 5


@pytest.mark.parametrize("version", VERSIONS)
def test_other_acks_are_refused(client: Client, topic: Topic, version: int) -> None:
    answer = only(client.ask(ApiKey.PRODUCE, version, produce_request(topic, {0: batch([b"v"])}, acks=7)))
    assert (answer.error_code, answer.base_offset) == (ErrorCode.INVALID_REQUIRED_ACKS, -1)
    assert answer.error_message == ("acks must be -1 (all), 0 or 1, not 7" if version >= 8 else None)


@pytest.mark.parametrize("version", VERSIONS)
def test_unknown_topics_and_partitions(client: Client, topic: Topic, version: int) -> None:
    unknown = Topic("nowhere", UUID(int=5))
    answer = client.ask(ApiKey.PRODUCE, version, produce_request(unknown, {0: batch([b"v"])}))
    by_name = version < 13
    assert only(answer).error_code == (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION if by_name else ErrorCode.UNKNOWN_TOPIC_ID)
    for index in (1, -1):
        answer = client.ask(ApiKey.PRODUCE, version, produce_request(topic, {index: batch([b"v"])}))
        assert only(answer).error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        assert only(answer).index == index


def test_one_bad_partition_does_not_spoil_another(client: Client) -> None:
    topic = client.create_topic(partitions=3)
    damaged = bytearray(batch([b"value"]))
    damaged[-1] ^= 1
    request = produce_request(topic, {0: batch([b"v"]), 1: bytes(damaged), 2: batch([b"v"])})
    (answered,) = client.newest(ApiKey.PRODUCE, request).responses
    assert [(p.index, p.error_code, p.base_offset) for p in answered.partition_responses] == [
        (0, 0, 0),
        (1, ErrorCode.CORRUPT_MESSAGE, -1),
        (2, 0, 0),
    ]
    assert "CRC-32C" in answered.partition_responses[1].error_message


def lies_about_its_count() -> bytes:
    fields = list(HEADER.unpack_from(batch([b"v"])))
    fields[-1] = 2
    return signed(HEADER.pack(*fields) + batch([b"v"])[HEADER.size :])


def of_magic(magic: int) -> bytes:
    old = bytearray(batch([b"v"]))
    old[MAGIC_AT] = magic
    return bytes(old)


@pytest.mark.parametrize(
    ("records", "code"),
    [
        (None, ErrorCode.INVALID_RECORD),
        (b"", ErrorCode.INVALID_RECORD),
        (batch([b"v"]) * 2, ErrorCode.INVALID_RECORD),
        (lies_about_its_count(), ErrorCode.INVALID_RECORD),
        (encode_batch([Record(0, -1, None, b"")], control=True), ErrorCode.INVALID_RECORD),
        (encode_batch([Record(0, 2**61, None, b"")]), ErrorCode.INVALID_TIMESTAMP),
        (encode_batch([Record(0, 0, None, b"")], append_time_ms=5), ErrorCode.INVALID_TIMESTAMP),
        (batch([b"v"])[:-3], ErrorCode.INVALID_RECORD),
        (b"\0" * FRAME_BYTES, ErrorCode.INVALID_RECORD),
        (batch([b"v"]) + b"x", ErrorCode.INVALID_RECORD),
        (encode_batch([Record(5, 0, None, b"v")]), ErrorCode.INVALID_RECORD),
        (of_magic(0), ErrorCode.UNSUPPORTED_FOR_MESSAGE_FORMAT),
        (of_magic(1), ErrorCode.UNSUPPORTED_FOR_MESSAGE_FORMAT),
        (of_magic(3), ErrorCode.CORRUPT_MESSAGE),
        (batch([bytes(2 << 20)]), ErrorCode.MESSAGE_TOO_LARGE),
    ],
    ids=lambda value: value.name if isinstance(value, ErrorCode) else "",
)
def test_what_is_no_good_batch_is_refused(client: Client, topic: Topic, records: bytes | None, code: ErrorCode) -> None:
    answer = only(client.newest(ApiKey.PRODUCE, produce_request(topic, {0: records})))
    assert (answer.error_code, answer.base_offset) == (code, -1)
    assert answer.error_message
    assert client.append(topic, batch([b"v"])) == [0]


def test_a_batch_that_can_never_fit_is_too_large_not_a_timeout(client: Client, topic: Topic) -> None:
    answer = only(client.newest(ApiKey.PRODUCE, produce_request(topic, {0: bytes(90 << 20)})))
    assert answer.error_code == ErrorCode.MESSAGE_TOO_LARGE
    assert client.append(topic, batch([b"v"])) == [0]


def test_null_values_and_empty_ones_are_records(client: Client, topic: Topic) -> None:
    assert client.append(topic, batch([None, b"", b"v"])) == [0]
    assert client.append(topic, batch([b"v"])) == [3]


def test_a_duplicate_gets_its_first_answer(client: Client, topic: Topic) -> None:
    assert client.append(topic, idempotent(0, 3), idempotent(3, 2)) == [0, 3]
    assert client.append(topic, idempotent(0, 3), idempotent(3, 2), idempotent(5)) == [0, 3, 5]


def test_a_gap_and_an_old_epoch_are_refused(client: Client, topic: Topic) -> None:
    client.append(topic, idempotent(0, epoch=1))
    assert client.produce(topic.name, idempotent(2, epoch=1)).error_code == ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert client.produce(topic.name, idempotent(1, epoch=0)).error_code == ErrorCode.INVALID_PRODUCER_EPOCH
    assert client.append(topic, idempotent(1, epoch=1)) == [1]


def test_pipelined_requests_keep_their_order(client: Client, topic: Topic) -> None:
    """Sequence numbers prove it: a swapped pair would be out of order (hazard C16)."""
    for at in range(100):
        client.post(ApiKey.PRODUCE, NEWEST, produce_request(topic, {0: idempotent(at)}), correlation_id=at)
    for at in range(100):
        answer = only(client.answer(ApiKey.PRODUCE, NEWEST, correlation_id=at))
        assert (answer.error_code, answer.base_offset) == (0, at)


@pytest.mark.parametrize("codec", [codec for codec in Compression if codec])
def test_large_compressed_batches_keep_their_order_among_small_ones(
    client: Client, topic: Topic, codec: Compression
) -> None:
    """The large ones are checked in a thread, the small ones at once; sequence numbers prove the order."""
    large, rng = [Record(0, -1, None, random.Random(1).randbytes(600_000))], random.Random(2)
    sent = []
    for at in range(60):
        records, kind = (large, codec) if rng.random() < 0.3 else ([Record(0, -1, None, b"v")], rng.choice([0, codec]))
        data = encode_batch(
            records, compression=Compression(kind), producer_id=78_000, producer_epoch=0, base_sequence=at
        )
        sent.append(produce_request(topic, {0: data}))
    thread = threading.Thread(target=lambda: [client.post(ApiKey.PRODUCE, NEWEST, r, n) for n, r in enumerate(sent)])
    thread.start()  # the broker may stop reading until answers are taken
    for at in range(60):
        answer = only(client.answer(ApiKey.PRODUCE, NEWEST, correlation_id=at))
        assert (answer.error_code, answer.base_offset) == (0, at)
    thread.join()


def test_acks_0_is_taken_behind_a_batch_that_a_thread_checks(
    client: Client, topic: Topic, connect: Callable[[], Client]
) -> None:
    """However soon the client closes: it can know no better."""
    large = encode_batch([Record(0, -1, None, random.Random(1).randbytes(900_000))], compression=Compression.GZIP)
    for _ in range(3):
        leaving = connect()
        for data in (large, batch([b"v"]), large, batch([b"v"])):
            leaving.post(ApiKey.PRODUCE, NEWEST, produce_request(topic, {0: data}, acks=0), correlation_id=1)
        leaving.close()
    wanted = fetch.FetchRequest(max_wait_ms=100, topics=(fetch_topic(topic, fetch_partition()),))
    deadline = time.monotonic() + DEADLINE_S
    while (end := client.ask(ApiKey.FETCH, 13, wanted).responses[0].partitions[0].high_watermark) < 12:
        assert time.monotonic() < deadline, end


class Held:
    """Threads that begin when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[asyncio.Future[None]] = []

    async def run(self, fn: Callable[..., Any], *args: Any) -> Any:
        self.waiting.append(asyncio.get_running_loop().create_future())
        await self.waiting[-1]
        return fn(*args)

    def close(self) -> None: ...


def sent(number: int, data: bytes, index: int = 0) -> bytes:
    return encoded(ApiKey.PRODUCE, 9, produce_request(TOPIC_NAMED, {index: data}), number)


@pytest.mark.parametrize("codec", [codec for codec in Compression if codec])
async def test_a_thread_that_checks_holds_its_own_connection_only(codec: Compression) -> None:
    one, held = await server(True, frame_bytes_max=1 << 20), Held()
    ctx: Any = one.connection._ctx
    ctx.checks = held
    other, answers = (
        Connection(ctx, one.connection._handlers, 1 << 20, Counters(), {}, ConnectionMemory(1 << 30)),
        FakeTransport(),
    )
    other.connection_made(answers)
    large = [Record(0, NOW_MS, None, random.Random(1).randbytes(AT_ONCE_BATCH_BYTES))]
    small = encode_batch([Record(0, NOW_MS, None, b"small")])
    deliver(one.connection, sent(1, encode_batch(large, compression=codec)) + sent(2, small))
    deliver(other, sent(1, small, index=1))
    await settle()
    assert [stream.next_offset for stream in one.streams] == [0, 1]
    assert len(held.waiting) == 1 and not one.connection.idle
    assert one.room.used_bytes == len(small)  # room is for what is ready to be written
    durable(one)
    await settle()
    assert answers.sent and not one.transport.sent

    if codec == Compression.ZSTD:  # who closes meanwhile waits for no room, and what came before that is begun
        one.connection.eof_received()
        await settle()
        assert not one.transport.closed
    held.waiting[0].set_result(None)
    await settle()
    batches = [header for chunk in one.streams[0]._chunks for header, _ in frames(chunk.data)]
    assert [(header.base_offset, header.compression) for header in batches] == [(0, codec), (1, 0)]
    assert one.transport.closed == (codec == Compression.ZSTD)


@pytest.mark.parametrize("together", [True, False])
async def test_what_is_unpacked_counts_as_work_of_the_loops_turn(together: bool) -> None:
    one = await server(together)
    packed = encode_batch([Record(0, NOW_MS, None, bytes(200_000))], compression=Compression.ZSTD)
    deliver(one.connection, b"".join(sent(number, packed) for number in range(16)))
    assert 1 <= one.streams[0].next_offset <= 4, "16 come out as 3 MB: too much for one turn"
    await settle()
    assert one.streams[0].next_offset == 16


async def test_a_check_that_fails_in_a_new_way_gives_its_room_back(monkeypatch: pytest.MonkeyPatch) -> None:
    one = await server(False)
    monkeypatch.setattr("streamlake.handlers.produce.check_at_once", lambda *_: 1 / 0)
    deliver(one.connection, sent(1, encode_batch([Record(0, NOW_MS, None, b"v")], compression=Compression.GZIP)))
    assert one.transport.closed and one.room.used_bytes == 0


@pytest.mark.parametrize("version", [9, 10, 12])
@pytest.mark.parametrize("together", [True, False])
async def test_who_asks_a_former_leader_is_told_the_new_one(
    monkeypatch: pytest.MonkeyPatch, together: bool, version: int
) -> None:
    """KIP-951: of a partition that moves while the records are on their way to the disk."""
    monkeypatch.setattr(leaders, "opener_of", lambda ctx, topic, index: Leader(OTHER.node, 7))
    one = await server(together)
    data = encode_batch([Record(0, NOW_MS, None, b"v")])
    deliver(one.connection, encoded(ApiKey.PRODUCE, version, produce_request(TOPIC_NAMED, {0: data}), 1))
    one.streams[0].fail(Closed("it moves"))
    await settle()
    answer = decode_response(api(ApiKey.PRODUCE), version, bytes(one.transport.sent)[4:])
    assert only(answer).error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER
    hint = only(answer).current_leader
    nodes = [(e.node_id, e.host, e.port) for e in answer.node_endpoints]
    if version >= 10:
        assert (hint.leader_id, hint.leader_epoch, nodes) == (2, 7, [(2, "two", 9002)])
    else:
        assert (hint.leader_id, nodes) == (-1, [])


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("ends_by", ["another broker", "time", "the client"])
async def test_a_refusal_waits_until_it_is_known_who_has_the_partition(
    monkeypatch: pytest.MonkeyPatch, together: bool, ends_by: str
) -> None:
    """So do the answers after it, whose requests have begun all the same."""
    if ends_by == "time":
        monkeypatch.setattr("streamlake.handlers.produce.REFUSAL_WAIT_S", 0.0)
    monkeypatch.setattr(leaders, "opener_of", lambda ctx, topic, index: Leader(OTHER.node, 7))
    one = await server(together)
    ctx: Any = one.connection._ctx
    moving = asyncio.get_running_loop().create_future()
    ctx.logs = SimpleNamespace(get=lambda _, index: one.partitions[index] if index else None)
    ctx.handovers = SimpleNamespace(until_over=lambda _, index: None if index else moving)
    data = encode_batch([Record(0, NOW_MS, None, b"v")])
    for number, index in enumerate((0, 1)):
        asked = produce_request(TOPIC_NAMED, {index: data})
        deliver(one.connection, encoded(ApiKey.PRODUCE, NEWEST_NAMED, asked, number))
    await settle()
    durable(one)
    await settle()
    assert one.partitions[1].high_watermark == 1
    if ends_by == "another broker":
        assert not one.transport.sent
        moving.set_result(None)
    if ends_by == "the client":
        one.connection.connection_lost(None)
        moving.set_result(None)
        await settle()
        assert not one.transport.sent and one.counters.failures == 0
        return
    await until(lambda: one.transport.sent)
    await settle()
    sent, answers = bytes(one.transport.sent), []
    while sent:
        size = 4 + int.from_bytes(sent[:4], "big")
        answers.append(only(decode_response(api(ApiKey.PRODUCE), NEWEST_NAMED, sent[4:size])))
        sent = sent[size:]
    assert [answer.error_code for answer in answers] == [ErrorCode.NOT_LEADER_OR_FOLLOWER, 0]
    assert (answers[0].current_leader.leader_id, answers[0].current_leader.leader_epoch) == (OTHER.node, 7)


async def test_a_partition_that_closes_while_its_batch_is_checked_says_so() -> None:
    one, held = await server(True, frame_bytes_max=1 << 20), Held()
    ctx: Any = one.connection._ctx
    ctx.checks = held
    large = [Record(0, NOW_MS, None, random.Random(1).randbytes(AT_ONCE_BATCH_BYTES))]
    deliver(one.connection, sent(1, encode_batch(large, compression=Compression.LZ4)))
    await settle()
    one.partitions[0].close()
    held.waiting[0].set_result(None)
    await settle()
    assert ErrorCode.NOT_LEADER_OR_FOLLOWER.to_bytes(2, "big") in bytes(one.transport.sent)
    assert one.streams[0].next_offset == one.room.used_bytes == 0


@pytest.mark.parametrize("codec", [codec for codec in Compression if codec])
def test_large_batches_for_several_partitions(client: Client, codec: Compression) -> None:
    topic = client.create_topic(partitions=4)
    large = encode_batch([Record(0, -1, None, random.Random(1).randbytes(200_000))], compression=codec)
    torn = with_payload(codec, b"torn" * 50_000)
    request = produce_request(topic, {0: large, 1: torn, 2: batch([b"v"]), 3: large, 9: large})
    (answered,) = client.newest(ApiKey.PRODUCE, request).responses
    assert [(p.index, p.error_code) for p in answered.partition_responses] == [
        (0, 0), (1, ErrorCode.INVALID_RECORD), (2, 0), (3, 0), (9, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
    ]  # fmt: skip
    assert "damaged" in answered.partition_responses[1].error_message or codec == Compression.LZ4


def test_a_duplicate_in_the_pipeline_of_its_original(client: Client, topic: Topic) -> None:
    for number in range(2):
        client.post(ApiKey.PRODUCE, NEWEST, produce_request(topic, {0: idempotent(0)}), correlation_id=number)
    for number in range(2):
        assert only(client.answer(ApiKey.PRODUCE, NEWEST, correlation_id=number)).base_offset == 0


def test_log_append_time_is_told(client: Client) -> None:
    topic = client.create_topic(message_timestamp_type="LogAppendTime")
    answer = client.produce(topic.name, batch([b"v"]))
    assert answer.log_append_time_ms > 1_700_000_000_000


def test_a_request_without_topics(client: Client) -> None:
    assert client.newest(ApiKey.PRODUCE, produce.ProduceRequest(acks=-1)).responses == ()


def test_stage_one_gives_back_the_room_of_what_it_refuses() -> None:
    """Else a client with a wrong topic name would fill the memory budget for ever."""
    released: list[int] = []

    class Topics:
        def get(self, _name: str) -> None:
            return None

    class Streams:
        def release(self, size_bytes: int) -> None:
            released.append(size_bytes)

    class Context:
        topics = Topics()

    data = (produce.PartitionProduceData(index=0, records=b"12345"),)
    request = produce.ProduceRequest(topic_data=(produce.TopicProduceData(name="nowhere", partition_data=data),))
    with Reservation(Streams(), 5) as reservation:
        (part,) = stage_one(Context(), request, reservation, None, {})
    assert isinstance(part.outcome, Failure)
    assert released == [5]


def test_stage_one_gives_back_what_is_left_when_a_partition_fails_in_a_new_way() -> None:
    """A bug ends its connection; the room that the request had reserved must not go with it."""
    released: list[int] = []

    class Taken:
        appended_bytes = 3

    class Checked(bytes):
        is_transactional = False

    class Partition:
        leader_epoch = 0

        def check(self, records: memoryview) -> Checked:
            return Checked(records)

        def append(self, records: Checked) -> Taken:
            if len(records) == 3:
                return Taken()
            raise ZeroDivisionError

    class Topics:
        def get(self, _name: str) -> TopicInfo:
            partitions = (PartitionInfo(0, 1, 0),)
            return TopicInfo("t", UUID(int=1), {}, partitions)

    class Logs:
        def get(self, _topic_id: UUID, _index: int) -> Partition:
            return Partition()

    class Streams:
        def release(self, size_bytes: int) -> None:
            released.append(size_bytes)

    class Context:
        topics, logs = Topics(), Logs()

    data = tuple(produce.PartitionProduceData(index=0, records=records) for records in (b"123", b"12345"))
    request = produce.ProduceRequest(topic_data=(produce.TopicProduceData(name="t", partition_data=data),))
    with pytest.raises(ZeroDivisionError), Reservation(Streams(), 8) as reservation:
        stage_one(Context(), request, reservation, None, {})
    assert released == [5]
