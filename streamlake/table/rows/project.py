"""Rows of one source schema → rows of the table, column by column, exactly as its Iceberg schema says.

evolve.py's binding says which source field fills which column; columns that the source does not have are null. Values
are only ever widened, because evolve refuses everything else.
"""

from operator import is_
from typing import Any, TypeAlias

import pyarrow as pa
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.schema import Schema
from pyiceberg.types import IcebergType, ListType, MapType, StructType

from streamlake.table.formats.source_schema import (
    SourceField,
    SourceList,
    SourceMap,
    SourceStruct,
    SourceType,
    source_field,
)
from streamlake.table.rows.field_map import PLAIN, FieldMap, branch_segment, key_of
from streamlake.table.rows.groups import RowGroup
from streamlake.table.rows.unions import branch_arrays, branch_name, union_in, unsliced, with_branch

Sources: TypeAlias = dict[int, tuple[SourceField, Any]]  # by the column that it fills


def table_schema(schema: Schema) -> Any:
    """The Arrow schema of the table's rows, with field ids."""
    return schema_to_pyarrow(schema, include_field_ids=True)


def project(group: RowGroup, schema: Schema, target: Any, binding: FieldMap) -> Any:
    """A pa.Table of `target`, which is `table_schema(schema)`; one row for each of the group's."""
    sources: Sources = {}
    for column, array in zip(group.columns, group.arrays, strict=True):
        sources |= _bound(column.root, column.field, array, binding)
    arrays = _children(schema.as_struct(), list(target), sources, len(group.rows), binding)
    return pa.Table.from_arrays(arrays, schema=target)


def _children(
    struct: StructType,
    targets: list[Any],
    sources: Sources,
    length: int,
    binding: FieldMap,
) -> list[Any]:
    arrays = []
    for column, target in zip(struct.fields, targets, strict=True):
        if column.field_id in sources:
            field, array = sources[column.field_id]
            arrays.append(_cast(array, field.type, column.field_id, column.field_type, target.type, binding))
        else:
            arrays.append(pa.nulls(length, target.type))
    return arrays


def _cast(array: Any, source: SourceType, id: int, type: IcebergType, target: Any, binding: FieldMap) -> Any:
    """`array` of `source` as column `id` of the table, which has `type`, in Arrow `target`; `array` itself if it is
    that already, as it nearly always is."""
    match source, type:
        case SourceStruct(fields), StructType():
            given = [array.field(at) for at in range(len(fields))]
            sources: Sources = {}
            for field, child in zip(fields, given, strict=True):
                sources |= _bound(id, field, child, binding)
            arrays = _children(type, list(target), sources, len(array), binding)
            # The same columns in the same order, not only the same names: a binding may exchange two.
            if array.type == target and all(map(is_, arrays, given)):
                return array
            return pa.StructArray.from_arrays(arrays, fields=list(target), mask=array.is_null())
        case SourceList(element), ListType():
            array = unsliced(array)
            given = array.values
            values = _cast(given, element, type.element_id, type.element_type, target.value_type, binding)
            if array.type == target and values is given:
                return array
            offsets = array.offsets.cast(pa.int64())
            return pa.LargeListArray.from_arrays(offsets, values, type=target, mask=array.is_null())
        case SourceMap(key, value), MapType():
            array = unsliced(array)
            given = [array.keys, array.items]
            keys = _cast(given[0], key, type.key_id, type.key_type, target.key_type, binding)
            items = _cast(given[1], value, type.value_id, type.value_type, target.item_type, binding)
            if array.type == target and keys is given[0] and items is given[1]:
                return array
            return pa.MapArray.from_arrays(array.offsets, keys, items, type=target, mask=array.is_null())
        case _, StructType():  # a plain value in the column of a union
            plain = {binding[key_of(id, PLAIN)]: (source_field(PLAIN, source), array)}
            arrays = _children(type, list(target), plain, len(array), binding)
            return pa.StructArray.from_arrays(arrays, fields=list(target), mask=array.is_null())
    return array if array.type == target else array.cast(target)


def _bound(parent: str | int, field: SourceField, array: Any, binding: FieldMap) -> Sources:
    """The columns that a source field fills: one, or one for each branch of a union."""
    id = binding.get(key_of(parent, field.segment))
    if id is not None:
        return {id: (field, array)}
    union = union_in(field.type)
    assert union is not None, f"{field.segment} is bound to no column"
    branches = zip(union.fields, branch_arrays(field.type, array), strict=True)
    return {
        binding[key_of(parent, branch_segment(field.segment, branch_name(field.type, branch.segment)))]: (
            source_field(branch.segment, with_branch(field.type, branch.type)),
            values,
        )
        for branch, values in branches
    }
