"""The columns that a table has for the keys of plain JSON: formats/json/infer.py begins with them."""

from collections import defaultdict
from collections.abc import Mapping

from pyiceberg.schema import Schema
from pyiceberg.types import (
    DoubleType,
    FloatType,
    IcebergType,
    IntegerType,
    ListType,
    LongType,
    MapType,
    PrimitiveType,
    StructType,
)

from streamlake.cluster.config.columns import LAYOUTS
from streamlake.cluster.config.table import TableSettings
from streamlake.table.formats.source_schema import (
    ROW,
    VALUE,
    SourceField,
    SourceList,
    SourceMap,
    SourceStruct,
    SourceType,
)
from streamlake.table.rows.field_map import FieldMap, key_of


def known_columns(schema: Schema, fields: FieldMap, settings: TableSettings) -> Mapping[str, SourceType]:
    """By key. Columns that no key is bound to are known by their names: a key of that name would be bound to them."""
    known = _Known(schema, fields)
    if settings.flattens:
        ours = {id for key, id in fields.items() if key.startswith(f"{ROW}/")}
        top = StructType(*(field for field in schema.fields if field.field_id not in ours))
        return {field.segment: field.type for field in known.struct(VALUE, top).fields}
    id = fields.get(key_of(ROW, LAYOUTS[settings.layout].value))
    value = next((field.field_type for field in schema.fields if field.field_id == id), None)
    if not isinstance(value, StructType):
        return {}
    return {field.segment: field.type for field in known.struct(str(id), value).fields}


class _Known:
    def __init__(self, schema: Schema, fields: FieldMap) -> None:
        self._segments: dict[int, list[tuple[str, str]]] = defaultdict(list)  # of a column: (parent, segment)
        for key, id in fields.items():
            parent, _, segment = key.partition("/")
            self._segments[id].append((parent, segment))

    def struct(self, parent: str, type: StructType) -> SourceStruct:
        found = []
        for column in type.fields:
            inner = self._type(column.field_id, column.field_type)
            bound = [segment for of, segment in self._segments.get(column.field_id, ()) if of == parent]
            found += [SourceField(segment, segment, inner) for segment in bound or [column.name]]
        return SourceStruct(tuple(found))

    def _type(self, id: int, type: IcebergType) -> SourceType:
        match type:
            case StructType():
                return self.struct(str(id), type)
            case ListType():
                return SourceList(self._type(type.element_id, type.element_type))
            case MapType(key_type=PrimitiveType() as key):
                return SourceMap(key, self._type(type.value_id, type.value_type))
            case IntegerType():
                return LongType()  # which the column becomes with the next value
            case FloatType():
                return DoubleType()
            case PrimitiveType():
                return type
        raise AssertionError(f"no type of Iceberg: {type}")
