"""JSON by schema id: the column, the errors of single rows, and schemas that refer to others."""

import json
from typing import Any

import pyarrow as pa
import pytest
from support.json_cases import CASES, schema, value

from streamlake.core.errors import Invalid
from streamlake.table.formats import by_schema_id
from streamlake.table.formats.converted import Reason
from streamlake.table.formats.json.convert import compile_reader
from streamlake.table.formats.port import Reference, WriterSchema
from streamlake.table.formats.resolve import SchemaCache

HEADER = b"\0\0\0\0\1"


class Source:
    def __init__(self, *schemas: Any) -> None:
        self._schemas = schemas

    def get(self, schema_id: int) -> WriterSchema:
        return WriterSchema("JSON", json.dumps(self._schemas[schema_id - 1]))


def convert(tree: Any, *bodies: bytes) -> tuple[dict[int, Any], dict[int, tuple[Reason, str]]]:
    column = pa.array([HEADER + body for body in bodies], pa.binary())
    found = by_schema_id.convert(column, Reason.INVALID_VALUE, SchemaCache(Source(tree)))
    rows: dict[int, Any] = {}
    for group in found.groups:
        group.values.validate(full=True)
        rows |= zip(group.rows.to_pylist(), group.values.to_pylist(), strict=True)
    return rows, {error.row: (error.reason, error.message) for error in found.errors}


def test_values_of_every_kind() -> None:
    rows, errors = convert(schema(), json.dumps(value()).encode(), b"{}")
    assert errors == {}
    shown = {f"f{n}": case.shown for n, case in enumerate(CASES) if case.column}
    assert {key: dict(found) if isinstance(found, list) and found and isinstance(found[0], tuple) else found
            for key, found in rows[0].items()} == shown  # fmt: skip
    assert rows[1] == dict.fromkeys(shown)


def test_bad_values_hurt_their_own_row_only() -> None:
    tree = {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "array", "items": {"type": "string"}}},
    }
    good = b'{"a":1}'
    rows, errors = convert(
        tree, good, b'{"a":"x"}', b'{"b":["x",{}]}', b"", b"[]", b"null", b'{"a":1}{}', b"\xff", good
    )
    assert rows == {0: {"a": 1, "b": None}, 5: None, 8: {"a": 1, "b": None}}
    messages = {row: message for row, (_, message) in errors.items()}
    assert {reason for reason, _ in errors.values()} == {Reason.INVALID_VALUE}
    assert messages[1] == "not a value of schema 1: a is '\"x\"', not an integer of 64 bits"
    assert "b[1] is '{}', not a text" in messages[2]
    assert "there is no JSON value" in messages[3]
    assert "the value is '[]', not an object" in messages[4]
    assert "not one JSON value" in messages[6]
    assert "not UTF-8" in messages[7]


def test_a_schema_that_is_no_object() -> None:
    assert convert({"type": "string"}, b'"x"', b"1")[0] == {0: "x"}
    assert convert({"type": "array", "items": {"type": "integer"}}, b"[1, 2]")[0] == {0: [1, 2]}
    assert convert(True, b"[1, 2]")[0] == {0: "[1, 2]"}
    assert convert(False, b"{}", b"{")[0] == {0: None}


def test_schemas_that_no_table_can_hold() -> None:
    rows, errors = convert({"properties": {f"p{n}": {} for n in range(6_000)}}, b"{}")
    assert rows == {} and errors[0][0] == Reason.UNSUPPORTED_SCHEMA


def test_schemas_with_references() -> None:
    country = WriterSchema("JSON", '{"type": "string"}')
    home = WriterSchema(
        "JSON", '{"properties": {"country": {"$ref": "country.json"}}}', (Reference("country.json", "c", 1, country),)
    )
    text = '{"$id": "http://x/visit.json", "properties": {"home": {"$ref": "home.json"}, "from": {"$ref": "country.json"}}}'
    references = (Reference("home.json", "h", 1, home), Reference("country.json", "c", 1, country))
    reader = compile_reader(WriterSchema("JSON", text, references))
    found = reader.read(pa.array([b'{"home":{"country":"x"},"from":"y"}'], pa.binary()), pa.array([0]), 0)
    assert found.groups[0].values.to_pylist() == [{"home": {"country": "x"}, "from": "y"}]


def test_schemas_that_are_none() -> None:
    for text in ("", "5", '{"$ref": "nowhere"}', '{"$schema": "http://x"}', "[" * 100_000):
        with pytest.raises(Invalid):
            compile_reader(WriterSchema("JSON", text))
    with pytest.raises(Invalid, match="was not fetched"):
        compile_reader(WriterSchema("JSON", "{}", (Reference("a", "b", 1),)))
