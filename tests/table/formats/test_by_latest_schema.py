"""Values that name no schema, by the newest of a subject."""

import json
from io import BytesIO
from typing import Any

import fastavro
import pyarrow as pa
import pytest
from support.table_records import Registry, record

from streamlake.core.errors import Invalid, Unavailable
from streamlake.table.formats.by_latest_schema import converter
from streamlake.table.formats.converted import Converted, Reason
from streamlake.table.formats.port import WriterSchema
from streamlake.table.formats.resolve import RoundSchemas, SchemaCache

POINT = record(("x", "int"), ("s", ["null", "string"]))
PROTO = """syntax = "proto3"; package shop;
message First { string name = 1; }
message Order { int64 n = 1; message Line { string sku = 1; } }
enum Kind { NONE = 0; }"""
TREE = 'syntax = "proto3"; package shop; message Tree { repeated Tree children = 1; }'
OBJECT = {"type": "object", "properties": {"n": {"type": "integer"}}}


def avro(value: Any, schema: Any = POINT) -> bytes:
    out = BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(json.loads(json.dumps(schema))), value)
    return out.getvalue()


def registry(schema: Any, kind: str = "AVRO") -> Registry:
    made = Registry({7: WriterSchema(kind, schema if isinstance(schema, str) else json.dumps(schema))})
    made.subjects = {"s": 7}
    return made


def convert(values: list[bytes | None], known: Registry, message: str = "", subject: str = "s") -> Converted:
    return converter(subject, message)(
        pa.array(values, pa.binary()), Reason.INVALID_VALUE, RoundSchemas(SchemaCache(known))
    )


def by_row(converted: Converted) -> dict[int, Any]:
    return {
        row: value
        for group in converted.groups
        for row, value in zip(group.rows.to_pylist(), group.values.to_pylist(), strict=True)
    }


def test_avro_and_what_is_none() -> None:
    found = convert([avro({"x": 1, "s": "a"}), None, b"\xff", avro({"x": 2, "s": None}) + b"!"], registry(POINT))
    assert by_row(found) == {0: {"x": 1, "s": "a"}}
    assert [(e.row, e.reason) for e in found.errors] == [(2, "invalid_value"), (3, "invalid_value")]
    assert "not a value of schema 7: 1 bytes are left over" in found.errors[1].message


@pytest.mark.parametrize(
    ("message", "data", "row"),
    [
        ("", b"\x0a\x02hi", {"1": "hi"}),
        ("shop.First", b"\x0a\x02hi", {"1": "hi"}),
        ("shop.Order", b"\x08\x05", {"1": 5}),
        ("Order", b"\x08\x05", {"1": 5}),
        ("shop.Order.Line", b"\x0a\x01x", {"1": "x"}),
    ],
)
def test_protobuf_by_the_name_of_a_message(message: str, data: bytes, row: Any) -> None:
    found = convert([data, b"\xff"], registry(PROTO, "PROTOBUF"), message)
    assert [list(value.values()) for value in by_row(found).values()] == [list(row.values())]
    assert [e.row for e in found.errors] == [1]


@pytest.mark.parametrize("message", ["shop.Nothing", "shop.Order.Nothing", "shop.Kind"])
def test_a_message_that_the_schema_does_not_have_is_a_wrong_config(message: str) -> None:
    with pytest.raises(Invalid, match=r"no message shop\..* in it, but shop\.First, shop\.Order; set streamlake\.t"):
        convert([b"\x08\x05"], registry(PROTO, "PROTOBUF"), message)


def test_json() -> None:
    found = convert([b'{"n": 3}', b"no"], registry(OBJECT, "JSON"))
    assert [value["n"] for value in by_row(found).values()] == [3]
    assert [e.row for e in found.errors] == [1]


def test_a_schema_that_no_table_can_hold() -> None:
    tree = record(("children", {"type": "array", "items": "R"}))
    for known, message in ((registry(tree), ""), (registry(TREE, "PROTOBUF"), "shop.Tree")):
        found = convert([b"\0", None], known, message)
        assert [(e.row, e.reason) for e in found.errors] == [(0, "unsupported_schema")]


def test_without_a_schema_or_a_registry_no_record_is_judged() -> None:
    known = registry(POINT)
    with pytest.raises(Unavailable, match="has no subject t: the table waits until a schema is registered there"):
        convert([b"x"], known, subject="t")
    known.down = Unavailable("away")
    with pytest.raises(Unavailable, match="away"):
        convert([b"x"], known)
    assert convert([None], known).groups == ()  # and is not asked when there is nothing to read


def test_a_round_has_one_newest_schema_and_the_next_may_have_another() -> None:
    known = registry(POINT)
    schemas = SchemaCache(known)
    first = RoundSchemas(schemas)
    read = converter("s", "")
    values = pa.array([avro({"x": 1, "s": None})], pa.binary())
    read(values, Reason.INVALID_VALUE, first)
    known.schemas[8] = json.dumps(record(("x", "int")))
    known.subjects["s"] = 8
    assert not read(values, Reason.INVALID_VALUE, first).errors
    assert known.asked_latest == ["s"]
    assert read(values, Reason.INVALID_VALUE, RoundSchemas(schemas)).errors
