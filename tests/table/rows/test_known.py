"""What inference begins with: the table's own columns, whoever made them."""

from typing import Any

from pyiceberg.schema import Schema
from pyiceberg.types import (
    DateType,
    DoubleType,
    FloatType,
    IntegerType,
    ListType,
    LongType,
    MapType,
    NestedField,
    StringType,
    StructType,
)

from streamlake.cluster.config.table import PREFIX, TableSettings
from streamlake.table.formats.source_schema import SourceField, SourceList, SourceMap, SourceStruct
from streamlake.table.rows.known import known_columns


def settings(**configs: str) -> TableSettings:
    configs = {"convert_value_type": "json", **configs}
    return TableSettings.from_configs({PREFIX + key.replace("_", "."): value for key, value in configs.items()})


def column(id: int, name: str, type: Any) -> NestedField:
    return NestedField(id, name, type, required=False)


POINT = StructType(column(10, "x", IntegerType()), column(11, "y_2", FloatType()))
COLUMNS = (
    column(1, "a", LongType()),
    column(2, "p", POINT),
    column(3, "l", ListType(12, StructType(column(13, "t", StringType())), False)),
    column(4, "m", MapType(14, StringType(), 15, LongType(), False)),
    column(5, "theirs", DateType()),
)
FIELDS = {"2/x": 10, "2/y.": 11, "12/t": 13}
WANTED = {
    "A": LongType(),
    "p": SourceStruct((SourceField("x", "x", LongType()), SourceField("y.", "y.", DoubleType()))),
    "l": SourceList(SourceStruct((SourceField("t", "t", StringType()),))),
    "m": SourceMap(StringType(), LongType()),
    "theirs": DateType(),
}


def bound(parent: str) -> dict[str, int]:
    return {f"{parent}/A": 1, f"{parent}/p": 2, f"{parent}/l": 3, f"{parent}/m": 4, **FIELDS}


def test_flattened() -> None:
    schema = Schema(*COLUMNS, column(6, "_kafka", StructType(column(7, "offset", LongType()))))
    fields = {**bound("value"), "row/_kafka": 6, "6/offset": 7}
    assert known_columns(schema, fields, settings(transform_value_type="flatten")) == WANTED


def test_in_one_column() -> None:
    schema = Schema(column(20, "value", StructType(*COLUMNS)), column(6, "_kafka", StructType()))
    fields = {**bound("20"), "row/value": 20, "row/_kafka": 6}
    assert known_columns(schema, fields, settings()) == WANTED
    assert known_columns(schema, {}, settings()) == {}, "no column is bound yet"
    text = Schema(column(20, "value", StringType()))
    assert known_columns(text, {"row/value": 20}, settings()) == {}, "the topic had text before"
