import pyarrow as pa
from pyiceberg.types import IntegerType, StringType

from streamlake.table.formats.source_schema import ROW, VALUE, SourceChange, SourceStruct, source_field
from streamlake.table.rows.flatten import value_columns

RECORD = SourceStruct((source_field("a", IntegerType()), source_field("b", StringType())))
VALUES = pa.array([{"a": 1, "b": "x"}], pa.struct([("a", pa.int32()), ("b", pa.large_string())]))


def shown(columns):
    return [(column.root, column.field.name, array.to_pylist()) for column, array in columns]


def test_flatten_lifts_one_level() -> None:
    assert shown(value_columns(RECORD, VALUES, flatten=True, column="value")) == [
        (VALUE, "a", [1]),
        (VALUE, "b", ["x"]),
    ]


def test_without_flatten_the_value_is_one_column() -> None:
    assert shown(value_columns(RECORD, VALUES, flatten=False, column="v")) == [(ROW, "v", [{"a": 1, "b": "x"}])]


def test_what_is_no_record_stays_one_column() -> None:
    assert shown(value_columns(StringType(), pa.array(["x"]), flatten=True, column="value")) == [(ROW, "value", ["x"])]


def test_beside_the_row_of_a_change_are_columns_of_ours() -> None:
    type = SourceChange((source_field("row", RECORD), source_field("_op", StringType())))
    values = pa.StructArray.from_arrays([VALUES, pa.array(["c"], pa.large_string())], ["row", "_op"])
    assert shown(value_columns(type, values, flatten=True, column="value")) == [
        (VALUE, "a", [1]),
        (VALUE, "b", ["x"]),
        (ROW, "_op", ["c"]),
    ]


def test_a_schema_without_data_has_no_columns() -> None:
    assert value_columns(None, pa.nulls(1), flatten=True, column="value") == []
