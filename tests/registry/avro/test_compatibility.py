import io
import json

import fastavro
import pytest

from streamlake.core.errors import Invalid
from streamlake.registry.avro.compatibility import incompatibilities
from streamlake.registry.avro.schema import parse_schema
from streamlake.registry.levels import DEFAULT_LEVEL, Level


def record(*fields, name="R", **others):
    built = [f if isinstance(f, dict) else {"name": f[0], "type": f[1]} for f in fields]
    return {"type": "record", "name": name, **others, "fields": built}


def enum(*symbols, **others):
    return {"type": "enum", "name": "E", "symbols": list(symbols), **others}


def fixed(size, **others):
    return {"type": "fixed", "name": "F", "size": size, **others}


def text(schema) -> str:
    return parse_schema(json.dumps(schema))


def check(level, candidate, *earlier) -> list[str]:
    return incompatibilities(level, text(candidate), [(n, text(e)) for n, e in enumerate(earlier, 1)])


def reads(reader, writer) -> bool:
    return not check(Level.BACKWARD, reader, writer)


A = ("a", "int")
NULLABLE = {"name": "b", "type": ["null", "int"], "default": None}

READABLE = [
    ("same", record(A), record(A)),
    ("field with default added", record(A, NULLABLE), record(A)),
    ("default zero", record({"name": "a", "type": "int", "default": 0}), record()),
    ("field removed", record(A), record(A, ("b", "int"))),
    ("fields in another order", record(A, ("b", "string")), record(("b", "string"), A)),
    ("field renamed by alias", record({"name": "new", "type": "int", "aliases": ["a"]}), record(A)),
    ("record renamed by alias", record(A, name="New", aliases=["R"]), record(A)),
    ("the same in a namespace", record(A, name="New", namespace="n", aliases=["R"]), record(A, namespace="n")),
    ("nested by alias", record(("x", record(A, name="N", aliases=["M"])), namespace="n"), record(("x", record(A, name="M")), namespace="n")),
    ("another namespace", record(A, namespace="x"), record(A, namespace="y")),
    ("int to long", "long", "int"),
    ("int to float", "float", "int"),
    ("long to double", "double", "long"),
    ("float to double", "double", "float"),
    ("string to bytes", "bytes", "string"),
    ("bytes to string", "string", "bytes"),
    ("enum grows", enum("A", "B"), enum("A")),
    ("enum with a default shrinks", enum("A", default="A"), enum("A", "B")),
    ("union grows", ["null", "int", "string"], ["null", "int"]),
    ("union promotes", ["null", "long"], ["null", "int"]),
    ("into a union", ["null", "int"], "int"),
    ("out of a union of one", "int", ["int"]),
    ("array promotes", {"type": "array", "items": "long"}, {"type": "array", "items": "int"}),
    ("map promotes", {"type": "map", "values": "long"}, {"type": "map", "values": "int"}),
    ("fixed", fixed(4), fixed(4)),
    ("recursive", record(A, ("next", ["null", "R"])), record(A, ("next", ["null", "R"]))),
    ("date", {"type": "int", "logicalType": "date"}, "int"),
]  # fmt: skip

UNREADABLE = [
    ("field without default added", record(A, ("b", "int")), record(A), "default"),
    ("nullable field without default", record(A, ("b", ["null", "int"])), record(A), "default"),
    ("record renamed", record(A, name="S"), record(A), "name"),
    ("field renamed", record(("new", "int")), record(A), "default"),
    ("long to int", "int", "long", "types differ"),
    ("int to string", "string", "int", "types differ"),
    ("enum shrinks", enum("A"), enum("A", "B"), "symbols"),
    ("enum renamed", {**enum("A"), "name": "Other"}, enum("A"), "name"),
    ("union shrinks", ["null", "int"], ["null", "int", "string"], "branch"),
    ("out of a union", "int", ["null", "int"], "types differ"),
    ("fixed resized", fixed(4), fixed(5), "size"),
    ("array of others", {"type": "array", "items": "int"}, {"type": "array", "items": "string"}, "types differ"),
    ("array to map", {"type": "map", "values": "int"}, {"type": "array", "items": "int"}, "types differ"),
    ("recursive", record(("a", "string"), ("next", ["null", "R"])), record(A, ("next", ["null", "R"])), "types differ"),
    ("deep", record(("x", {"type": "array", "items": record(A, name="I")})), record(("x", {"type": "array", "items": record(("a", "string"), name="I")})), "items/fields/0"),
]  # fmt: skip


@pytest.mark.parametrize(("reader", "writer"), [c[1:] for c in READABLE], ids=[c[0] for c in READABLE])
def test_readable(reader, writer):
    assert reads(reader, writer)


