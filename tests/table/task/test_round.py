import pyarrow as pa
import pytest

from streamlake.core.errors import Invalid
from streamlake.record.arrow import RECORDS_SCHEMA, BadBatch, DecodedRecords
from streamlake.table.commit.progress import beginning
from streamlake.table.task.round import SCHEMA, Round
from streamlake.table.task.settled import NONE_SETTLED, SettledDeadLetters

START = beginning("c", "t", "i", 1).advanced(1, {0: 100, 1: 5}, {})


def decoded(
    offsets: list[int], next_offset: int, skipped: dict[str, int] | None = None, *bad: BadBatch
) -> DecodedRecords:
    rows = [
        {"offset": o, "timestamp": 1, "timestamp_type": 0, "key": None, "value": b"v", "headers": []} for o in offsets
    ]
    return DecodedRecords(pa.Table.from_pylist(rows, RECORDS_SCHEMA), next_offset, skipped or {}, bad)


def test_adds_up() -> None:
    filling = Round(START)
    filling.add(0, decoded([100, 101], 105, {"control": 1, "aborted": 2}), 10)
    filling.add(2, decoded([0], 1), 20)
    assert (filling.position(0), filling.position(1), filling.position(2)) == (105, 5, 1)
    assert filling.size_bytes == 30
    records = filling.records()
    assert records.schema == SCHEMA
    assert list(zip(records["partition"].to_pylist(), records["offset"].to_pylist(), strict=True)) == [
        (0, 100),
        (0, 101),
        (2, 0),
    ]
    filling.check_account(rows=3, rowless=0)
    filling.check_account(rows=2, rowless=1)
    with pytest.raises(AssertionError, match="6 positions accounts for 5"):
        filling.check_account(rows=2, rowless=0)


def test_a_round_of_nothing() -> None:
    empty = Round(START)
    assert not empty.has_progress
    assert empty.records().schema == SCHEMA
    empty.check_account(0, 0)


def test_a_bad_batch_counts_from_our_position() -> None:
    """The batch holds 98 to 104; what lies below 100 was covered before."""
    bad = BadBatch(98, 104, "torn", b"raw")
    filling = Round(START)
    filling.add(0, decoded([], 105, None, bad), 3)
    assert filling.dead_positions == 5
    filling.check_account(0, 0)
    assert filling.new_bad_batches(NONE_SETTLED) == [(0, bad)]
    assert filling.new_bad_batches(SettledDeadLetters([(0, 98, 104)])) == []


def test_deleted_positions_are_counted_not_read() -> None:
    filling = Round(START)
    filling.check_log(0, 130, 150)
    assert filling.position(0) == 130
    assert filling.skipped == {"deleted_before_translation": 30}
    filling.check_log(0, 130, 150)
    assert filling.skipped == {"deleted_before_translation": 30}
    filling.check_account(0, 0)


def test_a_log_that_ends_before_the_table_is_another_log() -> None:
    with pytest.raises(Invalid, match="ends at offset 99, but the table holds it up to 100"):
        Round(START).check_log(0, 0, 99)
