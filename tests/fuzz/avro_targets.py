"""Avro: the schema texts that people register, and values that claim to be of one.

A value is read by the table path (by_schema_id). Where it gives a row, fastavro with the schema as it is reads the
value too; where both do, plain types must be equal.
"""

import dataclasses
import functools
import json
import random
from io import BytesIO
from typing import Any

import fastavro
import pyarrow as pa
from fuzz.target import MIB, Target

from streamlake.core.errors import Invalid, NotFound
from streamlake.registry.avro.compatibility import incompatibilities
from streamlake.registry.avro.schema import parse_schema
from streamlake.registry.levels import Level
from streamlake.table.formats import by_schema_id
from streamlake.table.formats.avro.convert import AvroReader
from streamlake.table.formats.avro.schema import compile_schema
from streamlake.table.formats.converted import Converted, Reason
from streamlake.table.formats.port import WriterSchema
from streamlake.table.formats.resolve import SchemaCache
from streamlake.table.rows.evolve import evolve
from streamlake.table.rows.flatten import value_columns

VALUES_EACH = 4


def _record(*fields: Any) -> dict[str, Any]:
    return {"type": "record", "name": "R", "fields": [{"name": f"f{i}", "type": t} for i, t in enumerate(fields)]}


def _logical(type: str, name: str, **more: Any) -> dict[str, Any]:
    return {"type": type, "logicalType": name, **more}


_INNER = {
    "type": "record",
    "name": "Inner",
    "namespace": "n.s",
    "fields": [{"name": "x", "type": ["null", "long"], "default": None}],
}
_ENUM = {"type": "enum", "name": "E", "symbols": ["A", "B", "C"], "default": "A"}
_FIXED = {"type": "fixed", "name": "F", "size": 5}

# Schemas with values: all types, all that nests, all logical types.
SCHEMAS: list[tuple[Any, list[Any]]] = [
    ("boolean", [True]),
    ("int", [0, -(2**31)]),
    ("long", [2**63 - 1]),
    ("float", [1.5]),
    ("double", [-0.25]),
    ("bytes", [b"abc"]),
    ("string", ["héllo"]),
    (_ENUM, ["B"]),
    (_FIXED, [b"12345"]),
    ({"type": "array", "items": "string"}, [["a", "b"], []]),
    ({"type": "array", "items": ["null", "long"]}, [[None, 5, None]]),
    ({"type": "map", "values": "long"}, [{"a": 1, "b": 2}]),
    ({"type": "map", "values": {"type": "array", "items": _INNER}}, [{"k": [{"x": 1}, {"x": None}]}]),
    ({"type": "array", "items": {"type": "array", "items": {"type": "array", "items": "int"}}}, [[[[1], [2, 3]], [[]]]]),
    (["null", "string"], [None, "x"]),
    (["null", "int", "string", "double", _INNER], [None, 1, "s", 2.5, {"x": 3}]),
    (_record("int", "string", ["null", "double"], _INNER, {"type": "map", "values": "bytes"}), [{"f0": 1, "f1": "x", "f2": None, "f3": {"x": 7}, "f4": {"a": b"b"}}]),
    (_record("null", "boolean", ["null", {"type": "array", "items": _ENUM}]), [{"f0": None, "f1": True, "f2": ["A", "C"]}]),
    (_record(_logical("int", "date"), _logical("int", "time-millis"), _logical("long", "time-micros"), _logical("long", "timestamp-millis"), _logical("long", "timestamp-micros"), _logical("long", "local-timestamp-micros")), [{f"f{i}": 1 for i in range(6)}]),
    (_record(_logical("bytes", "decimal", precision=10, scale=2), {**_FIXED, **_logical("fixed", "decimal", precision=9, scale=2)}, _logical("string", "uuid")), [{"f0": b"\x01\x02", "f1": b"\0\0\0\0\x09", "f2": "5f2d9f2a-3f65-4c5e-9f6d-0e5d4c1a2b3c"}]),
    (_record(["null", _record(*(["long"] * 60)) | {"name": "Wide"}]), [{"f0": None}]),
    ({"type": "array", "items": ["null", {"type": "record", "name": "W", "fields": [{"name": f"c{i}", "type": "double"} for i in range(40)]}]}, [[None] * 50]),
]  # fmt: skip


class _OneSchema:
    """Implements SchemaSource: every id below the number of schemas is known."""

    def get(self, schema_id: int) -> WriterSchema:
        if schema_id >= len(SCHEMAS):
            raise NotFound(f"no schema {schema_id}")
        return WriterSchema("AVRO", json.dumps(SCHEMAS[schema_id][0]))


class _Twins(SchemaCache):
    """Schemas without the native reader."""

    def get(self, schema_id: int) -> AvroReader:
        reader = super().get(schema_id)
        assert isinstance(reader, AvroReader)
        return AvroReader(dataclasses.replace(reader.schema, native=None), reader.text)


_CACHE, _TWINS = SchemaCache(_OneSchema()), _Twins(_OneSchema())


@functools.cache
def _own(schema_id: int) -> Any:
    return fastavro.parse_schema(_without_logical(SCHEMAS[schema_id][0]))


def _without_logical(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_logical(branch) for branch in schema]
    if not isinstance(schema, dict):
        return schema
    return {k: _without_logical(v) if k in ("type", "items", "values", "fields") else v for k, v in schema.items() if k != "logicalType"}  # fmt: skip


