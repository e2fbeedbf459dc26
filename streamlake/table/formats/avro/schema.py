"""An Avro schema → how to decode it, its fields in Iceberg's types, and how to make Arrow of what was decoded: twice,
as a plan for the native kernel, and as a decoder and a builder in Python.

The schema that fastavro decodes with is rewritten to one with the same bytes on the wire: no logical types, text as
bytes (Arrow checks UTF-8 a column at a time), enums as ints (so that a bad symbol is an error), no fields without
bytes (null, empty records), and a union of several types as a union of one-field records, so that the value says
which branch it took. Types with a union of several types become a struct with one optional field for each branch.

Refused, with Invalid: recursive types, lists and maps of nothing, decimals of more than 38 digits, fixed types of more
than 64 KiB, and schemas too wide or too deep. See the Avro 1.12 specification and docs/guides/types.md.
"""

import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
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
from streamlake.registry.avro.types import LEVELS_MAX, branch_name, check_types, understood
from streamlake.table.formats.avro import columns
from streamlake.table.formats.avro.native import NOTHING, Op, Plan, compile_plan
from streamlake.table.formats.source_schema import (
    SourceField,
    SourceList,
    SourceMap,
    SourceStruct,
    SourceType,
    SourceUnion,
    arrow_type,
)
from streamlake.table.formats.twin import Build, NativeReader

DECIMAL_PRECISION_MAX = 38
FIXED_BYTES_MAX = 64 * 1024  # a null takes as much in a column, and one byte on the wire


@dataclass(frozen=True, slots=True)
class AvroSchema:
    """`decoder` is for fastavro.schemaless_reader; `type` and `build` are None if the schema holds no data. `native`
    is None then too, and if there is no kernel."""

    decoder: Any
    type: SourceType | None
    build: Build | None
    native: NativeReader | None


@dataclass(frozen=True, slots=True)
class _Node:
    """`wire` is None for a type that takes no bytes; `type` is None for one that says nothing."""

    wire: Any
    type: SourceType | None
    build: Build | None
    plan: Plan


_NOTHING = _Node(None, None, None, NOTHING)
_EMPTY_RECORD = _Node(None, None, None, Plan(Op.STRUCT))


def _leaf(
    wire: Any, type: PrimitiveType, build: Build, op: Op, *, size: int = 0, multiply: int = 1, precision: int = 0
) -> _Node:
    return _Node(wire, type, build, Plan(op, arrow_type(type), (), size, multiply, precision=precision))


def _timestamp(type: PrimitiveType, timezone: str | None, multiply: int, divide: int) -> _Node:
    plan = Plan(Op.TIMESTAMP, arrow_type(type), multiply=multiply, divide=divide)
    return _Node("long", type, columns.timestamps(multiply, divide, timezone), plan)


_PRIMITIVES: dict[str, _Node] = {
    "boolean": _leaf("boolean", BooleanType(), columns.plain(pa.bool_()), Op.BOOLEAN),
    "int": _leaf("int", IntegerType(), columns.plain(pa.int32()), Op.INT),
    "long": _leaf("long", LongType(), columns.plain(pa.int64()), Op.LONG),
    "float": _leaf("float", FloatType(), columns.plain(pa.float32()), Op.FLOAT),
    "double": _leaf("double", DoubleType(), columns.plain(pa.float64()), Op.DOUBLE),
    "bytes": _leaf("bytes", BinaryType(), columns.plain(pa.large_binary()), Op.BYTES),
    "string": _leaf("bytes", StringType(), columns.text, Op.TEXT),
}

