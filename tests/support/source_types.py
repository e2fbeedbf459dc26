"""Types of columns in words, as the guide has them."""

from typing import Any

from pyiceberg.types import IcebergType, ListType, MapType, StructType

from streamlake.table.formats.source_schema import SourceList, SourceMap, SourceStruct


def words(type: Any) -> str:
    """A type as the guide writes it."""
    match type:
        case None:
            return ""
        case SourceStruct(fields):
            return f"struct<{', '.join(f'{field.name}: {words(field.type)}' for field in fields)}>"
        case SourceList(element):
            return f"list<{words(element)}>"
        case SourceMap(key, value):
            return f"map<{words(key)}, {words(value)}>"
    assert isinstance(type, IcebergType) and not isinstance(type, StructType | ListType | MapType)
    return str(type)
