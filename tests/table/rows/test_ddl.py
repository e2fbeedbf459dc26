from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import IdentityTransform, MonthTransform, TruncateTransform
from pyiceberg.types import (
    DecimalType,
    FixedType,
    ListType,
    LongType,
    MapType,
    NestedField,
    StringType,
    StructType,
    TimestampType,
    UUIDType,
)  # fmt: skip

from streamlake.table.rows.ddl import create_table


def test_names_types_and_partitions() -> None:
    inner = StructType(NestedField(5, "a b", DecimalType(9, 2)), NestedField(6, "t", TimestampType()))
    schema = Schema(
        NestedField(1, "id", LongType()),
        NestedField(2, "größe", MapType(7, StringType(), 8, ListType(9, FixedType(3)))),
        NestedField(3, "inner", inner),
        NestedField(4, "u`x", UUIDType()),
    )
    spec = PartitionSpec(
        PartitionField(6, 1000, MonthTransform(), "m"),
        PartitionField(5, 1001, IdentityTransform(), "i"),
        PartitionField(1, 1002, TruncateTransform(10), "w"),
    )
    assert create_table("a.b-c", schema, spec) == (
        "CREATE TABLE a.`b-c` (\n  id bigint,\n  `größe` map<string, array<binary>>,\n"
        "  inner struct<`a b`: decimal(9, 2), t: timestamp_ntz>,\n  `u``x` uuid\n) USING iceberg\n"
        "PARTITIONED BY (months(inner.t), inner.`a b`, truncate(10, id))"
    )
