"""A property of each kind of JSON Schema, and a key of each kind of plain JSON: what docs/guides/types.md calls it, a value,
and what a table shows of it."""

from typing import Any, NamedTuple


class Case(NamedTuple):
    kind: str  # in words
    schema: Any  # of the property
    column: str  # of Iceberg; "" if there is none
    value: Any
    shown: Any


class Plain(NamedTuple):
    kind: str
    value: Any
    column: str  # "" if the value is in the rest
    shown: Any = None


TEXT, LONG = {"type": "string"}, {"type": "integer"}
POINT = {"type": "object", "properties": {"x": LONG}}
DEFINITIONS = {
    "point": POINT,
    "node": {"type": "object", "properties": {"v": LONG, "next": {"$ref": "#/definitions/node"}}},
}

CASES = [
    Case("boolean", {"type": "boolean"}, "boolean", True, True),
    Case("integer", LONG, "long", -(2**63), -(2**63)),
    Case("number", {"type": "number"}, "double", 0.5, 0.5),
    Case("string, of any format", {"type": "string", "format": "date-time"}, "string", "2026-03-01T12:00:00Z", "2026-03-01T12:00:00Z"),
    Case("null", {"type": "null"}, "", None, None),
    Case("[T, null]", {"type": ["integer", "null"]}, "long", None, None),
    Case("[integer, number]", {"type": ["integer", "number"]}, "double", 1, 1.0),
    Case("other lists of types", {"type": ["integer", "string"]}, "string", "x", '"x"'),
    Case("enum and const of texts", {"enum": ["a", "b"]}, "string", "a", "a"),
    Case("enum and const of whole numbers", {"const": 7}, "long", 7, 7),
    Case("enum of several types", {"enum": [1, "a"]}, "string", 1, "1"),
    Case("object with properties", POINT, "struct<x: long>", {"x": 1, "more": 2}, {"x": 1}),
    Case("object with additionalProperties of one type", {"type": "object", "additionalProperties": LONG}, "map<string, long>", {"k": 1}, {"k": 1}),
    Case("object without properties", {"type": "object"}, "string", {"a": [1]}, '{"a": [1]}'),
    Case("object with patternProperties only", {"type": "object", "patternProperties": {"^x": LONG}}, "string", {"x1": 1}, '{"x1": 1}'),
    Case("object that may have nothing", {"type": "object", "additionalProperties": False}, "", {}, None),
    Case("array with items of one type", {"type": "array", "items": TEXT}, "list<string>", ["a", "b"], ["a", "b"]),
    Case("array of anything, or a tuple", {"type": "array", "items": [LONG, TEXT]}, "string", [1, "a"], '[1, "a"]'),
    Case("anyOf and oneOf of T and null", {"oneOf": [{"type": "null"}, POINT]}, "struct<x: long>", {"x": 1}, {"x": 1}),
    Case("anyOf and oneOf of one type", {"anyOf": [{"type": "string", "maxLength": 1}, {"type": "string", "minLength": 9}]}, "string", "a", "a"),
    Case("anyOf and oneOf of several types", {"oneOf": [LONG, TEXT]}, "string", 1, "1"),
    Case("allOf", {"allOf": [POINT, {"type": "object", "properties": {"y": TEXT}}]}, "struct<x: long, y: string>", {"x": 1, "y": "a"}, {"x": 1, "y": "a"}),
    Case("$ref", {"$ref": "#/definitions/point"}, "struct<x: long>", {"x": 1}, {"x": 1}),
    Case("$ref to a schema around it", {"$ref": "#/definitions/node"}, "struct<v: long, next: string>", {"v": 1, "next": {"v": 2}}, {"v": 1, "next": '{"v": 2}'}),
    Case("true, or a schema without a type", {}, "string", [1], "[1]"),
    Case("false", False, "", None, None),
]  # fmt: skip

PLAIN = [
    Plain("true, false", True, "boolean", True),
    Plain("a number without fraction and exponent", 2**63 - 1, "long", 2**63 - 1),
    Plain("another number", 1.5, "double", 1.5),
    Plain("a number beyond 64 bits", 2**63, ""),
    Plain("a text, also one that looks like a date", "2026-03-01", "string", "2026-03-01"),
    Plain("an object", {"x": 1}, "struct<x: long>", {"x": 1}),
    Plain("an array", ["a", None], "list<string>", ["a", None]),
    Plain("an empty object or array", [], ""),
    Plain("null", None, ""),
]


def schema() -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {f"f{n}": case.schema for n, case in enumerate(CASES)},
        "definitions": DEFINITIONS,
    }


def value() -> dict[str, Any]:
    return {f"f{n}": case.value for n, case in enumerate(CASES)}


def plain_value() -> dict[str, Any]:
    return {f"p{n}": case.value for n, case in enumerate(PLAIN)}
