"""Good and bad records in between each other: each ends exactly once, in the table or beside it, and nothing stalls."""

import os
import random
import signal
import struct
from collections.abc import Callable
from typing import Any

from confluent_kafka import Message, Producer
from support import lake
from support.avro import Subject, record
from support.server import Server
from support.wait import DEADLINE_S

PARTITIONS = 3
OLD = record(("id", "long"), ("name", "string"))
NEW = record(("id", "long"), ("name", "string"), ("note", ["null", "string"], None))
OTHER = record(("id", "string"))  # not what the column `id` holds
TREE = record(("children", {"type": "array", "items": "Tree"}), name="Tree")  # no table can hold it
AVRO = {"convert_value_type": "by_schema_id", "transform_value_type": "flatten"}


class Mix:
    """Makes records of every kind and knows where each must end: a row, or a dead letter with its reason."""

    def __init__(self, subject: Subject, seed: int) -> None:
        self._subject = subject
        self._rng = random.Random(seed)
        self._other = subject.register_elsewhere(OTHER, "somewhere-else")
        self._tree = subject.register_elsewhere(TREE, "a-tree")
        self._good = subject.value(OLD, {"id": 0, "name": "x"})

    def make(self, number: int) -> tuple[bytes | None, bytes | None, tuple[Any, ...] | str]:
        """(key, value, columns of its row or the reason that there is none)."""
        key: bytes | None = f"key-{number}".encode()
        kind = self._rng.choice(["old", "old", "new", "null", "no key", *BAD])
        match kind:
            case "old" | "no key":
                value = self._subject.value(OLD, {"id": number, "name": "old"})
                return None if kind == "no key" else key, value, (number, "old", None)
            case "new":
                return key, self._subject.value(NEW, {"id": number, "name": "new", "note": "n"}), (number, "new", "n")
            case "null":
                return key, None, (None, None, None)
        value, reason = self._bad(kind)
        if kind == "key that is no text":
            key = b"\xff\xfe" + struct.pack(">i", number)
        return key, value, reason

    def _bad(self, kind: str) -> tuple[bytes, str]:
        good, rng = self._good, self._rng
        match kind:
            case "unknown id":
                return b"\x00" + struct.pack(">i", 900_000 + rng.randrange(5)) + good[5:], "unknown_schema"
            case "largest id":
                return b"\x00\xff\xff\xff\xff" + good[5:], "unknown_schema"
            case "magic":
                return b"\x01" + good[1:], "invalid_value"
            case "short":
                return good[: rng.randrange(5)], "invalid_value"
            case "cut off":
                return good[:-1], "invalid_value"
            case "bytes left over":
                return good + b"!", "invalid_value"
            case "garbage":
                return good[:5] + b"\xff" * rng.randrange(1, 50), "invalid_value"
            case "string of 2 GB":
                return good[:5] + b"\x00" + b"\xfe\xff\xff\xff\x0f", "invalid_value"
            case "not UTF-8":
                return good[:5] + b"\x02\x04\xc3\x28", "invalid_value"
            case "JSON":
                return b'{"id": 1}', "invalid_value"
            case "other schema":
                return b"\x00" + struct.pack(">i", self._other) + b"\x02x", "incompatible_schema"
            case "recursive schema":
                return b"\x00" + struct.pack(">i", self._tree) + b"\x00", "unsupported_schema"
        return good, "invalid_key"


BAD = ["unknown id", "largest id", "magic", "short", "cut off", "bytes left over", "garbage", "string of 2 GB",
       "not UTF-8", "JSON", "other schema", "recursive schema", "key that is no text"]  # fmt: skip


def test_every_record_ends_once_in_the_table_or_in_its_dead_letters(
    table_server: Server, topic: Callable[[], str]
) -> None:
    name = lake.create_topic(table_server, topic(), PARTITIONS, **AVRO)
    subject = Subject(table_server, name)
    mix = Mix(subject, seed=3)
    producer = Producer({"bootstrap.servers": table_server.bootstrap, "linger.ms": 2})
    rows: dict[tuple[int, int], tuple[Any, ...]] = {}
    dead: dict[tuple[int, int], tuple[Any, ...]] = {}

    def produce(number: int) -> None:
        key, value, expected = mix.make(number)
        headers = [("h", str(number).encode()), ("h", None), ("", b"\xff")]

        def delivered(error: Any, message: Message) -> None:
            assert error is None, error
            at = message.partition(), message.offset()
            if isinstance(expected, str):
                dead[at] = expected, key, value, headers
            else:
                rows[at] = *expected, None if key is None else key.decode()

        producer.produce(name, value, key, partition=number % PARTITIONS, headers=headers, on_delivery=delivered)

    # The first record decides the columns' types, and both schemas must be known to be compatible.
    good = subject.value(OLD, {"id": -1, "name": "first"})
    producer.produce(name, good, partition=0)
    assert producer.flush(DEADLINE_S) == 0
    rows[0, 0] = -1, "first", None, None
    table_server.wait_for_table(name, 1)
    for number in range(900):
        produce(number)
        if number == 400:
            assert producer.flush(DEADLINE_S) == 0
            os.kill(table_server.worker_pid(), signal.SIGKILL)
    assert producer.flush(DEADLINE_S) == 0

    assert len(rows) + len(dead) == 901
    table = table_server.wait_for_table(name, len(rows), len(dead))
    assert table["lag"] == 0 and table["state"] == "running"
    found = lake.query(
        table_server, f'SELECT _kafka.partition, _kafka."offset", id, name, note, _kafka.key FROM "{name}"'
    )
    assert len(found) == len(rows)
    assert {(p, o): tuple(rest) for p, o, *rest in found} == rows
    letters = lake.query(
        table_server,
        f'SELECT partition, "offset", last_offset, reason, error, topic, key, value, headers FROM "{name}__dlq"',
    )
    assert len(letters) == len(dead)
    assert all(first == last and text and named == name for _, first, last, _, text, named, *_ in letters)
    as_sent = {
        (p, o): (reason, key, value, [(h["key"], h["value"]) for h in headers])
        for p, o, _, reason, _, _, key, value, headers in letters
    }
    assert as_sent == dead
    assert {reason for reason, *_ in dead.values()} == {
        "invalid_value", "invalid_key", "unknown_schema", "unsupported_schema", "incompatible_schema",
    }  # fmt: skip


def test_tolerance_none_stops_the_table_at_the_first_bad_record_and_nothing_else(
    table_server: Server, topic: Callable[[], str]
) -> None:
    """The topic and the other tables go on; told to tolerate it, the table goes on too."""
    name = lake.create_topic(table_server, topic(), errors_tolerance="none", **AVRO)
    neighbour = lake.create_topic(table_server, topic(), **AVRO)
    subject = Subject(table_server, name)
    good = subject.value(OLD, {"id": 1, "name": "x"})
    producer = Producer({"bootstrap.servers": table_server.bootstrap})
    for value in (good, good, b"bad", good):
        producer.produce(name, value)
        producer.produce(neighbour, good)
    assert producer.flush(DEADLINE_S) == 0
    table_server.wait_for_table(neighbour, 4)
    message = lake.wait_for_state(table_server, name, "failed")
    assert "partition 0 offset 2: invalid_value" in message and "streamlake.table.errors.tolerance" in message
    lake.set_config(table_server, name, streamlake_table_errors_tolerance="all")
    table_server.wait_for_table(name, 3, 1)
