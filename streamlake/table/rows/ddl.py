"""A table's schema as a statement that people can read, in Spark's words."""

from collections.abc import Iterator, Mapping

from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import BucketTransform, IdentityTransform, TruncateTransform
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
    TimeType: "time",
    TimestampType: "timestamp_ntz",
    TimestamptzType: "timestamp",
    StringType: "string",
    UUIDType: "uuid",
    BinaryType: "binary",
    FixedType: "binary",
}


def create_table(name: str, schema: Schema, spec: PartitionSpec) -> str:
    columns = ",\n".join(f"  {quoted(field.name)} {type_text(field.field_type)}" for field in schema.fields)
    by = ", ".join(_partitions(schema, spec))
    partitioned = f"\nPARTITIONED BY ({by})" if by else ""
    return f"CREATE TABLE {'.'.join(map(quoted, name.split('.')))} (\n{columns}\n) USING iceberg{partitioned}"


def quoted(name: str) -> str:
    return name if name.isidentifier() and name.isascii() else "`" + name.replace("`", "``") + "`"


def type_text(type: IcebergType) -> str:
    match type:
        case StructType():
            fields = (f"{quoted(field.name)}: {type_text(field.field_type)}" for field in type.fields)
            return f"struct<{', '.join(fields)}>"
        case ListType():
            return f"array<{type_text(type.element_type)}>"
        case MapType():
            return f"map<{type_text(type.key_type)}, {type_text(type.value_type)}>"
        case DecimalType():
            return f"decimal({type.precision}, {type.scale})"
    return _NAMES[type.__class__]


def _partitions(schema: Schema, spec: PartitionSpec) -> Iterator[str]:
    for field in spec.fields:
        name = ".".join(quoted(part) for part in schema.find_column_name(field.source_id).split("."))  # type: ignore[union-attr]
        match field.transform:
            case IdentityTransform():
                yield name
            case BucketTransform(num_buckets=number):
                yield f"bucket({number}, {name})"
            case TruncateTransform(width=width):
                yield f"truncate({width}, {name})"
            case other:
                yield f"{other}s({name})"  # years, months, days, hours
