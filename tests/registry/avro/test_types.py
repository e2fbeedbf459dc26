import json

import fastavro
import pytest

from streamlake.core.errors import Invalid
from streamlake.registry.avro.schema import parse_schema
from streamlake.registry.avro.types import LEVELS_MAX, TYPES_MAX, check_types, understood
from streamlake.table.formats.avro.schema import compile_schema


def record(*types, name="R"):
    return {"type": "record", "name": name, "fields": [{"name": f"f{n}", "type": t} for n, t in enumerate(types)]}


def decimal(**attributes):
    return {"type": "bytes", "logicalType": "decimal", **attributes}


def fixed(size, logical, **attributes):
    return {"type": "fixed", "name": "F", "size": size, "logicalType": logical, **attributes}


IGNORED = [
    decimal(),
    decimal(precision=0),
    decimal(precision=-1),
    decimal(precision="5"),
    decimal(precision=5.0),
    decimal(precision=True),
    decimal(precision=None),
    decimal(precision=[5]),
    decimal(precision=2**31),
    decimal(precision=3, scale=5),
    decimal(precision=5, scale=-1),
    decimal(precision=5, scale="2"),
    decimal(precision=5, scale=1.0),
    decimal(precision=5, scale=True),
    decimal(precision=5, scale=None),
    fixed(2, "decimal", precision=10, scale=2),
    fixed(4, "decimal", precision=10),
    fixed(0, "decimal", precision=1),
    fixed(15, "uuid"),
    fixed(11, "duration"),
    {"type": "int", "logicalType": "decimal", "precision": 5},
    {"type": "int", "logicalType": "uuid"},
    {"type": "bytes", "logicalType": "uuid"},
    {"type": "long", "logicalType": "date"},
    {"type": "string", "logicalType": "date"},
    {"type": "long", "logicalType": "time-millis"},
    {"type": "int", "logicalType": "time-micros"},
    {"type": "int", "logicalType": "timestamp-millis"},
    {"type": "string", "logicalType": "timestamp-micros"},
    {"type": "double", "logicalType": "timestamp-nanos"},
    {"type": "int", "logicalType": "local-timestamp-millis"},
    {"type": "bytes", "logicalType": "duration"},
    {"type": "string", "logicalType": "big-decimal"},
    {"type": "long", "logicalType": "no-such"},
    {"type": "long", "logicalType": ""},
    {"type": "long", "logicalType": None},
    {"type": "long", "logicalType": ["date"]},
    {"type": "long", "logicalType": {"date": 1}},
    {"type": "enum", "name": "E", "symbols": ["A"], "logicalType": "uuid"},
    {"type": "array", "items": "int", "logicalType": "date"},
    {"type": "map", "values": "int", "logicalType": 5},
    {**record("int"), "logicalType": "timestamp-millis"},
]


@pytest.mark.parametrize("schema", IGNORED, ids=str)
def test_a_logical_type_that_makes_no_sense_is_ignored_by_all(schema) -> None:
    plain = {key: value for key, value in schema.items() if key not in ("logicalType", "precision", "scale")}
    for form in (lambda t: t, lambda t: ["null", t], lambda t: record(t, name="Out"), lambda t: [t, "null"]):
        text = parse_schema(json.dumps(form(schema)))
        assert "logicalType" in text  # clients get their schema back as they wrote it
        assert compile_schema(text).type == compile_schema(json.dumps(form(plain))).type
        fastavro.parse_schema(understood(json.loads(text)))


@pytest.mark.parametrize(
    "schema",
    [
        decimal(precision=1),
        decimal(precision=38, scale=38),
        decimal(precision=2**31 - 1),
        fixed(4, "decimal", precision=9, scale=9),
        fixed(16, "decimal", precision=38),
        fixed(16, "uuid"),
        fixed(12, "duration"),
        {"type": "string", "logicalType": "uuid"},
        {"type": "int", "logicalType": "date"},
        {"type": "long", "logicalType": "local-timestamp-nanos"},
    ],
    ids=str,
)
def test_a_logical_type_that_makes_sense_stays(schema) -> None:
    assert understood(schema) == schema
    assert understood(["null", record(schema)]) == ["null", record(schema)]


