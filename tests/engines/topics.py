"""The topics that engines are asked about: every type of column, every kind of partition, and what readers get wrong.

`produce` sends them through a real server; `rows` says from what was sent, and from nothing else, which rows the table
must have.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from math import inf, nan
from typing import Any
from uuid import UUID

from confluent_kafka import Producer
from support.avro import Subject, record
from support.lake import create_topic
from support.server import Server
from support.wait import DEADLINE_S

Row = dict[str, Any]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
FIRST_RECORD_MS = 1_700_000_000_000  # the records' own times are seconds apart, from here on
AVRO = {"convert_value_type": "by_schema_id", "transform_value_type": "flatten", "convert_key_type": "string"}


@dataclass(frozen=True)
class Batch:
    """Rows that are committed before the next are sent, so that each batch has files of its own. `sent`: as the producer
    writes them, if tables show them in another way."""

    schema: Mapping[str, Any]
    rows: Sequence[Row]
    partition: int = 0
    sent: Sequence[Row] = ()


@dataclass(frozen=True)
class Topic:
    """`items`: of partition.by. `renamed`: columns that are called otherwise today. `dead`: values that no row can hold,
    sent after all rows. `deleted`: the `n` of rows that an engine deletes afterwards."""

    name: str
    batches: Sequence[Batch]
    items: Sequence[str] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    dead: Sequence[bytes] = ()
    deleted: Sequence[int] = ()

    def rows(self, batches: int | None = None) -> list[Row]:
        """Of all batches, or of the first few, with `_kafka`: as the newest schema calls them."""
        newest = [f["name"] for f in self.batches[-1].schema["fields"]]
        places = self._places()
        found = []
        for batch in self.batches[:batches]:
            for row in batch.rows:
                now = {self.renamed.get(name, name): value for name, value in row.items()}
                found.append({**dict.fromkeys(newest), **now, "_kafka": next(places)[batch.partition]})
        return [row for row in found if row["n"] not in self.deleted]

    def _places(self) -> Iterator["Places"]:
        offsets: dict[int, int] = {}
        for number in range(sum(len(batch.rows) for batch in self.batches)):
            yield Places(self.name, number, offsets)


@dataclass(frozen=True)
class Places:
    """What `_kafka` of a record says that is sent as `number` of its topic, by its partition."""

    topic: str
    number: int
    offsets: dict[int, int]

    def __getitem__(self, partition: int) -> Row:
        offset = self.offsets.get(partition, 0)
        self.offsets[partition] = offset + 1
        return {
            "topic": self.topic,
            "partition": partition,
            "offset": offset,
            "timestamp": EPOCH + timedelta(milliseconds=FIRST_RECORD_MS + 1000 * self.number),
            "timestamp_type": "CreateTime",
            "key": key(self.number),
            "headers": [{"key": name, "value": value} for name, value in headers(self.number)],
        }


def key(number: int) -> str | None:
    return None if number % 3 == 0 else f"key-{number}"


def headers(number: int) -> list[tuple[str, bytes | None]]:
    """Repeated names, an empty value and none at all."""
    return [[], [("trace", b"\x00\xff")], [("a", b"1"), ("b", None), ("a", b"")]][number % 3]


def produce(server: Server, topic: Topic) -> None:
    """The table has all rows when it returns."""
    partitions = 1 + max(batch.partition for batch in topic.batches)
    layout = {"partition_by": f"[{', '.join(topic.items)}]"} if topic.items else {}
    create_topic(server, topic.name, partitions, **AVRO, **layout)
    subject, sent = Subject(server, topic.name), 0
    for batch in topic.batches:
        values = [subject.value(dict(batch.schema), row) for row in batch.sent or batch.rows]
        _send(server, topic.name, values, batch.partition, sent)
        sent += len(values)
        server.wait_for_table(topic.name, sent)
    if topic.dead:
        _send(server, topic.name, topic.dead, 0, sent)
        server.wait_for_table(topic.name, sent, len(topic.dead))


def _send(server: Server, topic: str, values: Sequence[bytes], partition: int, first: int) -> None:
    failed: list[Any] = []
    producer = Producer({"bootstrap.servers": server.bootstrap})
    for number, value in enumerate(values, first):
        producer.produce(
            topic,
            value,
            key=key(number),
            partition=partition,
            timestamp=FIRST_RECORD_MS + 1000 * number,
            headers=headers(number),
            on_delivery=lambda error, _: error and failed.append(error),
        )
    assert producer.flush(DEADLINE_S) == 0
    assert not failed, failed[0]


# -- the topics -------------------------------------------------------------------------------------------------------


def optional(type: Any) -> Any:
    return ["null", type]


def logical(type: Any, name: str, **more: Any) -> Any:
    return {**(type if isinstance(type, dict) else {"type": type}), "logicalType": name, **more}


def columns(*columns: tuple[str, Any, Sequence[Any]]) -> tuple[Mapping[str, Any], list[Row]]:
    """A schema and rows from columns of values; `n` numbers the rows."""
    schema = record(("n", "long"), *((name, optional(type), None) for name, type, _ in columns))
    count = len(columns[0][2])
    assert all(len(values) == count for _, _, values in columns)
    return schema, [{"n": n, **{name: values[n] for name, _, values in columns}} for n in range(count)]


def local(*at: int) -> datetime:
    return datetime(*at)


def utc(*at: int) -> datetime:
    return datetime(*at, tzinfo=UTC)


TIMES = [utc(2024, 2, 29, 12, 30, 1, 123456), None, utc(1, 1, 1), utc(9999, 12, 31, 23, 59, 59, 999999)]
TIMES += [EPOCH - MICROSECOND, EPOCH, utc(1969, 12, 31)]
DATES = [at and at.date() for at in TIMES]
TEXTS = ["plain", None, "", "ü😀 and more than sixteen letters", "sixteen letters\ud7ffand more", 'it\'s "so"\n\\', "z"]
UUIDS = [UUID(int=1), None, UUID(int=0), UUID(int=2**128 - 1), UUID(int=1 << 127), UUID(int=3), UUID(int=4)]
LEG = record(
    ("stop", optional("string"), None), ("at", optional(logical("long", "timestamp-micros")), None), name="Leg"
)
TAGS = {"type": "map", "values": {"type": "array", "items": "string"}}

TYPES_SCHEMA, TYPES_ROWS = columns(
    ("a_boolean", "boolean", [True, None, False, True, False, False, True]),
    ("an_int", "int", [1, None, -(2**31), 2**31 - 1, 0, -1, 7]),
    ("a_long", "long", [1, None, -(2**63), 2**63 - 1, 0, -1, 2**53 + 1]),
    ("a_float", "float", [1.5, None, -inf, inf, nan, -0.0, 2.25]),
    ("a_double", "double", [0.1, None, -inf, inf, nan, -0.0, 1e308]),
    ("a_decimal", logical("bytes", "decimal", precision=9, scale=2),
     [Decimal("1.50"), None, Decimal("-9999999.99"), Decimal("9999999.99"), Decimal("0.00"), Decimal("-0.01"), Decimal("0.01")]),
    ("a_large_decimal", logical({"type": "fixed", "name": "F", "size": 16}, "decimal", precision=38, scale=10),
     [Decimal("1.5000000000"), None, Decimal(f"-{'9' * 28}.{'9' * 10}"), Decimal(f"{'9' * 28}.{'9' * 10}"), Decimal("0.0000000000"), Decimal("-0.0000000001"), Decimal("0.0000000001")]),
    ("a_date", logical("int", "date"), DATES),
    ("a_timestamptz", logical("long", "timestamp-micros"), TIMES),
    ("a_timestamp", logical("long", "local-timestamp-micros"), [at and at.replace(tzinfo=None) for at in TIMES]),
    ("a_string", "string", TEXTS),
    ("an_enum", {"type": "enum", "name": "E", "symbols": ["RED", "GREEN"]}, ["RED", None, "GREEN", "RED", "RED", "GREEN", "RED"]),
    ("a_binary", "bytes", [b"plain", None, b"", b"\xff" * 20, b"\x00", b"\xc3\x28", b"z"]),
    ("a_fixed", {"type": "fixed", "name": "X", "size": 4}, [b"four", None, b"\0" * 4, b"\xff" * 4, b"\x80\0\0\0", b"abcd", b"zzzz"]),
    ("a_uuid", logical("string", "uuid"), UUIDS),
    ("a_list", {"type": "array", "items": optional("int")}, [[1, 2, 3], None, [], [None], [1, None], [-1], [7]]),
    ("a_map", {"type": "map", "values": optional("long")}, [{"a": 1}, None, {}, {"b": None}, {"x": 1, "ü": 2}, {"": 0}, {"z": 7}]),
    ("a_struct", record(("x", optional("double"), None), ("word", optional("string"), None), name="S"),
     [{"x": 1.5, "word": "a"}, None, {"x": None, "word": None}, {"x": nan, "word": ""}, {"x": -1.0, "word": "b"}, {"x": 0.0, "word": None}, {"x": inf, "word": "z"}]),
    ("nested", {"type": "array", "items": record(("legs", {"type": "array", "items": LEG}), ("tags", TAGS), name="Trip")},
     [[{"legs": [{"stop": "a", "at": EPOCH - MICROSECOND}], "tags": {"t": ["x", "y"]}}], None, [], [{"legs": [], "tags": {}}],
      [{"legs": [{"stop": None, "at": None}], "tags": {"t": []}}] * 2, [{"legs": [], "tags": {"u": [""]}}], []]),
)  # fmt: skip
UNION_SCHEMA = record(("n", "long"), ("either", ["null", "int", "string"], None))
UNION_SENT = [{"n": n, "either": value} for n, value in enumerate([1, "b", None])]
UNION_ROWS = [
    {"n": 0, "either": {"int": 1, "string": None}},
    {"n": 1, "either": {"int": None, "string": "b"}},
    {"n": 2, "either": None},
]

CLOCK_SCHEMA, CLOCK_ROWS = columns(
    ("in_millis", logical("int", "time-millis"), [time(12, 30, 0, 123000), None, time(), time(23, 59, 59, 999000)]),
    ("in_micros", logical("long", "time-micros"), [time(12, 30, 0, 123456), None, time(), time(23, 59, 59, 999999)]),
)

AROUND_1970 = [
    EPOCH - MICROSECOND,
    EPOCH,
    EPOCH + MICROSECOND,
    utc(1969, 12, 31),
    utc(1969, 12, 31, 22, 59, 59),
    utc(1969, 11, 30),
]
AROUND_1970 += [utc(1968, 12, 31, 23, 59, 59, 999999), utc(1970, 1, 1, 1), utc(2024, 2, 29, 12), None]


def in_time(name: str, item: str) -> Topic:
    schema, rows = columns(
        ("at", logical("long", "timestamp-micros"), AROUND_1970),
        ("local", logical("long", "local-timestamp-micros"), [t and t.replace(tzinfo=None) for t in AROUND_1970]),
        ("day", logical("int", "date"), [t and t.date() for t in AROUND_1970]),
    )
    return Topic(name, [Batch(schema, rows)], [item])


IDS = [0, 1, -1, 34, 2**62, -(2**63), 2**63 - 1, -10, -11, None]
NAMES = ["", "iceberg", "ice", "ü😀x", "it's", "a/b c", None, "é", "ICE", "z" * 300]
KINDS_OF_TYPES = (
    ("id", "long", IDS),
    ("small", "int", [0, 1, -1, 34, 2**31 - 1, -(2**31), -5, -10, -11, None]),
    ("name", "string", NAMES),
    ("amount", logical("bytes", "decimal", precision=9, scale=2),
     [Decimal("0.00"), Decimal("1.00"), Decimal("-0.01"), Decimal("14.20"), Decimal("-1.00"), Decimal("10.65"),
      Decimal("-10.65"), None, Decimal("99.99"), Decimal("0.05")]),
    ("blob", "bytes", [b"", b"\x00\x01\x02\x03", b"\xff", b"ice", b"iceberg", None, b"\x80" * 40, b"a", b"b", b"c"]),
    ("code", logical("string", "uuid"), [UUID(int=n) if n else None for n in range(10)]),
    ("day", logical("int", "date"), [t and t.date() for t in AROUND_1970]),
    ("at", logical("long", "timestamp-micros"), AROUND_1970),
    ("flag", "boolean", [True, False, None] * 3 + [True]),
    ("ratio", "double", [nan, 0.0, -0.0, inf, -inf, None, 1.5, nan, -1.5, 1e300]),
)  # fmt: skip


def by(name: str, *items: str) -> Topic:
    schema, rows = columns(*KINDS_OF_TYPES)
    return Topic(name, [Batch(schema, rows[a:b]) for a, b in ((0, 5), (5, 6), (6, 10))], items)


def place(*fields: tuple[Any, ...]) -> Any:
    return record(*fields, name="Place")


OLD = record(
    ("n", "long"),
    ("kind", optional("int"), None),
    ("ratio", optional("float"), None),
    ("amount", optional(logical("bytes", "decimal", precision=9, scale=2)), None),
    ("name", optional("string"), None),
    ("place", optional(place(("x", "int"))), None),
    ("gone", optional("string"), None),
)
NEW = record(
    ("n", "long"),
    ("kind", optional("long"), None),
    ("ratio", optional("double"), None),
    ("amount", optional(logical("bytes", "decimal", precision=18, scale=2)), None),
    ("title", optional("string"), None),
    ("place", optional(place(("x", "long"), ("y", optional("string"), None))), None),
    ("extra", optional({"type": "map", "values": "int"}), None),
    ("gone", optional("string"), None),
)
NEW["fields"][4]["aliases"] = ["name"]
EVOLVED = Topic(
    "evolved",
    [
        Batch(OLD, [
            {"n": 0, "kind": -1, "ratio": 1.5, "amount": Decimal("1.50"), "name": "a", "place": {"x": 1}, "gone": "g"},
            {"n": 1, "kind": 7, "ratio": -inf, "amount": Decimal("-9999999.99"), "name": "b", "place": {"x": -1}, "gone": None},
            {"n": 2, "kind": None, "ratio": None, "amount": None, "name": None, "place": None, "gone": None},
        ]),
        Batch(NEW, [
            {"n": 3, "kind": 7, "ratio": 0.1, "amount": Decimal("9999999999999999.99"), "title": "b",
             "place": {"x": 2**40, "y": "y"}, "extra": {"e": 1}, "gone": None},
            {"n": 4, "kind": 2**40, "ratio": 1.5, "amount": Decimal("1.50"), "title": "c", "place": {"x": 1, "y": None},
             "extra": {}, "gone": "g"},
        ]),
    ],
    ["kind"],
    {"name": "title"},
)  # fmt: skip

TYPES = Topic(
    "types", [Batch(TYPES_SCHEMA, TYPES_ROWS[a:b], a % 2) for a, b in ((0, 3), (3, 5), (5, 7))], dead=[b"bad"]
)
UNIONS = Topic("unions", [Batch(UNION_SCHEMA, UNION_ROWS, sent=UNION_SENT)])
CLOCK = Topic("clock", [Batch(CLOCK_SCHEMA, CLOCK_ROWS)])
DOTTED = Topic("orders.of-today.v1", [Batch(*columns(("select", "string", ["a", None, "b"])))])
IN_TIME = [
    in_time("by_hour", "hour(at)"),
    in_time("by_day", "day(at)"),
    in_time("by_month", "month(at)"),
    in_time("by_year", "year(at)"),
    in_time("by_local_day", "day(local)"),
    in_time("by_month_of_date", "month(day)"),
]
BY_VALUE = [
    by("by_bucket", "bucket(id, 4)", "bucket(name, 4)", "bucket(day, 4)", "bucket(amount, 4)"),
    by("by_other_bucket", "bucket(at, 4)", "bucket(blob, 4)", "bucket(code, 4)", "bucket(small, 4)"),
    by("by_truncate", "truncate(id, 10)", "truncate(small, 10)", "truncate(name, 2)"),
    by("by_other_truncate", "truncate(amount, 50)", "truncate(blob, 2)"),
    by("by_text", "name"),
    by("by_number", "id", "small", "amount", "flag"),
    by("by_moment", "day", "at"),
    by("by_bytes", "blob", "code"),
    by("by_float", "ratio"),
]
EDITED = Topic("edited", [Batch(*columns(("word", "string", ["a", None, "b", "c"])))] * 2, deleted=[1, 2])
TOPICS = [TYPES, UNIONS, CLOCK, DOTTED, EDITED, EVOLVED, *IN_TIME, *BY_VALUE]
