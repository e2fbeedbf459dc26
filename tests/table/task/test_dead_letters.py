from datetime import UTC, datetime

from pyiceberg.partitioning import PartitionSpec
from pyiceberg.table.metadata import new_table_metadata
from pyiceberg.table.sorting import SortOrder
from support.table_records import records

from streamlake.record.arrow import BadBatch
from streamlake.table.formats.converted import Reason, RowError
from streamlake.table.rows.project import table_schema
from streamlake.table.task.dead_letters import DEAD_LETTER_SCHEMA, dead_batches, dead_rows


def test_a_record_is_kept_whole_with_its_reason() -> None:
    sent = records(
        [b"v0", b"\xff", None], [b"k0", None, b"\xfe"], [[], [("h\udcff", None)], []], first_offset=10, partition=4
    )
    dead = dead_rows("t", sent, [RowError(1, Reason.INVALID_VALUE, "why"), RowError(2, Reason.INVALID_KEY, "so")])
    assert dead.schema.equals(table_schema(DEAD_LETTER_SCHEMA), check_metadata=True)
    assert dead.to_pylist() == [
        {
            "reason": "invalid_value", "error": "why", "topic": "t", "partition": 4, "offset": 11, "last_offset": 11,
            "timestamp": datetime(2023, 11, 14, 22, 13, 20, 1000, UTC), "timestamp_type": "CreateTime",
            "key": None, "value": b"\xff", "headers": [{"key": "h\ufffd", "value": None}],
        },
        {
            "reason": "invalid_key", "error": "so", "topic": "t", "partition": 4, "offset": 12, "last_offset": 12,
            "timestamp": datetime(2023, 11, 14, 22, 13, 20, 2000, UTC), "timestamp_type": "CreateTime",
            "key": b"\xfe", "value": None, "headers": [],
        },
    ]  # fmt: skip


def test_a_bad_batch_is_one_row_for_all_its_offsets() -> None:
    (row,) = dead_batches("t", [(2, BadBatch(5, 9, "x" * 5000, b"raw"))]).to_pylist()
    assert (row["reason"], row["partition"], row["offset"], row["last_offset"], row["value"]) == (
        "invalid_batch",
        2,
        5,
        9,
        b"raw",
    )
    assert (row["timestamp"], row["key"], row["headers"], len(row["error"])) == (None, None, None, 1000)


def test_none_is_an_empty_table() -> None:
    assert len(dead_rows("t", records([b"v"]), [])) == len(dead_batches("t", [])) == 0


def test_a_catalog_keeps_the_schemas_ids() -> None:
    assert new_table_metadata(DEAD_LETTER_SCHEMA, PartitionSpec(), SortOrder(), "/x", {}).schema() == DEAD_LETTER_SCHEMA