_LOGICAL: dict[tuple[str, str], _Node] = {
    ("int", "date"): _leaf("int", DateType(), columns.dates, Op.DATE),
    ("int", "time-millis"): _leaf("int", TimeType(), columns.times(1000), Op.TIME, multiply=1000),
    ("long", "time-micros"): _leaf("long", TimeType(), columns.times(1), Op.TIME),
    ("long", "timestamp-millis"): _timestamp(TimestamptzType(), "UTC", 1000, 1),
    ("long", "timestamp-micros"): _timestamp(TimestamptzType(), "UTC", 1, 1),
    ("long", "timestamp-nanos"): _timestamp(TimestamptzType(), "UTC", 1, 1000),
    ("long", "local-timestamp-millis"): _timestamp(TimestampType(), None, 1000, 1),
    ("long", "local-timestamp-micros"): _timestamp(TimestampType(), None, 1, 1),
    ("long", "local-timestamp-nanos"): _timestamp(TimestampType(), None, 1, 1000),
    ("string", "uuid"): _leaf("bytes", UUIDType(), columns.uuids_of_text, Op.UUID_TEXT),
}


def compile_schema(text: str) -> AvroSchema:
    """Raises Invalid, saying why values of this schema cannot go to a table."""
    named: dict[str, Any] = {}
    try:
        parsed = fastavro.parse_schema(understood(json.loads(text)), named_schemas=named)
        check_types(parsed)
        node = _Compiler(named).node(parsed)
    except Invalid:
        raise
    except RecursionError:
        raise Invalid(f"the Avro schema is nested more than {LEVELS_MAX} levels deep") from None
    except (
        Exception
    ) as error:  # a foreign parser fails as it likes, and passes names that are no text, sizes beyond all
        raise Invalid(f"not an Avro schema: {error!r}") from error
    decoder = fastavro.parse_schema("null" if node.wire is None else node.wire)
    return AvroSchema(decoder, node.type, node.build, compile_plan(node.plan))


class _Compiler:
    """Its recursion ends, and soon: see check_types."""

    def __init__(self, named: dict[str, Any]) -> None:
        self._named = named
        self._open: list[str] = []  # the named types around this one, to see recursion
        self._names = itertools.count()

    def node(self, schema: Any) -> _Node:
        if isinstance(schema, list):
            return self._union(schema)
        if isinstance(schema, str):
            return self._named_or_primitive(schema)
        match schema["type"]:
            case "record" | "error":
                return self._record(schema)
            case "array":
                return self._array(schema["items"])
            case "map":
                return self._map(schema["values"])
            case "enum":
                return _enum(schema["symbols"])
            case "fixed":
                return self._fixed(schema)
        return _primitive(schema["type"], schema)

    def _named_or_primitive(self, name: str) -> _Node:
        return self.node(self._named[name]) if name in self._named else _primitive(name, {})

    def _record(self, schema: dict[str, Any]) -> _Node:
        name = schema["name"]
        if name in self._open:
            raise Invalid(f"record {name} contains itself: a table cannot have recursive types")
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
            return _EMPTY_RECORD
        kept = [(field, node) for field, node in zip(fields, nodes, strict=True) if node.type is not None]
        record = {"type": "record", "name": self._unique(), "fields": wire}
        of_kept = [(_source_field(f, n), f["name"], n.build) for f, n in kept]
        return _struct(record, of_kept, columns.structs, Op.STRUCT, nodes)

    def _union(self, branches: list[Any]) -> _Node:
        """[null, T] is an optional T; several types are a struct of optional branches."""
        nodes = [self.node(branch) for branch in branches]
        names = [branch_name(branch) for branch in branches]
        if len([name for name in names if name != "null"]) <= 1:
            wire: Any = ["null" if node.wire is None else node.wire for node in nodes]
            only = next((node for node in nodes if node.type is not None), _NOTHING)
            plan = Plan(Op.CHOICE, only.plan.type, tuple(node.plan for node in nodes))
            return _Node(wire, only.type, only.build, plan)
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
        node = _struct(wire, kept, columns.unions, Op.UNION, nodes)
        return replace(node, type=SourceUnion(node.type.fields)) if isinstance(node.type, SourceStruct) else node

    def _array(self, items: Any) -> _Node:
        node = self.node(items)
        if node.type is None or node.build is None:
            # Items without bytes also would let five bytes on the wire claim any number of them.
            raise Invalid("a list of null or of empty records has no column type")
        type = SourceList(node.type)
        plan = Plan(Op.LIST, arrow_type(type), (node.plan,))
        return _Node({"type": "array", "items": node.wire}, type, columns.lists(plan.type, node.build), plan)

    def _map(self, values: Any) -> _Node:
        node = self.node(values)
        if node.type is None or node.build is None:
            raise Invalid("a map to null or to empty records has no column type")
        type = SourceMap(StringType(), node.type)
        plan = Plan(Op.MAP, arrow_type(type), (_PRIMITIVES["string"].plan, node.plan))
        return _Node({"type": "map", "values": node.wire}, type, columns.maps(plan.type, node.build), plan)

    def _fixed(self, schema: dict[str, Any]) -> _Node:
        size = schema["size"]
        if type(size) is not int or not 0 <= size <= FIXED_BYTES_MAX:
            raise Invalid(f"fixed {schema['name']} must have a size of at most {FIXED_BYTES_MAX} bytes")
        if size == 0:
            return _NOTHING
        wire = {"type": "fixed", "name": self._unique(), "size": size}
        match schema.get("logicalType"):
            case "decimal":
                return _decimal(wire, schema, size)
            case "uuid":
                return _leaf(wire, UUIDType(), columns.uuids_of_bytes, Op.FIXED, size=size)
        return _leaf(wire, FixedType(size), columns.plain(pa.binary(size)), Op.FIXED, size=size)

    def _unique(self) -> str:
        """A name for each place a type is used, because fastavro reads definitions faster than references."""
        return f"t{next(self._names)}"


