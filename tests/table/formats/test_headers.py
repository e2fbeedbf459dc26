"""Keys that are text stay as they are; others are errors of their rows, whatever the array was cut from."""

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from streamlake.record.arrow import RECORDS_SCHEMA
from streamlake.table.formats.headers import TEXT_HEADERS, convert

HEADERS = st.tuples(st.binary(max_size=3) | st.text(max_size=3).map(str.encode), st.none() | st.binary(max_size=3))
ROWS = st.lists(st.lists(HEADERS, max_size=3), max_size=6)


def is_text(key: bytes) -> bool:
    try:
        key.decode()
    except UnicodeDecodeError:
        return False
    return True


@given(ROWS, st.integers(0, 3), st.integers(0, 6))
def test_rows_with_text_are_kept_and_the_others_named(rows, start, length) -> None:
    array = pa.array([[{"key": k, "value": v} for k, v in row] for row in rows], RECORDS_SCHEMA.field("headers").type)
    found, errors = convert(array.slice(start, length))
    rows = rows[start:][:length]
    found.validate(full=True)
    assert found.type == TEXT_HEADERS
    bad = {at for at, row in enumerate(rows) if not all(is_text(k) for k, _ in row)}
    assert {error.row for error in errors} == bad
    for at, row in enumerate(found.to_pylist()):
        assert [h["value"] for h in row] == [v for _, v in rows[at]]
        if at not in bad:
            assert [h["key"].encode() for h in row] == [k for k, _ in rows[at]]


def test_the_error_of_a_long_key_is_short() -> None:
    """It goes into the report of a table, which is one line of limited length."""
    type = RECORDS_SCHEMA.field("headers").type
    _, (error,) = convert(pa.array([[{"key": b"\xff" * 10_000_000, "value": None}]], type))
    assert len(error.message) < 300 and error.message.endswith("ff…")
