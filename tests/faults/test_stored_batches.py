"""Batches that are in the log although nobody can read them: stored by a version that believed compressed ones, or
damaged where no CRC tells. A table makes one dead letter of each, and consumers can get on.
"""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, TopicPartition
from confluent_kafka.admin import AdminClient
from support import lake
from support.credulous import CredulousServer
from support.raw_kafka import RawClient, batch, bomb, signed, with_payload
from support.server import Server, serve
from support.wait import DEADLINE_S

from streamlake.record.compression import Compression, compress

MIB = 1 << 20
CODECS = [Compression.GZIP, Compression.SNAPPY, Compression.LZ4, Compression.ZSTD]
COUNT_AT, LAST_DELTA_AT = 57, 23
BOMBS = {  # as much as a batch of 1 MB can hold: 1 GiB where the codec packs a thousandfold
    Compression.GZIP: 960 * MIB,
    Compression.SNAPPY: 21 * MIB,
    Compression.LZ4: 224 * MIB,
    Compression.ZSTD: 1024 * MIB,
}
GOOD = batch([b"a", b"b", b"c"])


@pytest.fixture(scope="module")
def table_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from serve(CredulousServer(tmp_path_factory.mktemp("stored")))


def patched(data: bytes, at: int, layout: str, *values: int) -> bytes:
    changed = bytearray(data)
    struct.pack_into(layout, changed, at, *values)
    return bytes(changed)


def worker_peak_bytes(server: Server) -> int:
    status = Path(f"/proc/{server.worker_pid()}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def test_compressed_lies_are_one_dead_letter_each_and_the_table_goes_on(
    table_server: Server, topic: Callable[[], str]
) -> None:
    name = lake.create_topic(table_server, topic(), convert_value_type="string")
    lies: list[bytes] = []
    for codec in CODECS:
        zipped = batch([b"x", b"y", b"z"], codec)
        lies += [
            signed(patched(patched(zipped, COUNT_AT, ">i", 9), LAST_DELTA_AT, ">i", 8)),  # 9 claimed, 3 inside
            signed(patched(patched(zipped, COUNT_AT, ">i", 1), LAST_DELTA_AT, ">i", 0)),
            with_payload(codec, compress(codec, b"\xff" * 300), count=2),  # unpacks, to garbage
            with_payload(codec, b"not compressed at all", count=5),
        ]
    sent: dict[int, bytes] = {}
    dead_positions = good = 0
    with RawClient(table_server.port) as client:
        for lie in lies:
            assert client.produce(name, GOOD).error_code == 0
            answer = client.produce(name, lie)
            assert answer.error_code == 0, answer.error_message
            sent[answer.base_offset] = lie
            dead_positions += struct.unpack_from(">i", lie, COUNT_AT)[0]
            good += 3
        assert client.produce(name, GOOD).error_code == 0
    table_server.wait_for_table(name, good + 3, dead_positions)
    dead = lake.query(table_server, f'SELECT "offset", last_offset, reason, value FROM "default"."{name}__dlq"')
    assert {at: value[16:] for at, _, _, value in dead} == {at: lie[16:] for at, lie in sent.items()}  # offsets apart
    assert {reason for _, _, reason, _ in dead} == {"invalid_batch"}
    assert sum(last - first + 1 for first, last, _, _ in dead) == dead_positions
    rows = lake.query(table_server, f'SELECT count(*), count(DISTINCT _kafka."offset") FROM "{name}"')
    assert rows == [(good + 3, good + 3)]


@pytest.mark.parametrize("codec", CODECS, ids=lambda c: c.name)
def test_a_bomb_is_a_dead_letter_and_costs_little_memory(
    table_server: Server, topic: Callable[[], str], codec: Compression
) -> None:
    name = lake.create_topic(table_server, topic(), convert_value_type="string")
    packed = with_payload(codec, bomb(codec, BOMBS[codec]))
    assert len(packed) < 1_048_588
    with RawClient(table_server.port) as client:
        for records in (GOOD, packed, packed, GOOD):
            answer = client.produce(name, records)
            assert answer.error_code == 0, answer.error_message
    table_server.wait_for_table(name, 6, 2)
    assert worker_peak_bytes(table_server) < 600 * MIB


def test_snappy_that_claims_4_gb_costs_nothing(table_server: Server, topic: Callable[[], str]) -> None:
    name = lake.create_topic(table_server, topic(), convert_value_type="string")
    claim = b"\xff\xff\xff\xff\x0f"
    xerial = b"\x82SNAPPY\x00" + struct.pack(">ii", 1, 1) + struct.pack(">i", len(claim) + 3) + claim + b"abc"
    with RawClient(table_server.port) as client:
        for payload in (claim + b"abc", xerial):
            assert client.produce(name, with_payload(Compression.SNAPPY, payload)).error_code == 0
        assert client.produce(name, GOOD).error_code == 0
    table_server.wait_for_table(name, 3, 2)
    assert worker_peak_bytes(table_server) < 600 * MIB


def test_many_batches_that_unpack_to_much_are_rows_in_bounded_memory(
    table_server: Server, topic: Callable[[], str]
) -> None:
    """30 batches of a few KB are 600 MB of rows: one fetch brings them all."""
    name = lake.create_topic(table_server, topic(), convert_value_type="string")
    packed = batch(["é".encode() * 10 * MIB], Compression.ZSTD)
    with RawClient(table_server.port) as client:
        for _ in range(30):
            assert client.produce(name, packed).error_code == 0
    table_server.wait_for_table(name, 30)
    assert worker_peak_bytes(table_server) < 1200 * MIB


@pytest.mark.parametrize("codec", CODECS, ids=lambda c: c.name)
def test_a_consumer_is_told_where_it_is_and_gets_on(
    table_server: Server, topic: Callable[[], str], codec: Compression
) -> None:
    """By a seek behind the batch, or by DeleteRecords for all consumers."""
    name = lake.create_topic(table_server, topic())
    with RawClient(table_server.port) as client:
        for records in (GOOD, with_payload(codec, b"not compressed at all", count=5), GOOD):
            assert client.produce(name, records).error_code == 0
    settings = {"bootstrap.servers": table_server.bootstrap, "group.id": name, "auto.offset.reset": "earliest"}
    consumer = Consumer(settings)
    consumer.assign([TopicPartition(name, 0, OFFSET_BEGINNING)])
    assert [polled(consumer).offset() for _ in range(3)] == [0, 1, 2]
    told = polled(consumer)
    error = told.error()
    assert error is not None and error.code() in (KafkaError._BAD_COMPRESSION, KafkaError._BAD_MSG), error
    consumer.seek(TopicPartition(name, 0, 8))
    assert [next_record(consumer).offset() for _ in range(3)] == [8, 9, 10]
    consumer.close()

    admin = AdminClient({"bootstrap.servers": table_server.bootstrap})
    (deleted,) = admin.delete_records([TopicPartition(name, 0, 8)]).values()
    assert deleted.result(DEADLINE_S).low_watermark == 8
    other = Consumer(settings)
    other.assign([TopicPartition(name, 0, OFFSET_BEGINNING)])
    assert [polled(other).offset() for _ in range(3)] == [8, 9, 10]
    other.close()


def polled(consumer: Consumer) -> Message:
    message = consumer.poll(30)
    assert message is not None
    return message


def next_record(consumer: Consumer) -> Message:
    """Errors that were queued before a seek are still told after it."""
    while (message := polled(consumer)).error() is not None:
        pass
    return message
