"""Which Iceberg type each Avro type becomes, and which schemas are refused, whatever their text."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.table_records import record

from streamlake.core.errors import Invalid
from streamlake.table.formats.avro.schema import compile_schema
from streamlake.table.formats.source_schema import SourceList, SourceMap, SourceStruct


def shown(type) -> object:
    match type:
        case SourceStruct(fields):
            return {field.segment: shown(field.type) for field in fields}
        case SourceList(element):
            return [shown(element)]
        case SourceMap(_, value):
            return ("map", shown(value))
    return str(type)


def compiled(schema):
    return compile_schema(json.dumps(schema))


@pytest.mark.parametrize(
    ("schema", "type"),
    [
        ("boolean", "boolean"),
        ("int", "int"),
        ("long", "long"),
        ("float", "float"),
        ("double", "double"),
        ("bytes", "binary"),
        ("string", "string"),
        ({"type": "string"}, "string"),
        ({"type": "fixed", "name": "F", "size": 3}, "fixed[3]"),
        ({"type": "enum", "name": "E", "symbols": ["A"]}, "string"),
        ({"type": "int", "logicalType": "date"}, "date"),
        ({"type": "int", "logicalType": "time-millis"}, "time"),
        ({"type": "long", "logicalType": "time-micros"}, "time"),
        ({"type": "long", "logicalType": "timestamp-millis"}, "timestamptz"),
        ({"type": "long", "logicalType": "timestamp-nanos"}, "timestamptz"),
        ({"type": "long", "logicalType": "local-timestamp-micros"}, "timestamp"),
        ({"type": "bytes", "logicalType": "decimal", "precision": 5, "scale": 2}, "decimal(5, 2)"),
        ({"type": "fixed", "name": "F", "size": 4, "logicalType": "decimal", "precision": 5}, "decimal(5, 0)"),
        ({"type": "string", "logicalType": "uuid"}, "uuid"),
        ({"type": "fixed", "name": "F", "size": 16, "logicalType": "uuid"}, "uuid"),
        ({"type": "fixed", "name": "F", "size": 12, "logicalType": "duration"}, "fixed[12]"),
        ({"type": "long", "logicalType": "date"}, "long"),  # nonsense is ignored
        ({"type": "string", "logicalType": "whatever"}, "string"),
        (["null", "int"], "int"),
        (["int", "null"], "int"),
        (["int"], "int"),
        (["null", "int", "string"], {"int": "int", "string": "string"}),
        (["int", record(("a", "int"), name="x.y.Z")], {"int": "int", "x.y.Z": {"a": "int"}}),
        ({"type": "array", "items": ["null", "int"]}, ["int"]),
        ({"type": "map", "values": "long"}, ("map", "long")),
        (
            record(("a", "int"), ("gone", "null"), ("b", record(("c", "string"), name="B"))),
            {"a": "int", "b": {"c": "string"}},
        ),
        (record(("a", {"type": "fixed", "name": "F", "size": 2}), ("b", "F")), {"a": "fixed[2]", "b": "fixed[2]"}),
        ("null", "None"),
        (record(), "None"),
        (record(("a", "null"), ("b", record(name="Empty"))), "None"),
    ],
)
def test_types(schema, type) -> None:
    assert shown(compiled(schema).type) == type


def test_a_type_may_be_called_like_a_kind_of_type() -> None:
    named = record(("a", record(("x", "int"), name="record")), ("b", "record"), ("c", ["null", "record"]))
    assert shown(compiled(named).type) == {"a": {"x": "int"}, "b": {"x": "int"}, "c": {"x": "int"}}


def test_a_fixed_of_no_bytes_is_no_column() -> None:
    empty = {"type": "fixed", "name": "F", "size": 0}
    assert shown(compiled(record(("a", empty), ("b", ["null", "F"]), ("c", "int"))).type) == {"c": "int"}


def test_aliases_and_docs_come_along() -> None:
    schema = {"type": "record", "name": "R", "fields": [{"name": "b", "type": "int", "aliases": ["a"], "doc": "size"}]}
    (field,) = compiled(schema).type.fields
    assert (field.name, field.aliases, field.doc) == ("b", ("a",), "size")


def test_a_branch_wishes_for_its_short_name() -> None:
    first, second = compiled(["int", record(("a", "int"), name="x.y.Z")]).type.fields
    assert (first.name, second.name, second.segment) == ("int", "Z", "x.y.Z")


def doubling(levels: int):
    """Few bytes of schema, 2**levels columns."""
    schema = record(("x", "int"), name="L0")
    for level in range(1, levels):
        schema = record(("l", schema), ("r", f"L{level - 1}"), name=f"L{level}")
    return schema


def nested(levels: int):
    schema: object = "int"
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        (record(("next", ["null", "R"])), "contains itself"),
        (record(("a", {"type": "array", "items": "R"})), "contains itself"),
        ({"type": "array", "items": "null"}, "list of null"),
        ({"type": "array", "items": record()}, "list of null or of empty"),
        ({"type": "array", "items": ["null"]}, "list of null"),
        ({"type": "map", "values": "null"}, "map to null"),
        ({"type": "fixed", "name": "F", "size": 65_537}, "at most 65536 bytes"),
        ({"type": "fixed", "name": "F", "size": -1}, "at most"),
        ({"type": "array", "items": {"type": "fixed", "name": "F", "size": 0}}, "list of null"),
        ({"type": "bytes", "logicalType": "decimal", "precision": 39}, "38 digits"),
        (record(("a", "int"), ("a", "int")), "two fields of one name"),
        (["int", "string", "int"], "two types of one name"),
        (doubling(14), "more than 5,000 types"),
        (nested(65), "more than 64 levels"),
        ({"type": "nonsense"}, "not an Avro schema"),
        ({"openapi": "3.0"}, "not an Avro schema"),
        (5, "not an Avro schema"),
    ],
)
def test_refused(schema, why) -> None:
    with pytest.raises(Invalid, match=why):
        compiled(schema)


def test_text_that_is_no_json_or_nested_without_end_is_refused() -> None:
    for text in ("", "syntax = proto3;", "[" * 100_000):
        with pytest.raises(Invalid):
            compile_schema(text)


JSON = st.recursive(
    st.sampled_from(["int", "null", "record", "array", "R", "x", "name", 1, None, True]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "name", "fields", "items", "values", "symbols", "size", "logicalType"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_any_json_compiles_or_is_refused(schema) -> None:
    try:
        compile_schema(json.dumps(schema))
    except Invalid:
        pass