def _struct(
    wire: Any, children: Iterable[tuple[SourceField, str, Build | None]], kind: Any, op: Op, nodes: Iterable[_Node]
) -> _Node:
    """A struct of those of `nodes` that have a column."""
    plans = tuple(node.plan for node in nodes)
    kept = [(field, key, build) for field, key, build in children if build is not None]
    if not kept:
        return _Node(wire, None, None, Plan(op, None, plans))
    type = SourceStruct(tuple(field for field, _, _ in kept))
    plan = Plan(op, arrow_type(type), plans)
    return _Node(wire, type, kind(plan.type, [key for _, key, _ in kept], [build for _, _, build in kept]), plan)


def _source_field(field: dict[str, Any], node: _Node) -> SourceField:
    assert node.type is not None
    aliases, doc = field.get("aliases"), field.get("doc")
    former = tuple(a for a in aliases if isinstance(a, str)) if isinstance(aliases, list) else ()
    return SourceField(field["name"], field["name"], node.type, former, doc if isinstance(doc, str) else None)


def _primitive(kind: str, schema: dict[str, Any]) -> _Node:
    if kind == "null":
        return _NOTHING
    plain, logical = _PRIMITIVES[kind], schema.get("logicalType")
    if logical == "decimal":
        return _decimal(plain.wire, schema)
    return _LOGICAL.get((kind, logical), plain) if logical is not None else plain


def _enum(symbols: list[str]) -> _Node:
    plan = Plan(Op.ENUM, arrow_type(StringType()), size=len(symbols), symbols=tuple(symbols))
    return _Node("int", StringType(), columns.enums(symbols), plan)


def _decimal(wire: Any, schema: dict[str, Any], size: int = 0) -> _Node:
    precision, scale = schema["precision"], schema.get("scale", 0)
    if precision > DECIMAL_PRECISION_MAX:
        raise Invalid(f"decimal({precision}, {scale}) has more than Iceberg's {DECIMAL_PRECISION_MAX} digits")
    build = columns.decimals(precision, scale)
    return _leaf(wire, DecimalType(precision, scale), build, Op.DECIMAL, size=size, precision=precision)
