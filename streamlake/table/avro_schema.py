"""An Avro schema → how to decode it, its fields in Iceberg's types, and how to make Arrow of what was decoded.

The schema that fastavro decodes with is rewritten to one with the same bytes on the wire: no logical types, text as
bytes (Arrow checks UTF-8 a column at a time), enums as ints (so that a bad symbol is an error), no fields without
bytes (null, empty records), and a union of several types as a union of one-field records, so that the value says
which branch it took. Types with a union of several types become a struct with one optional field for each branch.

Refused, with Invalid: recursive types, lists and maps of nothing, decimals of more than 38 digits, and schemas too
wide or too deep. See the Avro 1.12 specification and docs/guides/tables.md.
"""

import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import fastavro
import pyarrow as pa
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    FixedType,
    FloatType,
    IntegerType,
    LongType,
    PrimitiveType,
    StringType,
    TimestampType,
    TimestamptzType,
    TimeType,
    UUIDType,
)

from streamlake.core.errors import Invalid
from streamlake.table import avro_columns as columns
from streamlake.table.avro_columns import Build
from streamlake.table.source_schema import SourceField, SourceList, SourceMap, SourceStruct, SourceType, arrow_type

TYPES_MAX = 5_000
DEPTH_MAX = 64
DECIMAL_PRECISION_MAX = 38


@dataclass(frozen=True, slots=True)
class AvroSchema:
    """`decoder` is for fastavro.schemaless_reader; `type` and `build` are None if the schema holds no data."""

    decoder: Any
    type: SourceType | None
    build: Build | None


@dataclass(frozen=True, slots=True)
class _Node:
    """`wire` is None for a type that takes no bytes; `type` is None for one that says nothing."""

    wire: Any
    type: SourceType | None
    build: Build | None


_NOTHING = _Node(None, None, None)

_PRIMITIVES: dict[str, tuple[str, PrimitiveType, Build]] = {
    "boolean": ("boolean", BooleanType(), columns.plain(pa.bool_())),
    "int": ("int", IntegerType(), columns.plain(pa.int32())),
    "long": ("long", LongType(), columns.plain(pa.int64())),
    "float": ("float", FloatType(), columns.plain(pa.float32())),
    "double": ("double", DoubleType(), columns.plain(pa.float64())),
    "bytes": ("bytes", BinaryType(), columns.plain(pa.large_binary())),
    "string": ("bytes", StringType(), columns.text),
}

_LOGICAL: dict[tuple[str, str], tuple[PrimitiveType, Build]] = {
    ("int", "date"): (DateType(), columns.dates),
    ("int", "time-millis"): (TimeType(), columns.times(1000)),
    ("long", "time-micros"): (TimeType(), columns.times(1)),
    ("long", "timestamp-millis"): (TimestamptzType(), columns.timestamps(1000, 1, "UTC")),
    ("long", "timestamp-micros"): (TimestamptzType(), columns.timestamps(1, 1, "UTC")),
    ("long", "timestamp-nanos"): (TimestamptzType(), columns.timestamps(1, 1000, "UTC")),
    ("long", "local-timestamp-millis"): (TimestampType(), columns.timestamps(1000, 1, None)),
    ("long", "local-timestamp-micros"): (TimestampType(), columns.timestamps(1, 1, None)),
    ("long", "local-timestamp-nanos"): (TimestampType(), columns.timestamps(1, 1000, None)),
    ("string", "uuid"): (UUIDType(), columns.uuids_of_text),
}


def compile_schema(text: str) -> AvroSchema:
    """Raises Invalid, saying why values of this schema cannot go to a table."""
    named: dict[str, Any] = {}
    try:
        parsed = fastavro.parse_schema(json.loads(text), named_schemas=named)
    except RecursionError:
        raise Invalid(f"the Avro schema is nested deeper than {DEPTH_MAX}") from None
    except Exception as error:  # whatever a foreign parser makes of foreign text
        raise Invalid(f"not an Avro schema: {error!r}") from error
    node = _Compiler(named).node(parsed)
    return AvroSchema(fastavro.parse_schema("null" if node.wire is None else node.wire), node.type, node.build)


