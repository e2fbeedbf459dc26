"""Errors of rows are bounded, and every reason has its class of tolerance."""

import pyarrow as pa
from hypothesis import example, given
from hypothesis import strategies as st

from streamlake.table.formats.converted import INVALID_DATA, MESSAGE_CHARS_MAX, Reason, row_errors, rows_by


def test_messages_are_cut() -> None:
    errors = row_errors([3, 5], Reason.INVALID_KEY, "x" * 5000)
    assert [(e.row, e.reason, len(e.message)) for e in errors] == [
        (3, Reason.INVALID_KEY, MESSAGE_CHARS_MAX),
        (5, Reason.INVALID_KEY, MESSAGE_CHARS_MAX),
    ]


def test_schema_errors_are_not_invalid_data() -> None:
    assert set(Reason) - INVALID_DATA == {"unknown_schema", "unsupported_schema", "incompatible_schema"}


KEYS = st.tuples(st.one_of(st.none(), st.integers(0, 5)), st.sampled_from([None, 0, 1]))


@given(st.lists(KEYS, max_size=60))
@example([(None, None), (1, None), (0, None), (None, None), (1, None)])  # Arrow puts the 0 first
def test_rows_are_grouped_in_the_order_of_their_first(keys) -> None:
    expected: dict[tuple[int | None, int | None], list[int]] = {}
    for row, pair in enumerate(keys):
        expected.setdefault(pair, []).append(10 + row)
    columns = {name: pa.array([pair[at] for pair in keys], pa.int64()) for at, name in enumerate(("a", "b"))}
    found = rows_by(columns, pa.arange(10, 10 + len(keys)))
    assert found.column_names == ["a", "b", "row_list"]
    pairs = zip(found["a"].to_pylist(), found["b"].to_pylist(), strict=True)
    assert list(zip(pairs, found["row_list"].to_pylist(), strict=True)) == list(expected.items())