def test_what_looks_like_a_logical_type_and_is_none_stays() -> None:
    """A field of that name, a default, a doc: only types have logical types."""
    default = {"logicalType": "x"}
    schema = {"type": "record", "name": "R", "fields": [{"name": "logicalType", "type": "int", "default": default}]}
    assert understood(schema) == schema


def optional(*types):
    return [["null", t] for t in types]


def nested(wrap, times):
    schema = "int"
    for n in range(times):
        schema = wrap(n, schema)
    return schema


@pytest.mark.parametrize(
    ("wrap", "levels"),
    [
        (lambda n, t: record(["null", t], name=f"R{n}"), 1),
        (lambda n, t: record(t, "int", name=f"R{n}"), 1),
        (lambda n, t: {"type": "array", "items": [t]}, 2),
        (lambda n, t: {"type": "map", "values": ["null", t]}, 2),
        (lambda n, t: record(["null", {"type": "array", "items": ["null", t]}], name=f"R{n}"), 3),
        (lambda n, t: [{"type": "array", "items": t}, "string"] if n % 2 else record(t, name=f"R{n}"), 2),
    ],
)
def test_registry_and_table_take_the_same_depth(wrap, levels) -> None:
    times = (LEVELS_MAX - 1) // levels
    for read in (parse_schema, compile_schema):
        read(json.dumps(nested(wrap, times)))
        with pytest.raises(Invalid, match="more than 64 levels deep"):
            read(json.dumps(nested(wrap, times + 1)))


@pytest.mark.parametrize(
    ("schema", "types"),
    [
        ("int", 1),
        (["null", "int"], 1),
        (record(*optional(*["long"] * (TYPES_MAX - 1))), TYPES_MAX),
        (record(*["long"] * TYPES_MAX), TYPES_MAX + 1),
        (record(["int", "string", "null"], {"type": "array", "items": "int"}), 1 + 3 + 2),
        (record(record("int", name="A"), "A", ["null", "A"], {"type": "map", "values": "A"}), 1 + 2 * 4 + 1),
    ],
    ids=["leaf", "optional", "most", "too many", "union", "names"],
)
def test_registry_and_table_count_the_same_types(monkeypatch, schema, types) -> None:
    monkeypatch.setattr("streamlake.registry.avro.types.TYPES_MAX", types)
    parse_schema(json.dumps(schema))
    compile_schema(json.dumps(schema))
    monkeypatch.setattr("streamlake.registry.avro.types.TYPES_MAX", types - 1)
    for read in (parse_schema, compile_schema):
        with pytest.raises(Invalid, match="types when its names are written out"):
            read(json.dumps(schema))


def test_a_recursive_schema_counts_as_written() -> None:
    """A name that stands inside its own type ends there. No table holds it, and the registry takes it."""
    schema = record("int", ["null", "R"])
    parse_schema(json.dumps(schema))
    with pytest.raises(Invalid, match="contains itself"):
        compile_schema(json.dumps(schema))


def test_names_that_multiply_are_refused_in_a_recursive_schema_too() -> None:
    """To compare two such schemas would take a day, on the one thread that all of the registry has."""
    schema = record("int", ["null", "L0"], name="L0")
    for n in range(1, 40):
        schema = record(schema, f"L{n - 1}", name=f"L{n}")
    with pytest.raises(Invalid, match="5,000 types"):
        parse_schema(json.dumps(schema))


def test_a_union_tells_its_types_apart() -> None:
    with pytest.raises(Invalid, match="null, array, array has two types of one name"):
        check_types(["null", {"type": "array", "items": "int"}, record(name="array")])
