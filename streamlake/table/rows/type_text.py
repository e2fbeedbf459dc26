"""A column's type as text, as engines and catalogs write it: alike but for some names and their punctuation."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

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

NAMES: Mapping[type[IcebergType], str] = {
    BooleanType: "boolean",
    IntegerType: "int",
    LongType: "bigint",
    FloatType: "float",
    DoubleType: "double",
    DateType: "date",
    TimeType: "time",
    TimestampType: "timestamp_ntz",
    TimestamptzType: "timestamp",
    StringType: "string",
    UUIDType: "uuid",
    BinaryType: "binary",
    FixedType: "binary",
}


class Words(NamedTuple):
    names: Mapping[type[IcebergType], str]  # of primitive types
    comma: str
    colon: str
    quoted: Callable[[str], str]  # a field's name


def type_text(type: IcebergType, words: Words) -> str:
    match type:
        case StructType():
            fields = (
                f"{words.quoted(field.name)}{words.colon}{type_text(field.field_type, words)}" for field in type.fields
            )
            return f"struct<{words.comma.join(fields)}>"
        case ListType():
            return f"array<{type_text(type.element_type, words)}>"
        case MapType():
            return f"map<{type_text(type.key_type, words)}{words.comma}{type_text(type.value_type, words)}>"
        case DecimalType():
            return f"decimal({type.precision}{words.comma}{type.scale})"
    return words.names[type.__class__]
