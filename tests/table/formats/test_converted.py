"""Errors of rows are bounded, and every reason has its class of tolerance."""

from streamlake.table.formats.converted import INVALID_DATA, MESSAGE_CHARS_MAX, Reason, row_errors


def test_messages_are_cut() -> None:
    errors = row_errors([3, 5], Reason.INVALID_KEY, "x" * 5000)
    assert [(e.row, e.reason, len(e.message)) for e in errors] == [
        (3, Reason.INVALID_KEY, MESSAGE_CHARS_MAX),
        (5, Reason.INVALID_KEY, MESSAGE_CHARS_MAX),
    ]


def test_schema_errors_are_not_invalid_data() -> None:
    assert set(Reason) - INVALID_DATA == {"unknown_schema", "unsupported_schema", "incompatible_schema"}
