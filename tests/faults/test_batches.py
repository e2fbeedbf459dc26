"""Record batches that lie, on a real server: what Produce answers, and what the table makes of what it let pass.

The broker reads uncompressed batches record by record and takes compressed ones at the word of their header
(record/validate.py), so a compressed lie reaches the table, where it is one dead letter and the topic goes on.
"""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Message, Producer
from support import lake
from support.raw_kafka import RawClient, batch, bomb, signed, with_payload
from support.server import Server
from support.wait import DEADLINE_S

from streamlake.protocol.errors import ErrorCode
from streamlake.record.compression import Compression, compress

MIB = 1 << 20
CODECS = [Compression.GZIP, Compression.SNAPPY, Compression.LZ4, Compression.ZSTD]
COUNT_AT, LAST_DELTA_AT, LENGTH_AT, MAGIC_AT, ATTRIBUTES_AT = 57, 23, 8, 16, 21
BOMBS = {  # as much as a batch of 1 MB can hold: 1 GiB where the codec packs a thousandfold
    Compression.GZIP: 960 * MIB,
    Compression.SNAPPY: 21 * MIB,
    Compression.LZ4: 224 * MIB,
    Compression.ZSTD: 1024 * MIB,
}


def patched(data: bytes, at: int, layout: str, *values: int) -> bytes:
    changed = bytearray(data)
    struct.pack_into(layout, changed, at, *values)
    return bytes(changed)


GOOD = batch([b"a", b"b", b"c"])
REFUSED = {
    "a wrong CRC": (patched(GOOD, len(GOOD) - 1, ">B", 0xEE), ErrorCode.CORRUPT_MESSAGE, "CRC"),
    "a torn batch": (GOOD[:-1], ErrorCode.CORRUPT_MESSAGE, "whole batch"),
    "bytes after the batch": (GOOD + b"x", ErrorCode.CORRUPT_MESSAGE, "whole batch"),
    "nothing": (b"", ErrorCode.INVALID_RECORD, "one batch"),
    "two batches": (GOOD + GOOD, ErrorCode.INVALID_RECORD, "one batch"),
    "a negative length": (patched(GOOD, LENGTH_AT, ">i", -1), ErrorCode.CORRUPT_MESSAGE, "length|claims"),
    "magic 3": (patched(GOOD, MAGIC_AT, ">b", 3), ErrorCode.CORRUPT_MESSAGE, "magic 3"),
    "magic 0": (patched(GOOD, MAGIC_AT, ">b", 0), ErrorCode.UNSUPPORTED_FOR_MESSAGE_FORMAT, "v0 is not supported"),
    "magic 1": (patched(GOOD, MAGIC_AT, ">b", 1), ErrorCode.UNSUPPORTED_FOR_MESSAGE_FORMAT, "v1 is not supported"),
    "more records than there are": (
        signed(patched(patched(GOOD, COUNT_AT, ">i", 4), LAST_DELTA_AT, ">i", 3)),
        ErrorCode.INVALID_RECORD,
        "ends before|within",
    ),
    "fewer records than there are": (
        signed(patched(patched(GOOD, COUNT_AT, ">i", 2), LAST_DELTA_AT, ">i", 1)),
        ErrorCode.INVALID_RECORD,
        "follow|not within",
    ),
    "a count that is not that of the offsets": (
        signed(patched(GOOD, LAST_DELTA_AT, ">i", 2**31 - 1)), ErrorCode.INVALID_RECORD, "last offset delta",
    ),
    "no records": (
        signed(patched(patched(GOOD, COUNT_AT, ">i", 0), LAST_DELTA_AT, ">i", -1)),
        ErrorCode.INVALID_RECORD,
        "at least one",
    ),
    "a control batch": (signed(patched(GOOD, ATTRIBUTES_AT, ">h", 0x20)), ErrorCode.INVALID_RECORD, "control"),
    "a codec nobody knows": (signed(patched(GOOD, ATTRIBUTES_AT, ">h", 5)), ErrorCode.INVALID_RECORD, "codec 5"),
    "garbage as records": (with_payload(Compression.NONE, b"\xff" * 500), ErrorCode.INVALID_RECORD, ""),
    "over max.message.bytes": (batch([bytes(1_048_588)]), ErrorCode.MESSAGE_TOO_LARGE, "max.message.bytes"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_produce_refuses_what_it_can_see(server: Server, topic: Callable[[], str], what: str) -> None:
    records, code, says = REFUSED[what]
    name = lake.create_topic(server, topic())
    with RawClient(server.port) as client:
        answer = client.produce(name, records)
        assert (answer.error_code, answer.base_offset) == (code, -1)
        assert answer.error_message
        assert any(part in answer.error_message for part in says.split("|")), answer.error_message
        assert client.produce(name, GOOD).base_offset == 0  # the connection goes on, and no offset was used up


def test_confluent_kafka_is_told_that_a_message_is_too_large(server: Server, topic: Callable[[], str]) -> None:
    name = lake.create_topic(server, topic())
    lake.set_config(server, name, max_message_bytes="2000")
    errors: list[Any] = []

    def delivered(error: Any, _: Message) -> None:
        errors.append(error)

    producer = Producer({"bootstrap.servers": server.bootstrap, "message.max.bytes": 10_000_000})
    producer.produce(name, bytes(3000), on_delivery=delivered)
    producer.flush(DEADLINE_S)
    producer.produce(name, bytes(1000), on_delivery=delivered)
    assert producer.flush(DEADLINE_S) == 0
    assert errors[0].name() == "MSG_SIZE_TOO_LARGE" and not errors[0].retriable()
    assert errors[1] is None


def test_a_produce_request_that_can_never_fit_the_log_says_so(new_server: Callable[..., Server]) -> None:
    """Over the WAL segment, although the topic would allow it."""
    config = "[tables]\nenabled = false\n[storage]\nwal_segment_bytes = 1048576\nwal_capacity_bytes = 4194304\n"
    server = new_server(config).start()
    lake.create_topic(server, "large")
    lake.set_config(server, "large", max_message_bytes="10000000")
    with RawClient(server.port) as client:
        answer = client.produce("large", batch([bytes(2 * MIB)]))
        assert answer.error_code == ErrorCode.MESSAGE_TOO_LARGE
        assert "segment" in answer.error_message
        assert client.produce("large", GOOD).error_code == 0


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