def value_seeds() -> list[bytes]:
    """A whole value of the wire format: five bytes of header, then Avro."""
    seeds = []
    for schema_id, (_, values) in enumerate(SCHEMAS):
        for value in values:
            out = BytesIO()
            fastavro.schemaless_writer(out, _own(schema_id), value)
            seeds.append(schema_id.to_bytes(5, "big") + out.getvalue())
    return [*seeds, b"\0\0\0\0\x09" + b"\x01\x04\x02a\x00"]  # a block with its size in bytes: a negative count


def check_value(data: bytes) -> None:
    """One bad value is one error of its row, and never spoils its neighbours."""
    neighbour = value_seeds()[data[4] % 5] if len(data) > 4 else b""
    column = pa.array([data, neighbour, None], pa.binary())
    found = by_schema_id.convert(column, Reason.INVALID_VALUE, _CACHE)
    same(found, by_schema_id.convert(column, Reason.INVALID_VALUE, _TWINS))
    rows = sorted(row for group in found.groups for row in group.rows.to_pylist())
    assert sorted(rows + [error.row for error in found.errors]) == [0, 1]
    assert neighbour == b"" or 1 in rows
    if 0 not in rows:
        return
    (group,) = [group for group in found.groups if 0 in group.rows.to_pylist()]
    schema_id = int.from_bytes(data[1:5], "big")
    stream = BytesIO(data[5:])
    theirs = fastavro.schemaless_reader(stream, _own(schema_id))
    assert stream.tell() == len(data) - 5
    if isinstance(SCHEMAS[schema_id][0], str):
        ours = group.values[group.rows.to_pylist().index(0)].as_py()
        assert ours == theirs or (ours != ours and theirs != theirs)


def same(native: Converted, twin: Converted) -> None:
    assert [(e.row, e.reason) for e in native.errors] == [(e.row, e.reason) for e in twin.errors]
    for ours, theirs in zip(native.groups, twin.groups, strict=True):
        ours.values.validate(full=True)
        assert ours.rows.equals(theirs.rows)
        assert ours.values.type == theirs.values.type
        assert repr(ours.values.to_pylist()) == repr(theirs.values.to_pylist())  # and not ==, because of NaN


# -- schema texts ------------------------------------------------------------------------------------------------------

_NAMES = ("name", "type", "fields", "items", "values", "symbols", "size", "default", "namespace", "aliases", "doc",
          "order", "logicalType", "precision", "scale", "null", "int", "long", "string", "bytes", "record", "enum",
          "array", "map", "fixed", "error", "decimal", "R", "Inner", "n.s.Inner", "E", "uuid", "", "a.b.", "\u2603", "f0")  # fmt: skip
DICTIONARY = (
    *(json.dumps(name).encode() for name in _NAMES),
    b"null", b"true", b"-1", b"0", b"1", b"3.5", b"1e400", b"1073741824", b"2147483648", b"99999999999999999999999",
    b"9" * 5000, b"[]", b"{}", b'[""]', b"[1]", b'"\\ud800"', b'"\\udc00\\ud800"', b'"\\u0000"', b'"\xff"', b"\xed\xa0\x80",
    b'{"type":"fixed","name":"G","size":1073741824}', b'{"type":"record","name":"R","fields":[]}', b'"R"',
    b'{"type":"array","items":"null"}', b",", b":", b"]", b"NaN",
)  # fmt: skip


def schema_seeds() -> list[bytes]:
    """Two texts, a line each: the second is registered after the first."""
    texts = [json.dumps(schema) for schema, _ in SCHEMAS]
    recursive = {
        "type": "record",
        "name": "Tree",
        "fields": [{"name": "kids", "type": {"type": "array", "items": "Tree"}}],
    }
    texts += [json.dumps(recursive), json.dumps(_record(_INNER, "n.s.Inner", ["null", "n.s.Inner"])), "nonsense", ""]
    rng = random.Random(6)
    return [f"{text}\n{rng.choice(texts)}".encode() for text in texts] + [f"{text}\n{text}".encode() for text in texts]


def check_schema(data: bytes) -> None:
    """A text that the registry takes in is canonical, can be compared, and a table can hold it or says why not."""
    texts = []
    for line in data.split(b"\n", 1):
        text = line.decode("utf-8", "replace")
        try:
            canonical = parse_schema(text, normalize=len(data) % 3 == 0)
        except Invalid:
            continue
        assert parse_schema(canonical) == canonical
        canonical.encode()
        texts.append(canonical)
        try:
            compile_schema(canonical)
        except Invalid:
            pass
    if len(texts) == 2:
        try:
            incompatibilities(Level.FULL_TRANSITIVE, texts[1], [(1, texts[0])])
        except Invalid:
            pass


def check_compile(data: bytes) -> None:
    """The worker may be given any text: another registry's, or one that was registered by an older version."""
    try:
        found = compile_schema(data.decode("utf-8", "replace"))
    except Invalid:
        return
    if found.type is None or found.build is None:
        return
    values = found.build([])
    assert len(values) == 0
    for flatten in (True, False):
        columns = tuple(column for column, _ in value_columns(found.type, values, flatten=flatten, column="value"))
        (binding,) = evolve(None, [columns]).bindings
        assert binding is not None  # a field map, or why no table can have these columns


TARGETS = [
    Target("avro value", value_seeds, check_value, memory_factor=3000),
    Target("avro schema", schema_seeds, check_schema, DICTIONARY, memory_bytes=64 * MIB),
    Target(
        "table schema",
        lambda: [json.dumps(s).encode() for s, _ in SCHEMAS],
        check_compile,
        DICTIONARY,
        memory_bytes=64 * MIB,
    ),
]
