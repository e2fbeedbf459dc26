import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st
from support.table_records import Registry

from streamlake.table.formats import string
from streamlake.table.formats.converted import Reason
from streamlake.table.formats.resolve import SchemaCache


def test_bad_text_is_an_error_of_its_row_only() -> None:
    column = pa.array([b"a", b"\xff\xfe", None, "ü".encode(), b"\xe2\x82"], pa.binary())
    converted = string.convert(column, Reason.INVALID_KEY, SchemaCache(Registry()))
    (group,) = converted.groups
    assert group.rows.to_pylist() == [0, 2, 3]
    assert group.values.to_pylist() == ["a", None, "ü"]
    assert [(e.row, e.reason) for e in converted.errors] == [(1, Reason.INVALID_KEY), (4, Reason.INVALID_KEY)]
    assert "invalid start byte at byte 0" in converted.errors[0].message


def decoded(value: bytes | None) -> str | None:
    try:
        return value.decode() if value is not None else None
    except UnicodeDecodeError:
        return None


@given(st.lists(st.none() | st.binary(max_size=8) | st.text(max_size=5).map(str.encode)))
def test_equals_pythons_decoder(values: list[bytes | None]) -> None:
    converted = string.convert(pa.array(values, pa.binary()), Reason.INVALID_VALUE, SchemaCache(Registry()))
    found = dict(zip(converted.groups[0].rows.to_pylist(), converted.groups[0].values.to_pylist(), strict=True))
    assert found == {i: decoded(v) for i, v in enumerate(values) if v is None or decoded(v) is not None}
    assert {e.row for e in converted.errors} == {
        i for i, v in enumerate(values) if v is not None and decoded(v) is None
    }
