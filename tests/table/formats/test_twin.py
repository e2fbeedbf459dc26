"""A codec whose values are digits, and whose kernel knows even numbers only."""

from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.types import LongType

from streamlake.table.formats import twin
from streamlake.table.formats.twin import Codec, Undecodable

VALUES = [b"..%d" % n if n != 7 else b"..x" for n in range(20)]


def decode(data: bytes) -> int:
    if not data.isdigit():
        raise Undecodable(f"{data!r} is no number")
    return int(data)


def build(values: list[int]) -> Any:
    if 13 in values:
        raise ValueError("13 does not fit")
    return pa.array(values, pa.int64())


class Evens:
    def read(self, column: Any, rows: Any, skip_bytes: int) -> tuple[Any, Any, Any]:
        texts = {row: column[row].as_py()[skip_bytes:] for row in rows.to_pylist()}
        taken = [row for row, text in texts.items() if text.isdigit() and int(text) % 2 == 0]
        refused = [row for row in texts if row not in taken]
        values = pa.array([int(texts[row]) for row in taken], pa.int64())
        return pa.array(taken, pa.int64()), pa.array(refused, pa.int64()), values


@pytest.mark.parametrize("native", [None, Evens()])
def test_bad_values_hurt_their_own_rows(native: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twin, "CHUNK_ROWS", 6)
    codec = Codec(LongType(), decode, build, native)
    group, errors = codec.read(pa.array(VALUES, pa.binary()), pa.array(range(20)), 2)
    good = [n for n in range(20) if n not in (7, 13)]
    assert group.rows.to_pylist() == group.values.to_pylist() == good
    assert dict(errors) == {7: "b'x' is no number", 13: "13 does not fit"}


def test_values_without_columns() -> None:
    group, errors = Codec(None, decode, None, None).read(pa.array(VALUES, pa.binary()), pa.array([6, 7, 8]), 2)
    assert (group.type, group.rows.to_pylist(), len(group.values)) == (None, [6, 8], 2)
    assert [row for row, _ in errors] == [7]


def test_no_rows() -> None:
    group, errors = Codec(LongType(), decode, build, None).read(
        pa.array(VALUES, pa.binary()), pa.array([], pa.int64()), 2
    )
    assert (group.rows.to_pylist(), group.values.to_pylist(), errors) == ([], [], [])
