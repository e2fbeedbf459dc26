import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlake.core.errors import Invalid
from streamlake.table.formats.protobuf.indexes import INDEXES_MAX, Prefix, read_prefix, split


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def prefix(*path: int) -> bytes:
    return b"".join(varint(2 * n) for n in (len(path), *path))


@given(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=INDEXES_MAX), st.binary(max_size=5))
def test_any_path(path: list[int], body: bytes) -> None:
    assert read_prefix(prefix(*path) + body) == Prefix(tuple(path), len(prefix(*path)))


def test_the_short_form_of_the_first() -> None:
    assert read_prefix(b"\0\x08\1") == Prefix((0,), 1)


@pytest.mark.parametrize(
    "data", [b"", b"\x01", b"\x02", b"\x04\0", b"\x02\x01", b"\x42", b"\xff" * 40, b"\x02\xff\xff\xff\xff\x1f", b"\x80"]
)
def test_what_is_no_path(data: bytes) -> None:
    with pytest.raises(Invalid):
        read_prefix(data)


def test_rows_by_message() -> None:
    values = [b"?" + head + b"x" for head in (prefix(1), b"\0", prefix(1, 2), b"\x01", prefix(1), prefix(0))]
    column = pa.array([*values, None, b"?"], pa.binary())
    parts, errors = split(column, pa.array([0, 1, 2, 3, 4, 5, 7]), 1)
    assert [(found, rows.to_pylist()) for found, rows in parts] == [
        (Prefix((1,), 2), [0, 4]), (Prefix((0,), 1), [1]), (Prefix((1, 2), 3), [2]), (Prefix((0,), 2), [5]),
    ]  # fmt: skip
    assert [row for row, _ in errors] == [3, 7]
    assert split(column, pa.array([], pa.int64()), 1) == ([], [])
    ((found, rows),), errors = split(column, pa.array([0, 4]), 1)
    assert (found, rows.to_pylist(), errors) == (Prefix((1,), 2), [0, 4], [])


def test_a_first_value_that_is_bad_spoils_no_other() -> None:
    parts, errors = split(pa.array([b"", b"\0"], pa.binary()), pa.array([0, 1]), 0)
    assert [rows.to_pylist() for _, rows in parts] == [[1]]
    assert [row for row, _ in errors] == [0]
