"""A field of each kind of Protobuf: what it is called in docs/guides/types.md, a value, and what a table shows of it."""

import datetime as dt
from decimal import Decimal
from typing import Any, NamedTuple

IMPORTS = "".join(f'import "google/protobuf/{name}.proto";' for name in ("any", "duration", "struct", "timestamp", "wrappers"))  # fmt: skip
TYPES = "enum Color { RED = 0; BLUE = 5; } message Point { int32 x = 1; } message Nothing {}"
NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)


class Case(NamedTuple):
    kind: str  # of Protobuf, in words
    field: str  # its type in a .proto file
    column: str  # of Iceberg; "" if there is none
    value: Any  # as the class of a message takes it
    shown: Any
    absent: Any = None  # what is shown when it was not set


CASES = [
    Case("double", "double", "double", 0.5, 0.5, 0.0),
    Case("float", "float", "float", 0.25, 0.25, 0.0),
    Case("bool", "bool", "boolean", True, True, False),
    Case("string", "string", "string", "ünï", "ünï", ""),
    Case("bytes", "bytes", "binary", b"\xff", b"\xff", b""),
    *[Case(kind, kind, "int", -7, -7, 0) for kind in ("int32", "sint32", "sfixed32")],
    *[Case(kind, kind, "long", -(2**63), -(2**63), 0) for kind in ("int64", "sint64", "sfixed64")],
    *[Case(kind, kind, "long", 2**32 - 1, 2**32 - 1, 0) for kind in ("uint32", "fixed32")],
    *[Case(k, k, "decimal(20, 0)", 2**64 - 1, Decimal(2**64 - 1), Decimal(0)) for k in ("uint64", "fixed64")],
    Case("enum", "Color", "string", 5, "BLUE", "RED"),
    Case("enum, a number without a name", "Color", "string", 7, "7", "RED"),
    Case("message", "Point", "struct<x: int>", {"x": 1}, {"x": 1}),
    Case("message without fields", "Nothing", "", {}, None),
    Case("repeated int32", "repeated int32", "list<int>", [1, 2], [1, 2], []),
    Case("map<string, int64>", "map<string, int64>", "map<string, long>", {"k": 1}, {"k": 1}, {}),
    Case("google.protobuf.Timestamp", "google.protobuf.Timestamp", "timestamptz", {"seconds": 1772366400}, NOON),
    Case("google.protobuf.Duration", "google.protobuf.Duration", "struct<seconds: long, nanos: int>",
         {"seconds": 1, "nanos": 2}, {"seconds": 1, "nanos": 2}),
    *[Case(f"google.protobuf.{kind}Value", f"google.protobuf.{kind}Value", column, {"value": value}, shown)
      for kind, column, value, shown in [
          ("Bool", "boolean", False, False), ("Bytes", "binary", b"x", b"x"), ("Double", "double", 0.0, 0.0),
          ("Float", "float", 0.5, 0.5), ("Int32", "int", 0, 0), ("Int64", "long", 1, 1), ("String", "string", "", ""),
          ("UInt32", "long", 2**32 - 1, 2**32 - 1), ("UInt64", "decimal(20, 0)", 5, Decimal(5))]],
    Case("google.protobuf.Struct", "google.protobuf.Struct", "string", {"a": 1}, '{"a":1.0}'),
    Case("google.protobuf.Value", "google.protobuf.Value", "string", {"bool_value": True}, "true"),
    Case("google.protobuf.ListValue", "google.protobuf.ListValue", "string", {"values": [{"null_value": 0}]}, "[null]"),
    Case("google.protobuf.Any", "google.protobuf.Any", "string", {"type_url": "x/Y", "value": b"z"}, '{"@type":"x/Y","value":"eg=="}'),
]  # fmt: skip


def file() -> str:
    fields = "".join(f"{case.field} f{n} = {n};" for n, case in enumerate(CASES, 1))
    return f'syntax = "proto3"; {IMPORTS} {TYPES} message Row {{ {fields} }}'
