"""The envelopes of Debezium's Avro, JSON and Protobuf converters become rows; what is none has a reason."""

import json
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.table_records import Registry, record, records, settings, wire

from streamlake.core.errors import Invalid
from streamlake.table.formats.converted import Reason
from streamlake.table.formats.json import native
from streamlake.table.formats.port import WriterSchema
from streamlake.table.formats.resolve import SchemaCache
from streamlake.table.rows import pipeline
from streamlake.table.rows.debezium import changes
from streamlake.table.rows.pipeline import Translated

ROW = record(("id", "int"), ("name", ["null", "string"]), name="Value")
SOURCE = record(("db", "string"), ("lsn", ["null", "long"]), name="Source")
ENVELOPE = record(
    ("before", ["null", ROW]),
    ("after", ["null", "Value"]),
    ("source", SOURCE),
    ("op", "string"),
    ("ts_ms", ["null", "long"]),
    ("transaction", ["null", record(("id", "string"), name="Block")]),
    name="Envelope",
)
AVRO = settings(convert_value="by_schema_id", transform_value="flatten_debezium")
JSON = settings(convert_value="json", transform_value="flatten_debezium")
AT = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
TS_MS = 1_700_000_000_000


def change(op: str, before: Any = None, after: Any = None, **more: Any) -> dict[str, Any]:
    source = {"db": "shop", "lsn": 7}
    return {"before": before, "after": after, "source": source, "op": op, "ts_ms": TS_MS, "transaction": None, **more}


def avro(*values: dict[str, Any]) -> list[bytes]:
    return [wire(1, ENVELOPE, value) for value in values]


def translate(values: list[bytes | None], options: Any = AVRO, schemas: Any = None, **more: Any) -> Translated:
    cache = SchemaCache(Registry(schemas or {1: ENVELOPE}))
    return pipeline.translate(records(values), options, cache, "t", **more)


def rows(translated: Translated) -> tuple[dict[int, dict[str, Any]], dict[int, tuple[str, str]]]:
    """By offset, without `_kafka`; and the dead letters by row."""
    evolved = pipeline.evolve(None, translated)
    table = pipeline.assemble(translated, evolved)
    table.validate(full=True)
    found = {row["_kafka"]["offset"]: row for row in table.to_pylist()}
    for row in found.values():
        del row["_kafka"]
    return found, {error.row: (error.reason, error.message) for error in evolved.dead}


def test_changes_in_avro_become_rows() -> None:
    one, two = {"id": 1, "name": "a"}, {"id": 1, "name": None}
    found, dead = rows(
        translate([*avro(change("c", None, one), change("u", one, two), change("d", two), change("r", None, one))])
    )
    beside = {"_op_ts": AT, "_source": {"db": "shop", "lsn": 7}}
    assert dead == {}
    assert found == {
        0: {**one, "_op": "c", **beside},
        1: {**two, "_op": "u", **beside},
        2: {**two, "_op": "d", **beside},
        3: {**one, "_op": "r", **beside},
    }  # fmt: skip


def test_tombstones_are_left_out_and_counted() -> None:
    values = [*avro(change("c", None, {"id": 1, "name": "a"})), None, None]
    translated = translate(values)
    assert (translated.tombstones, len(translated.records)) == (2, 1)
    found, dead = rows(translated)
    assert (list(found), dead) == ([0], {})


def test_a_settled_dead_letter_is_not_a_tombstone_too() -> None:
    translated = translate([None, None], dead_offsets={(0, 1)})
    assert (translated.tombstones, len(translated.records)) == (1, 0)


def test_a_tombstone_that_is_asked_for_is_an_error() -> None:
    for options in (AVRO, JSON):
        translated = translate([None], options, leave_tombstones=False)
        assert translated.tombstones == 0
        assert [(e.row, e.reason) for e in translated.dead] == [(0, Reason.INVALID_ENVELOPE)]


WRONG = [
    ("d", None, "a delete without the row `before` it"),
    ("u", None, "op u without the row `after` it"),
    ("t", None, "op 't' is not a change of one row"),
    ("", None, "it has no `op`"),
]


