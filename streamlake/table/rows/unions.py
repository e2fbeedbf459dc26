"""Unions that come to a column of one of their types, alone or in lists and maps: what is beside the column, of what.

A list of a union is a list for each branch: all of one length, of which each place has its value in one, and null in
the others. A map of one is a map for each branch, with the same keys. So nothing is lost, and places are kept.
"""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    FloatType,
    IcebergType,
    IntegerType,
    ListType,
    LongType,
    MapType,
    PrimitiveType,
    StringType,
    TimestampType,
    TimestamptzType,
    TimeType,
    UUIDType,
)

from streamlake.table.formats.source_schema import SourceList, SourceMap, SourceType, SourceUnion, arrow_type

# What Avro calls the branches of a union that take a type.
AVRO_NAMES: Mapping[type[PrimitiveType], tuple[str, ...]] = {
    BooleanType: ("boolean",),
    IntegerType: ("int", "long"),
    LongType: ("long", "int"),
    FloatType: ("float", "double"),
    DoubleType: ("double", "float"),
    StringType: ("string",),
    BinaryType: ("bytes",),
    DateType: ("int",),
    TimeType: ("long", "int"),
    TimestampType: ("long",),
    TimestamptzType: ("long",),
    DecimalType: ("bytes",),
    UUIDType: ("string",),
}


def union_in(type: SourceType) -> SourceUnion | None:
    """The union that a type is, or that its lists and maps hold."""
    match type:
        case SourceUnion():
            return type
        case SourceList(inner) | SourceMap(_, inner):
            return union_in(inner)
    return None


def with_branch(type: SourceType, branch: SourceType) -> SourceType:
    """A type that a union is in, with one of its types in the union's place."""
    match type:
        case SourceList(element):
            return SourceList(with_branch(element, branch))
        case SourceMap(key, value):
            return SourceMap(key, with_branch(value, branch))
    return branch


def branch_name(type: SourceType, branch: str) -> str:
    """What the field map calls a branch of the union that is in `type`: [] stands for a list, {} for a map, so that it
    is not taken for a branch of that name without them."""
    match type:
        case SourceList(element):
            return "[]" + branch_name(element, branch)
        case SourceMap(_, value):
            return "{}" + branch_name(value, branch)
    return branch


def held_by(type: SourceType, id: int, held: IcebergType) -> tuple[int, IcebergType] | None:
    """What column `id` holds where a union is in `type`: its column there; None if its lists and maps are others."""
    match type, held:
        case SourceUnion(), _:
            return id, held
        case SourceList(element), ListType():
            return held_by(element, held.element_id, held.element_type)
        case SourceMap(key, value), MapType() if key == held.key_type:
            return held_by(value, held.value_id, held.value_type)
    return None


def branch_arrays(type: SourceType, array: Any) -> list[Any]:
    """An array for each branch of the union that is in `type`."""
    match type:
        case SourceList(element):
            array = unsliced(array)
            offsets, mask = array.offsets.cast(pa.int64()), array.is_null()
            inner = branch_arrays(element, array.values)
            types = _types(type)
            return [
                pa.LargeListArray.from_arrays(offsets, values, type=of, mask=mask)
                for values, of in zip(inner, types, strict=True)
            ]
        case SourceMap(_, value):
            array = unsliced(array)
            mask = array.is_null()
            inner = branch_arrays(value, array.items)
            types = _types(type)
            return [
                pa.MapArray.from_arrays(array.offsets, array.keys, values, type=of, mask=mask)
                for values, of in zip(inner, types, strict=True)
            ]
    found: list[Any] = array.flatten()
    return found


def unsliced(array: Any) -> Any:
    """A copy whose buffers begin at its first item: Arrow builds lists with a mask from no others."""
    return array.take(pa.array(range(len(array)), pa.int64())) if array.offset else array


def _types(type: SourceType) -> list[Any]:
    """In Arrow, for each branch."""
    union = union_in(type)
    assert union is not None, "a type that a union is in"
    return [arrow_type(with_branch(type, branch.type)) for branch in union.fields]