class _Compiler:
    def __init__(self, named: dict[str, Any]) -> None:
        self._named = named
        self._open: list[str] = []  # the named types around this one, to see recursion
        self._depth = 0
        self._types = 0
        self._names = itertools.count()

    def node(self, schema: Any) -> _Node:
        self._types += 1
        if self._types > TYPES_MAX:
            raise Invalid(f"the Avro schema has more than {TYPES_MAX} types when its names are written out")
        if self._depth == DEPTH_MAX:
            raise Invalid(f"the Avro schema is nested deeper than {DEPTH_MAX}")
        self._depth += 1
        try:
            return self._of(schema)
        finally:
            self._depth -= 1

    def _of(self, schema: Any) -> _Node:
        if isinstance(schema, list):
            return self._union(schema)
        kind = schema["type"] if isinstance(schema, dict) else schema
        attributes = schema if isinstance(schema, dict) else {}
        match kind:
            case "null":
                return _NOTHING
            case "record" | "error":
                return self._record(attributes)
            case "array":
                return self._array(attributes["items"])
            case "map":
                return self._map(attributes["values"])
            case "enum":
                return _Node("int", StringType(), columns.enums(attributes["symbols"]))
            case "fixed":
                return self._fixed(attributes)
            case str() if kind in _PRIMITIVES:
                return _primitive(kind, attributes)
            case str() if kind in self._named:
                return self._of(self._named[kind])
            case dict() | list():  # {"type": {"type": …}}
                return self.node(kind)
        raise Invalid(f"{kind!r} is not an Avro type")

    def _record(self, schema: dict[str, Any]) -> _Node:
        name = schema["name"]
        if name in self._open:
            raise Invalid(f"record {name} contains itself: a table has no recursive types")
        self._open.append(name)
        fields = schema["fields"]
        nodes = [self.node(field["type"]) for field in fields]
        self._open.pop()
        if len({field["name"] for field in fields}) < len(fields):
            raise Invalid(f"record {name} has two fields of one name")
        wire = [
            {"name": field["name"], "type": node.wire}
            for field, node in zip(fields, nodes, strict=True)
            if node.wire is not None
        ]
        if not wire:
            return _NOTHING
        kept = [(field, node) for field, node in zip(fields, nodes, strict=True) if node.type is not None]
        record = {"type": "record", "name": self._unique(), "fields": wire}
        return _struct(record, ((_source_field(f, n), f["name"], n.build) for f, n in kept), columns.structs)

    def _union(self, branches: list[Any]) -> _Node:
        """[null, T] is an optional T; several types are a struct of optional branches."""
        nodes = [self.node(branch) for branch in branches]
        names = [_branch_name(branch) for branch in branches]
        if len([name for name in names if name != "null"]) <= 1:
            wire: Any = ["null" if node.wire is None else node.wire for node in nodes]
            only = next((node for node in nodes if node.type is not None), _NOTHING)
            return _Node(wire, only.type, only.build)
        if len(set(names)) < len(names):
            raise Invalid(f"union of {', '.join(names)} has one type twice")
        wire, kept = [], []
        for index, (name, node) in enumerate(zip(names, nodes, strict=True)):
            if name == "null":
                wire.append("null")
                continue
            key = f"b{index}"
            fields = [] if node.wire is None else [{"name": key, "type": node.wire}]
            wire.append({"type": "record", "name": self._unique(), "fields": fields})
            if node.type is not None:
                kept.append((SourceField(name, name.rpartition(".")[2], node.type), key, node.build))
        return _struct(wire, kept, columns.unions)

    def _array(self, items: Any) -> _Node:
        node = self.node(items)
        if node.type is None or node.build is None:
            # Items without bytes also would let five bytes on the wire claim any number of them.
            raise Invalid("a list of null or of empty records has no column type")
        type = SourceList(node.type)
        return _Node({"type": "array", "items": node.wire}, type, columns.lists(arrow_type(type), node.build))

    def _map(self, values: Any) -> _Node:
        node = self.node(values)
        if node.type is None or node.build is None:
            raise Invalid("a map to null or to empty records has no column type")
        type = SourceMap(StringType(), node.type)
        return _Node({"type": "map", "values": node.wire}, type, columns.maps(arrow_type(type), node.build))

    def _fixed(self, schema: dict[str, Any]) -> _Node:
        size = schema["size"]
        if not isinstance(size, int) or size < 1:
            raise Invalid(f"fixed {schema['name']} has the size {size!r}: it must be a positive number")
        wire = {"type": "fixed", "name": self._unique(), "size": size}
        match schema.get("logicalType"):
            case "decimal" if _is_decimal(schema):
                return _decimal(wire, schema)
            case "uuid" if size == 16:
                return _Node(wire, UUIDType(), columns.uuids_of_bytes)
        return _Node(wire, FixedType(size), columns.plain(pa.binary(size)))

    def _unique(self) -> str:
        """A name for each place a type is used, because fastavro reads definitions faster than references."""
        return f"t{next(self._names)}"


def _struct(wire: Any, children: Iterable[tuple[SourceField, str, Build | None]], kind: Any) -> _Node:
    kept = [(field, key, build) for field, key, build in children if build is not None]
    if not kept:
        return _Node(wire, None, None)
    type = SourceStruct(tuple(field for field, _, _ in kept))
    return _Node(wire, type, kind(arrow_type(type), [key for _, key, _ in kept], [build for _, _, build in kept]))


def _source_field(field: dict[str, Any], node: _Node) -> SourceField:
    assert node.type is not None
    return SourceField(field["name"], field["name"], node.type, tuple(field.get("aliases", ())), field.get("doc"))


def _primitive(kind: str, schema: dict[str, Any]) -> _Node:
    wire, type, build = _PRIMITIVES[kind]
    logical = schema.get("logicalType")
    if kind == "bytes" and logical == "decimal" and _is_decimal(schema):
        return _decimal(wire, schema)
    if isinstance(logical, str) and (kind, logical) in _LOGICAL:
        type, build = _LOGICAL[kind, logical]
    return _Node(wire, type, build)


def _is_decimal(schema: dict[str, Any]) -> bool:
    """A logical type with nonsense in it is ignored, says the Avro specification."""
    precision, scale = schema.get("precision"), schema.get("scale", 0)
    return isinstance(precision, int) and isinstance(scale, int) and 0 <= scale <= precision and precision > 0


def _decimal(wire: Any, schema: dict[str, Any]) -> _Node:
    precision, scale = schema["precision"], schema.get("scale", 0)
    if precision > DECIMAL_PRECISION_MAX:
        raise Invalid(f"decimal({precision}, {scale}) has more than Iceberg's {DECIMAL_PRECISION_MAX} digits")
    return _Node(wire, DecimalType(precision, scale), columns.decimals(precision, scale))


def _branch_name(branch: Any) -> str:
    if not isinstance(branch, dict):
        return str(branch)
    return str(branch.get("name") or branch["type"])