@pytest.mark.parametrize(("op", "after", "why"), WRONG)
def test_what_is_no_change_is_a_dead_letter(op: str, after: Any, why: str) -> None:
    good = change("c", None, {"id": 1, "name": "a"})
    for values, options in (
        (avro(good, change(op, None, after), good), AVRO),
        ([json.dumps(v).encode() for v in (good, change(op, None, after), good)], JSON),
    ):
        found, dead = rows(translate([*values], options))
        assert sorted(found) == [0, 2]
        assert dead[1][0] == Reason.INVALID_ENVELOPE and why in dead[1][1]


def test_schemas_that_are_no_envelope() -> None:
    plain = record(("id", "int"))
    text = record(("op", "string"), ("after", ["null", "string"]))  # as MongoDB's connector writes documents
    union = record(("op", "string"), ("after", ["null", "int", "string"]))
    schemas = {1: plain, 2: text, 3: '"string"', 4: union}
    values = [wire(1, plain, {"id": 1}), wire(2, text, {"op": "c", "after": "{}"}), wire(3, "string", "x")]
    values.append(wire(4, union, {"op": "c", "after": 1}))
    found, dead = rows(translate([*values], schemas=schemas))
    assert found == {} and {reason for reason, _ in dead.values()} == {Reason.INVALID_ENVELOPE}
    assert "no text `op`" in dead[0][1] and "no record `before` or `after`" in dead[1][1]
    assert "has no fields" in dead[2][1] and "no record" in dead[3][1]


def test_columns_of_a_row_that_have_our_names_get_a_number() -> None:
    row = record(("_op", "int"), ("op", "int"), ("_source", "int"), name="Value")
    schema = record(("before", ["null", row]), ("after", ["null", "Value"]), ("op", "string"), name="Envelope")
    value = wire(1, schema, {"before": None, "after": {"_op": 1, "op": 2, "_source": 3}, "op": "c"})
    found, dead = rows(translate([value], schemas={1: schema}))
    assert (found, dead) == ({0: {"_op_2": 1, "op": 2, "_source": 3, "_op": "c"}}, {})


def test_images_of_two_types_and_one_without_before() -> None:
    """A connector whose `before` has the key alone, and one that sends no `before` at all."""
    key = record(("id", "int"), name="Key")
    two = record(("before", ["null", key]), ("after", ["null", ROW]), ("op", "string"), name="Envelope")
    one = record(("after", ["null", ROW]), ("op", "string"), name="Envelope")
    values = [
        wire(1, two, {"before": {"id": 1}, "after": {"id": 1, "name": "a"}, "op": "u"}),
        wire(1, two, {"before": {"id": 2}, "after": None, "op": "d"}),
        wire(2, one, {"after": {"id": 3, "name": "c"}, "op": "c"}),
        wire(2, one, {"after": None, "op": "d"}),
    ]
    found, dead = rows(translate([*values], schemas={1: two, 2: one}))
    assert found == {
        0: {"id": 1, "name": "a", "_op": "u"},
        1: {"id": 2, "name": None, "_op": "d"},
        2: {"id": 3, "name": "c", "_op": "c"},
    }
    assert list(dead) == [3]


def test_times_that_no_engine_reads_are_null() -> None:
    row = {"id": 1, "name": "a"}
    values = avro(*(change("c", None, row, ts_ms=ts) for ts in (None, -1, 2**62, TS_MS)))
    found, _ = rows(translate([*values]))
    assert [found[offset]["_op_ts"] for offset in range(4)] == [None, None, None, AT]
    found, _ = rows(translate(avro(change("c", None, row, ts_ms=None))))  # type: ignore[arg-type]
    assert found[0]["_op_ts"] is None


PROTO = """syntax = "proto3";
message Envelope {
  Value before = 1; Value after = 2; Source source = 3; string op = 4; int64 ts_ms = 5;
  message Value { int32 id = 1; optional string name = 2; }
  message Source { string db = 1; }
}"""


def test_changes_in_protobuf() -> None:
    source = b"\x1a\x06\x0a\x04shop"
    tail = source + b"\x22\x01%s" + b"\x28\x80\xd0\x95\xff\xbc\x31"
    head = b"\0\0\0\0\1\0"
    after, before = b"\x12\x05\x08\x01\x12\x01a", b"\x0a\x02\x08\x02"
    values = [head + after + tail % b"c", head + before + tail % b"d", head + tail % b"u"]
    found, dead = rows(translate([*values], schemas={1: WriterSchema("PROTOBUF", PROTO)}))
    beside = {"_op_ts": AT, "_source": {"db": "shop"}}
    assert found == {0: {"id": 1, "name": "a", "_op": "c", **beside}, 1: {"id": 2, "name": None, "_op": "d", **beside}}
    assert list(dead) == [2]


