"""Produce: what is taken, what is refused, and with which code."""

import struct
import time
from collections.abc import Mapping
from uuid import UUID

from differ.scenario import scenario
from differ.side import Side
from support.raw_kafka import signed, with_payload
from support.wire import Topic, produce_request

from streamlake.protocol.messages import ApiKey
from streamlake.record.batch import CONTROL_BIT, MAGIC_AT, TRANSACTIONAL_BIT
from streamlake.record.compression import Compression
from streamlake.record.decode import Record
from streamlake.record.encode import encode_batch

NOW_MS = time.time_ns() // 1_000_000  # the same bytes go to both
ATTRIBUTES_AT, LAST_OFFSET_DELTA_AT, COUNT_AT = 21, 23, 57
BASE_TIMESTAMP_AT = 27


def numbered(count: int, later_ms: int = 0, compression: Compression = Compression.NONE, **fields: int) -> bytes:
    """Values 0, 1, 2, …"""
    records = [Record(at, NOW_MS + later_ms + at, None, b"%d" % at) for at in range(count)]
    return encode_batch(records, compression=compression, **fields)


def changed(batch: bytes, at: int, form: str, value: int, sign: bool = True) -> bytes:
    """With another value in its header, and the CRC that is right for it unless it must not be."""
    copy = bytearray(batch)
    struct.pack_into(form, copy, at, value)
    return signed(copy) if sign else bytes(copy)


def send(side: Side, topic: Topic, records: bytes, partition: int = 0) -> None:
    answer = side.quietly(ApiKey.PRODUCE, produce_request(topic, {partition: records}))
    assert answer.responses[0].partition_responses[0].error_code == 0, answer


@scenario
def produce(side: Side) -> None:
    topic = side.topic("produced", 2)
    for version in range(3, 14):
        side.ask("a batch", ApiKey.PRODUCE, version, produce_request(topic, {0: numbered(2)}))
        side.ask("to an unknown partition", ApiKey.PRODUCE, version, produce_request(topic, {9: numbered(1)}))
        unknown = produce_request(Topic("never-there", UUID(int=77)), {0: numbered(1)})
        side.ask("to an unknown topic", ApiKey.PRODUCE, version, unknown)
    for acks in (1, 2, -2):
        side.newest(f"acks {acks}", ApiKey.PRODUCE, produce_request(topic, {0: numbered(1)}, acks=acks))
    side.newest("two partitions, one bad", ApiKey.PRODUCE, produce_request(topic, {0: numbered(1), 5: numbered(1)}))
    side.newest("no records", ApiKey.PRODUCE, produce_request(topic, {}))
    for compression in Compression:
        packed = numbered(3, compression=compression)
        side.newest(f"{compression.name.lower()}", ApiKey.PRODUCE, produce_request(topic, {1: packed}))


@scenario
def produce_with_append_time(side: Side) -> None:
    topic = side.topic("stamped", message_timestamp_type="LogAppendTime")
    side.newest("log append time", ApiKey.PRODUCE, produce_request(topic, {0: numbered(1)}))


@scenario
def produce_bad_batches(side: Side) -> None:
    for number, (note, records) in enumerate(bad_batches().items()):
        topic = side.topic(f"refusing-{number}")
        side.every(note, ApiKey.PRODUCE, produce_request(topic, {0: records}), (9, 13))
    small = side.topic("small-batches", max_message_bytes="200")
    side.newest("too large", ApiKey.PRODUCE, produce_request(small, {0: numbered(100)}))


def bad_batches() -> Mapping[str, bytes | None]:
    good = numbered(3)
    return {
        "empty records": b"",
        "a wrong checksum": changed(good, 60, ">b", 7, sign=False),
        "truncated": good[:-5],
        "truncated in its header": good[:40],
        "a length alone": good[:12],
        "bytes behind it": good + b"\x00" * 7,
        "two batches": good + good,
        "magic 0": changed(good, MAGIC_AT, ">b", 0),
        "magic 1": changed(good, MAGIC_AT, ">b", 1),
        "magic 3": changed(good, MAGIC_AT, ">b", 3),
        "magic -1": changed(good, MAGIC_AT, ">b", -1),
        "base offset 5": changed(good, 0, ">q", 5),
        "base offset -1": changed(good, 0, ">q", -1),
        "length 0": changed(good, 8, ">i", 0),
        "length -1": changed(good, 8, ">i", -1),
        "length below the header": changed(good, 8, ">i", 40),
        "length beyond its end": changed(good, 8, ">i", 4000),
        "count 0": changed(good, COUNT_AT, ">i", 0),
        "count -1": changed(good, COUNT_AT, ">i", -1),
        "count 2 of 3": changed(good, COUNT_AT, ">i", 2),
        "count 4 of 3": changed(good, COUNT_AT, ">i", 4),
        "last offset delta 5": changed(good, LAST_OFFSET_DELTA_AT, ">i", 5),
        "last offset delta 1": changed(good, LAST_OFFSET_DELTA_AT, ">i", 1),
        "last offset delta -1": changed(good, LAST_OFFSET_DELTA_AT, ">i", -1),
        "unknown compression 5": changed(good, ATTRIBUTES_AT, ">h", 5),
        "unknown compression 7": changed(good, ATTRIBUTES_AT, ">h", 7),
        "control": changed(good, ATTRIBUTES_AT, ">h", CONTROL_BIT),
        "transactional without an id": changed(good, ATTRIBUTES_AT, ">h", TRANSACTIONAL_BIT),
        "producer without epoch": numbered(1, producer_id=5),
        "producer without sequence": numbered(1, producer_id=5, producer_epoch=0),
        "sequence without producer": numbered(1, base_sequence=0),
        "not gzip": with_payload(Compression.GZIP, b"this is not gzip"),
        "not snappy": with_payload(Compression.SNAPPY, b"this is not snappy"),
        "not lz4": with_payload(Compression.LZ4, b"this is not lz4"),
        "not zstd": with_payload(Compression.ZSTD, b"this is not zstd"),
    }


@scenario
def produce_idempotent(side: Side) -> None:
    topic = side.topic("idempotent")

    def asks(note: str, sequence: int, epoch: int = 0, producer_id: int = 4711, count: int = 1) -> None:
        batch = numbered(count, producer_id=producer_id, producer_epoch=epoch, base_sequence=sequence)
        side.newest(f"idempotent: {note}", ApiKey.PRODUCE, produce_request(topic, {0: batch}))

    asks("first", 0)
    asks("second", 1)
    asks("duplicate", 1)
    asks("gap", 5)
    asks("not from the beginning", 3, producer_id=4712)
    asks("next epoch", 0, epoch=1)
    asks("former epoch", 2, epoch=0)
    asks("next epoch not from zero", 7, epoch=2)
