"""What a source (Avro, Protobuf, JSON) says about its fields, in Iceberg's types.

A tree of fields without ids. `segment` is a field's identity inside its parent, by the source's own rule (Avro: the
field name; a union: the branch; Protobuf: the number; JSON: the key); `name` is the column name it wishes for.
rows/evolve.py binds segments to Iceberg field ids once and for all, so names may change and columns keep their data.
Lists and maps have one child of each kind, so their children need no segment. Every column is optional: a source may
stop sending any field at any time.
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

import pyarrow as pa
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.types import PrimitiveType

ROW = "row"  # root of the columns that StreamLake itself lays out: value, _kafka, …
VALUE = "value"  # root of the columns that flatten lifts out of the value


@dataclass(frozen=True, slots=True)
class SourceField:
    segment: str
    name: str
    type: "SourceType"
    aliases: tuple[str, ...] = ()  # former segments, Avro's aliases
    doc: str | None = None
    message: str = ""  # of Protobuf, which the field is in: its full name


@dataclass(frozen=True, slots=True)
class SourceStruct:
    fields: tuple[SourceField, ...]


@dataclass(frozen=True, slots=True)
class SourceUnion(SourceStruct):
    """A union of several types: a field for each branch, of which one has a value."""


@dataclass(frozen=True, slots=True)
class SourceChange(SourceStruct):
    """A change of a row: first the row, a record; then what stands beside the row's columns, each a column of ours."""


@dataclass(frozen=True, slots=True)
class SourceList:
    element: "SourceType"


@dataclass(frozen=True, slots=True)
class SourceMap:
    key: PrimitiveType
    value: "SourceType"


SourceType: TypeAlias = PrimitiveType | SourceStruct | SourceList | SourceMap


@dataclass(frozen=True, slots=True)
class SourceColumn:
    """A top-level column: its root (ROW or VALUE) and the field under it. `schema_id`: of its schema, 0 if it has none;
    the higher is the newer."""

    root: str
    field: SourceField
    schema_id: int = 0


def source_field(name: str, type: SourceType, doc: str | None = None) -> SourceField:
    """A field whose identity is its name, as all of ours are."""
    return SourceField(name, name, type, doc=doc)


def arrow_type(type: SourceType) -> Any:
    """The Arrow type in which values of a source type are held before they are cast to the table's columns."""
    match type:
        case SourceStruct(fields):
            return pa.struct([pa.field(f.segment, arrow_type(f.type)) for f in fields])
        case SourceList(element):
            return pa.large_list(pa.field("element", arrow_type(element)))
        case SourceMap(key, value):
            return pa.map_(pa.field("key", arrow_type(key), nullable=False), pa.field("value", arrow_type(value)))
        case _:
            return schema_to_pyarrow(type)