@pytest.fixture(params=[True, False], ids=["kernel", "twin"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if not request.param:
        monkeypatch.setattr(native, "_kernel", None)
    elif native._kernel is None:
        pytest.skip("no C compiler")
    return bool(request.param)


def test_changes_in_json_with_and_without_a_schema_around_them(kernel: bool) -> None:
    one, two = {"id": 1, "tags": ["x"]}, {"id": 1, "tags": "y", "price": 0.5}
    bare = [change("c", None, one), change("u", one, two), change("d", two)]
    values = [json.dumps(value).encode() for value in bare]
    values += [json.dumps({"schema": {"type": "struct"}, "payload": value}).encode() for value in bare]
    translated = translate([*values, b"[]", b'{"op":"c","after":[1]}', b'{"id":1}'], JSON)
    assert translated.rest_rows == 4
    found, dead = rows(translated)
    beside = {"_op_ts": AT, "_source": json.dumps({"db": "shop", "lsn": 7})}
    wanted = [
        {"id": 1, "tags": ["x"], "price": None, "_rest": None, "_op": "c", **beside},
        {"id": 1, "tags": None, "price": 0.5, "_rest": '{"tags":"y"}', "_op": "u", **beside},
        {"id": 1, "tags": None, "price": 0.5, "_rest": '{"tags":"y"}', "_op": "d", **beside},
    ]
    assert [found[at] for at in range(6)] == wanted * 2
    assert [dead[at][0] for at in (6, 7, 8)] == ["invalid_value", "invalid_value", "invalid_envelope"]
    assert dead[7][1].startswith("the row of the change: ")


ids = st.none() | st.integers(0, 3).map(lambda n: {"id": n, "name": str(n)})
envelopes = st.builds(change, st.sampled_from(["c", "r", "u", "d", "t", ""]), ids, ids)


@given(sent=st.lists(st.none() | envelopes, max_size=12))
def test_any_changes(sent: list[dict[str, Any] | None]) -> None:
    """Rows, tombstones and dead letters are all of the records, and each row is the image that its op asks for."""
    for encode, options in ((lambda v: avro(v)[0], AVRO), (lambda v: json.dumps(v).encode(), JSON)):
        translated = translate([None if v is None else encode(v) for v in sent], options)
        found, dead = rows(translated)
        images = {}
        for offset, value in enumerate(sent):
            image = None if value is None else value["before" if value["op"] == "d" else "after"]
            if value is not None and image is not None and value["op"] in ("c", "r", "u", "d"):
                images[offset] = (image["id"], image["name"], value["op"])
        assert {offset: (row["id"], row["name"], row["_op"]) for offset, row in found.items()} == images
        assert translated.tombstones == sent.count(None)
        assert len(found) + len(dead) + translated.tombstones == len(sent)


leaves = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5)
names = st.sampled_from(["op", "before", "after", "source", "ts_ms", "payload", "schema", "_rest", "_op", "a", ""])
objects = st.recursive(
    leaves | st.sampled_from(["c", "u", "d"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=6),
    max_leaves=20,
)
hostile = st.none() | st.binary(max_size=20) | objects.map(lambda value: json.dumps(value).encode())
torn = st.builds(lambda value, cut: value if value is None else value[: len(value) - cut], hostile, st.integers(0, 3))


@given(sent=st.lists(hostile | torn, max_size=8))
def test_whatever_is_sent_is_a_row_a_tombstone_or_a_dead_letter(sent: list[bytes | None]) -> None:
    """By the kernel and by its twin alike."""
    seen = []
    for kernel in (native._kernel, None):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(native, "_kernel", kernel)
            translated = translate([*sent], JSON)
            found, dead = rows(translated)
        assert len(found) + len(dead) + translated.tombstones == len(sent)
        seen.append((repr(found), dead))
    assert seen[0] == seen[1]


def test_a_schema_tells_what_rows_will_be() -> None:
    cache = SchemaCache(Registry({1: ENVELOPE}))
    (group,) = cache.get(1).read(pa.array([], pa.binary()), pa.array([], pa.int64()), 0).groups
    (found,), faults = changes(group)
    assert found.type is not None and faults == []
    with pytest.raises(Invalid, match="not an envelope"):
        changes(found)
