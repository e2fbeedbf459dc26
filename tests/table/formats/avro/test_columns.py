"""Builders refuse what does not fit a column, and say so by one of BAD_VALUE."""

from datetime import UTC, date, datetime, time
from decimal import Decimal
from uuid import UUID

import pyarrow as pa
import pytest

from streamlake.table.formats.avro import columns
from streamlake.table.formats.twin import BAD_VALUE


def test_scalars() -> None:
    assert columns.text([b"a", None]).to_pylist() == ["a", None]
    assert columns.dates([-719_162, None, 2_932_896]).to_pylist() == [date(1, 1, 1), None, date(9999, 12, 31)]
    assert columns.times(1000)([86_399_999]).to_pylist() == [time(23, 59, 59, 999_000)]
    assert columns.decimals(38, 2)([b"\xff", b"", None]).to_pylist() == [Decimal("-0.01"), Decimal("0.00"), None]
    assert columns.uuids_of_bytes([b"\1" * 16]).to_pylist() == [UUID(bytes=b"\1" * 16)]
    assert columns.enums(["A", "B"])([1, None, 0]).to_pylist() == ["B", None, "A"]


def test_timestamps_scale_and_round_down() -> None:
    assert columns.timestamps(1000, 1, "UTC")([-1]).to_pylist() == [datetime(1969, 12, 31, 23, 59, 59, 999_000, UTC)]
    assert columns.timestamps(1, 1000, None)([-1, 1999]).cast(pa.int64()).to_pylist() == [-1, 1]


def test_decimals_keep_38_digits() -> None:
    widest = 10**38 - 1
    (found,) = columns.decimals(38, 10)([widest.to_bytes(16, "big", signed=True)]).to_pylist()
    assert found == Decimal(f"{'9' * 28}.{'9' * 10}")


@pytest.mark.parametrize(
    ("build", "value"),
    [
        (columns.plain(pa.int32()), 2**31),
        (columns.text, b"\xff"),
        (columns.dates, -719_163),
        (columns.dates, 2**31),
        (columns.times(1000), 86_400_000),
        (columns.times(1), -1),
        (columns.timestamps(1000, 1, "UTC"), 2**62),
        (columns.timestamps(1, 1, "UTC"), 253_402_300_800_000_000),
        (columns.decimals(3, 0), (1000).to_bytes(2, "big")),
        (columns.uuids_of_text, b"not a uuid"),
        (columns.uuids_of_text, b"\xff" * 16),
        (columns.enums(["A"]), 1),
        (columns.enums(["A"]), -1),
    ],
)
def test_what_does_not_fit_is_refused(build, value) -> None:
    with pytest.raises(BAD_VALUE):
        build([value])


def test_nested() -> None:
    item = pa.struct([("a", pa.int32())])
    struct = columns.structs(item, ["a"], [columns.plain(pa.int32())])
    assert struct([{"a": 1}, None]).to_pylist() == [{"a": 1}, None]
    branch = columns.unions(
        pa.struct([("int", pa.int32()), ("string", pa.large_string())]),
        ["b0", "b1"],
        [columns.plain(pa.int32()), columns.text],
    )
    assert branch([{"b1": b"x"}, None, {"b0": 2}]).to_pylist() == [
        {"int": None, "string": "x"},
        None,
        {"int": 2, "string": None},
    ]
    many = columns.lists(pa.large_list(pa.field("element", item)), struct)
    assert many([[{"a": 1}, None], None, []]).to_pylist() == [[{"a": 1}, None], None, []]
    entries = columns.maps(pa.map_(pa.large_string(), item), struct)
    assert entries([{"k": {"a": 1}, "l": None}, None, {}]).to_pylist() == [[("k", {"a": 1}), ("l", None)], None, []]
