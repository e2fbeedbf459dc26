"""How long a column's type is as text, as AWS Glue and the Hive Metastore keep it."""

from collections.abc import Mapping

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
    StringType,
    StructType,
    TimestampType,
    TimestamptzType,
    TimeType,
    UUIDType,
)

_NAMES: Mapping[type[IcebergType], str] = {
    BooleanType: "boolean",
    IntegerType: "int",
    LongType: "bigint",
    FloatType: "float",
    DoubleType: "double",
    DateType: "date",
    TimeType: "string",
    TimestampType: "timestamp",
    TimestamptzType: "timestamp with local time zone",  # Hive's; Glue's is shorter
    StringType: "string",
    UUIDType: "string",
    BinaryType: "binary",
    FixedType: "binary",
}


def type_chars(type: IcebergType) -> int:
    if isinstance(type, StructType):
        fields = (len(field.name) + len(":,") + type_chars(field.field_type) for field in type.fields)
        return len("struct<>") + sum(fields) - 1
    if isinstance(type, ListType):
        return len("array<>") + type_chars(type.element_type)
    if isinstance(type, MapType):
        return len("map<,>") + type_chars(type.key_type) + type_chars(type.value_type)
    if isinstance(type, DecimalType):
        return len(f"decimal({type.precision},{type.scale})")
    return len(_NAMES[type.__class__])