@pytest.mark.parametrize(("reader", "writer", "why"), [c[1:] for c in UNREADABLE], ids=[c[0] for c in UNREADABLE])
def test_unreadable(reader, writer, why):
    (message,) = check(Level.BACKWARD, reader, writer)
    assert why in message
    assert "version 1" in message


VALUES = {
    "field with default added": {"a": 1},
    "field removed": {"a": 1, "b": 2},
    "enum grows": "A",
    "int to long": 5,
    "union grows": 3,
    "into a union": 3,
    "field renamed by alias": {"a": 1},
    "record renamed by alias": {"a": 1},
}


@pytest.mark.parametrize("case", [c for c in READABLE if c[0] in VALUES], ids=lambda c: c[0])
def test_what_is_said_to_be_readable_is_read(case):
    name, reader, writer = case
    written = io.BytesIO()
    fastavro.schemaless_writer(written, fastavro.parse_schema(writer), VALUES[name])
    written.seek(0)
    fastavro.schemaless_reader(written, fastavro.parse_schema(writer), fastavro.parse_schema(reader))


V1 = record(A)
V2 = record(A, NULLABLE)  # readable by and from V1
V3 = record(("c", "int"), NULLABLE)  # cannot read V1, V1 cannot read it


@pytest.mark.parametrize(
    ("level", "candidate", "earlier", "compatible"),
    [
        (Level.NONE, V3, [V1], True),
        (Level.BACKWARD, record(), [V1], True),
        (Level.BACKWARD, V1, [record()], False),
        (Level.FORWARD, record(), [V1], False),
        (Level.FORWARD, V1, [record()], True),
        (Level.FULL, V2, [V1], True),
        (Level.FULL, record(), [V1], False),
        (Level.FULL, V1, [record()], False),
        (Level.BACKWARD, V1, [V3, V2], True),
        (Level.BACKWARD_TRANSITIVE, V1, [V3, V2], False),
        (Level.FORWARD, V1, [V3, V2], True),
        (Level.FORWARD_TRANSITIVE, V1, [V3, V2], False),
        (Level.FULL, V1, [V3, V2], True),
        (Level.FULL_TRANSITIVE, V1, [V3, V2], False),
        (Level.FULL_TRANSITIVE, V2, [V1, V2], True),
        (DEFAULT_LEVEL, V1, [], True),
    ],
)
def test_levels(level, candidate, earlier, compatible):
    assert (not check(level, candidate, *earlier)) == compatible


def test_both_directions_and_all_versions_are_named():
    messages = check(Level.FULL_TRANSITIVE, record(("x", "int")), record(A), record(("b", "int")))
    assert [m.split(":")[0] for m in messages] == [
        "the new schema cannot read data written with version 2",
        "version 2 cannot read data written with the new schema",
        "the new schema cannot read data written with version 1",
        "version 1 cannot read data written with the new schema",
    ]


def test_a_comparison_that_goes_too_deep_is_refused():
    """Two circles of records with lengths that have no common divisor: every pair of records is met on one path."""

    def circle(prefix: str, length: int):
        kind = f"{prefix}0"
        for n in reversed(range(length)):
            kind = record(("next", kind), name=f"{prefix}{n}")
        return kind

    with pytest.raises(Invalid, match="too deeply"):
        check(Level.BACKWARD, circle("A", 20), circle("B", 19))


def test_many_fields_are_compared_in_one_pass_and_not_all_are_named() -> None:
    """Looking through 2,000 fields for each of 2,000 would be 4 million steps, and the answer 2,000 lines."""

    def wide(kind: str, prefix: str = "f") -> str:
        fields = [{"name": f"{prefix}{n}", "type": kind, "aliases": [f"f{n}"]} for n in range(2_000)]
        return parse_schema(json.dumps({"type": "record", "name": "R", "fields": fields}))

    longs = wide("long")
    assert incompatibilities(Level.FULL_TRANSITIVE, longs, [(1, longs)]) == []
    assert incompatibilities(Level.BACKWARD, wide("long", "g"), [(1, longs)]) == []  # by alias
    (why,) = incompatibilities(Level.BACKWARD, wide("int"), [(1, longs)])
    assert "types differ" in why
    assert len(why) < 2_000
    (why,) = incompatibilities(Level.FORWARD, wide("long", "g"), [(1, longs)])
    assert "the reader has fields without a default" in why


def test_schemas_as_deep_as_they_may_be_are_compared() -> None:
    schema: object = "int"
    for n in range(63):
        schema = {"type": "record", "name": f"R{n}", "fields": [{"name": "x", "type": ["null", schema]}]}
    text = parse_schema(json.dumps(schema))
    assert incompatibilities(Level.FULL, text, [(1, text)]) == []
    (why,) = incompatibilities(
        Level.BACKWARD, text.replace('"int"', '"float"'), [(1, text.replace('"int"', '"string"'))]
    )
    assert "lacks a branch" in why
