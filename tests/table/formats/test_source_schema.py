"""Source types are held in Arrow types that any table column of theirs can be cast from."""

import pyarrow as pa
from pyiceberg.types import IntegerType, StringType, UUIDType

from streamlake.table.formats.source_schema import SourceList, SourceMap, SourceStruct, arrow_type, source_field


def test_arrow_type_of_nested_types() -> None:
    inner = SourceStruct((source_field("id", UUIDType()), source_field("tags", SourceList(StringType()))))
    expected = pa.struct([("id", pa.uuid()), ("tags", pa.large_list(pa.field("element", pa.large_string())))])
    assert arrow_type(inner) == expected
    assert arrow_type(SourceMap(StringType(), inner)) == pa.map_(pa.large_string(), expected)
    assert arrow_type(IntegerType()) == pa.int32()


def test_identity_is_the_name_by_default() -> None:
    field = source_field("offset", IntegerType(), doc="where")
    assert (field.segment, field.name, field.aliases, field.doc) == ("offset", "offset", (), "where")
