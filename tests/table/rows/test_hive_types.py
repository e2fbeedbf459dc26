import pytest
from pyiceberg.catalog.glue import _IcebergSchemaToGlueType
from pyiceberg.catalog.hive import SchemaToHiveConverter
from pyiceberg.schema import visit
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    FixedType,
    FloatType,
    IcebergType,
    IntegerType,
    ListType,
    LongType,
    MapType,
    NestedField,
    StringType,
    StructType,
    TimestampType,
    TimestamptzType,
    TimeType,
    UUIDType,
)

from streamlake.table.rows.hive_types import type_chars

PRIMITIVES = [
    BooleanType(), IntegerType(), LongType(), FloatType(), DoubleType(), DateType(), TimeType(), TimestampType(),
    TimestamptzType(), StringType(), UUIDType(), BinaryType(), FixedType(16), DecimalType(38, 10), DecimalType(5, 2),
]  # fmt: skip
ALL = StructType(*(NestedField(n, f"field_{n}", type) for n, type in enumerate(PRIMITIVES, 1)))
NESTED = [ListType(20, ALL), MapType(21, StringType(), 22, ALL), StructType(NestedField(23, "x", ListType(24, ALL)))]


@pytest.mark.parametrize("type", [*PRIMITIVES, ALL, *NESTED], ids=lambda type: str(type)[:30])
def test_it_is_the_length_of_what_pyiceberg_sends(type: IcebergType) -> None:
    assert type_chars(type) == len(visit(type, SchemaToHiveConverter(False)))
    in_glue = len(visit(type, _IcebergSchemaToGlueType()))
    assert 0 <= type_chars(type) - in_glue <= len("timestamp with local time zone") - len("timestamp")
