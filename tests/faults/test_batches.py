"""Record batches that lie, on a real server: what Produce answers, and that nothing of them is stored.

What batches do that are in the log already, from versions that believed compressed ones, is in test_stored_batches.py.
"""

import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import cramjam
import pytest
from confluent_kafka import Message, Producer
from support import lake
from support.raw_kafka import RawClient, batch, bomb, signed, with_payload
from support.server import Server
from support.wait import DEADLINE_S
from support.wire import Topic, encoded, produce_request

from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey
from streamlake.record.batch import HEADER_BYTES
from streamlake.record.compression import Compression, compress

MIB, GIB = 1 << 20, 1 << 30
CODECS = [Compression.GZIP, Compression.SNAPPY, Compression.LZ4, Compression.ZSTD]
COUNT_AT, LAST_DELTA_AT, LENGTH_AT, MAGIC_AT, ATTRIBUTES_AT = 57, 23, 8, 16, 21
LARGE = 300_000  # bytes that do not pack: checked in a thread
BOMBS = {
    Compression.GZIP: 80 * MIB,
    Compression.SNAPPY: 21 * MIB,
    Compression.LZ4: 80 * MIB,
    Compression.ZSTD: 80 * MIB,
}


def patched(data: bytes, at: int, layout: str, *values: int) -> bytes:
    changed = bytearray(data)
    struct.pack_into(layout, changed, at, *values)
    return bytes(changed)


GOOD = batch([b"a", b"b", b"c"])
REFUSED = {
    "a wrong CRC": (patched(GOOD, len(GOOD) - 1, ">B", 0xEE), ErrorCode.CORRUPT_MESSAGE, "CRC"),
    "a torn batch": (GOOD[:-1], ErrorCode.INVALID_RECORD, "whole batch"),
    "bytes after the batch": (GOOD + b"x", ErrorCode.INVALID_RECORD, "whole batch"),
    "a base offset": (patched(GOOD, 0, ">q", 5), ErrorCode.INVALID_RECORD, "base offset 5"),
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


def compressed_lies(codec: Compression) -> dict[str, bytes]:
    """Batches whose header and CRC are right, and whose inside is not."""
    zipped, payload = batch([b"x", b"y", b"z"], codec), batch([b"x", b"y", b"z"])[HEADER_BYTES:]
    large = batch([random.Random(1).randbytes(LARGE)] * 3)[HEADER_BYTES:]
    lies = {
        "not compressed": with_payload(codec, b"not compressed at all", count=5),
        "nothing": with_payload(codec, b""),
        "more claimed": signed(patched(patched(zipped, COUNT_AT, ">i", 9), LAST_DELTA_AT, ">i", 8)),
        "less claimed": signed(patched(patched(zipped, COUNT_AT, ">i", 1), LAST_DELTA_AT, ">i", 0)),
        "garbage inside": with_payload(codec, compress(codec, b"\xff" * 300), count=2),
        "bytes behind the records": with_payload(codec, compress(codec, payload + b"\0"), count=3),
        "bytes behind what is compressed": with_payload(codec, compress(codec, payload) + b"junk", count=3),
        "cut off": with_payload(codec, compress(codec, payload)[:-1], count=3),
        "a large one with a byte behind": with_payload(codec, compress(codec, large + b"\0"), count=3),
        "a large one, cut off": with_payload(codec, compress(codec, large)[:-9], count=3),
        "a bomb": with_payload(codec, bomb(codec, BOMBS[codec])),
        "a base offset": patched(zipped, 0, ">q", 5),
    }
    if codec == Compression.SNAPPY:
        claim = b"\xff\xff\xff\xff\x0f"  # 4 GB
        blocks = b"\x82SNAPPY\x00" + struct.pack(">ii", 1, 1)
        lies["4 GB claimed"] = with_payload(codec, claim + b"abc")
        lies["4 GB claimed in a block"] = with_payload(codec, blocks + struct.pack(">i", 8) + claim + b"abc")
        lies["a block cut off"] = with_payload(codec, blocks + struct.pack(">i", 99) + b"abc")
    if codec == Compression.LZ4:
        packer = cramjam.lz4.Compressor(block_linked=True)
        packer.compress(payload)
        lies["blocks that depend on each other"] = with_payload(codec, bytes(packer.finish()), count=3)
    return lies


@pytest.mark.parametrize("codec", CODECS, ids=lambda c: c.name)
def test_compressed_lies_are_refused_and_other_partitions_stored(
    server: Server, topic: Callable[[], str], codec: Compression
) -> None:
    name = lake.create_topic(server, topic(), partitions=2)
    with RawClient(server.port) as client:
        for stored, (what, lie) in enumerate(compressed_lies(codec).items()):
            answers = client.produce_all(name, {0: lie, 1: batch([b"good"], codec)})
            assert [(a.error_code, a.base_offset) for a in answers] == [(87, -1), (0, stored)], what
            assert answers[0].error_message, what
        assert client.produce(name, GOOD).base_offset == 0  # not one of them used up an offset


@pytest.mark.parametrize("codec", [5, 6, 7])
def test_codecs_that_do_not_exist(server: Server, topic: Callable[[], str], codec: int) -> None:
    name = lake.create_topic(server, topic())
    with RawClient(server.port) as client:
        answer = client.produce(name, signed(patched(GOOD, ATTRIBUTES_AT, ">h", codec)))
        assert (answer.error_code, answer.base_offset) == (ErrorCode.INVALID_RECORD, -1)
        assert f"codec {codec}" in answer.error_message


def test_bombs_cost_bounded_memory(new_server: Callable[..., Server]) -> None:
    """Two threads check, each in 64 MiB of its own."""
    server = new_server("[tables]\nenabled = false\n").start()
    lake.create_topic(server, "bombs")
    request = produce_request(
        Topic("bombs", UUID(int=0)), {0: with_payload(Compression.ZSTD, bomb(Compression.ZSTD, GIB))}
    )
    before = peak_bytes(server)
    clients = [RawClient(server.port) for _ in range(8)]
    for client in clients:
        client.send(encoded(ApiKey.PRODUCE, 9, request))
    for client in clients:
        answer = client.read_answer()
        assert answer is not None and ErrorCode.INVALID_RECORD.to_bytes(2, "big") in answer
        client.close()
    assert 2 * 32 * MIB < peak_bytes(server) - before < 300 * MIB


def peak_bytes(server: Server) -> int:
    assert server.process is not None
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024
