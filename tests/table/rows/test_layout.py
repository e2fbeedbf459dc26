from datetime import UTC, datetime

import pyarrow as pa
import pytest
from pyiceberg.types import StringType
from support.table_records import batch_of

from streamlake.cluster.config.columns import LAYOUTS, Layout
from streamlake.table.formats import headers as convert_headers
from streamlake.table.formats.source_schema import SourceStruct
from streamlake.table.rows.layout import metadata_columns, timestamps


def shown(columns):
    return {column.field.name: array.to_pylist() for column, array in columns}


KEY = (StringType(), pa.array(["k", None], pa.large_string()))
SENT = batch_of([b"v", None], [b"k", None], [[("h", b"1"), ("g", None), ("h", b"2")], []], first_offset=5, partition=3)
TWO = SENT.set_column(SENT.schema.names.index("headers"), "headers", convert_headers.convert(SENT["headers"])[0])


def test_streamlakes_struct_keeps_repeated_headers_in_order() -> None:
    (row, other) = shown(metadata_columns("streamlake", "t", TWO, KEY))["_kafka"]
    assert row == {
        "topic": "t",
        "partition": 3,
        "offset": 5,
        "timestamp": datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC),
        "timestamp_type": "CreateTime",
        "key": "k",
        "headers": [{"key": "h", "value": b"1"}, {"key": "g", "value": None}, {"key": "h", "value": b"2"}],
    }
    assert (other["key"], other["headers"]) == (None, [])


def test_automqs_columns() -> None:
    assert shown(metadata_columns("automq", "t", TWO, KEY)) == {
        "_kafka_header": [[("h", b"2"), ("g", None)], []],
        "_kafka_key": ["k", None],
        "_kafka_metadata": [
            {"partition": 3, "offset": 5, "timestamp": 1_700_000_000_000},
            {"partition": 3, "offset": 6, "timestamp": 1_700_000_000_001},
        ],
    }


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=lambda layout: layout.name)
def test_columns_are_those_of_the_list(layout: Layout) -> None:
    made = [column.field for column, _ in metadata_columns(layout.name, "t", TWO, KEY)]
    inside = {f"{f.name}.{child.name}" for f in made if isinstance(f.type, SourceStruct) for child in f.type.fields}
    assert {f.name for f in made} | inside == {*layout.columns, layout.key}


def test_without_a_key_type_there_is_no_key_column() -> None:
    assert "key" not in shown(metadata_columns("streamlake", "t", TWO, None))["_kafka"][0]
    assert list(shown(metadata_columns("automq", "t", TWO, None))) == ["_kafka_header", "_kafka_metadata"]


def test_timestamps_that_no_engine_can_read_are_null() -> None:
    found = timestamps(pa.array([-1, 0, -2, 2**63 - 1, -(2**63), 253_402_300_799_999, 253_402_300_800_000]))
    assert [t is None for t in found.to_pylist()] == [True, False, False, True, True, False, True]
    assert found.cast(pa.int64()).to_pylist()[1:3] == [0, -2000]
