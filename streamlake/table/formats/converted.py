"""What a converter makes of one column of keys or values: groups of good rows, and errors row by row.

One bad value never spoils its neighbours. A null (a keyless record, a tombstone) is no error: its row gets null
columns, because an appended table shows what was sent. Where only a value names its schema, a null is in no group.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import pyarrow as pa

from streamlake.table.formats.source_schema import SourceType

MESSAGE_CHARS_MAX = 1000


class Reason(StrEnum):
    """Why a record is a dead letter; the values are stored in the dead-letter table."""

    INVALID_VALUE = "invalid_value"
    INVALID_KEY = "invalid_key"
    INVALID_HEADER = "invalid_header"
    INVALID_ENVELOPE = "invalid_envelope"
    INVALID_BATCH = "invalid_batch"
    UNKNOWN_SCHEMA = "unknown_schema"
    UNSUPPORTED_SCHEMA = "unsupported_schema"
    INCOMPATIBLE_SCHEMA = "incompatible_schema"


# What `errors.tolerance = invalid_data` lets pass; the others are errors of the schema, for `all`.
INVALID_DATA = frozenset(
    {Reason.INVALID_VALUE, Reason.INVALID_KEY, Reason.INVALID_HEADER, Reason.INVALID_ENVELOPE, Reason.INVALID_BATCH}
)


@dataclass(frozen=True, slots=True)
class RowError:
    """`row` counts in the records table that was translated."""

    row: int
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Group:
    """Rows of one source schema. `values` is an Arrow array of `arrow_type(type)`, one value for each of `rows`
    (an int64 array, ascending); `type` is None when the schema holds no data at all (an empty record). `schema_id` is 0
    for values without a schema."""

    type: SourceType | None
    rows: Any
    values: Any
    schema_id: int = 0


@dataclass(frozen=True, slots=True)
class Converted:
    """`rest_rows`: those with values that no column holds, which are in the column of the rest."""

    groups: tuple[Group, ...]
    errors: tuple[RowError, ...] = ()
    rest_rows: int = 0


def row_numbers(count: int) -> Any:
    """0, 1, … as an int64 array."""
    return pa.arange(0, count)


def row_errors(rows: Iterable[int], reason: Reason, message: str) -> list[RowError]:
    """The same error for many rows; the message is cut to a size that a table cell may have."""
    text = message[:MESSAGE_CHARS_MAX]
    return [RowError(row, reason, text) for row in rows]


def rows_by(keys: Mapping[str, Any], rows: Any) -> Any:
    """The `rows` (int64 array) that have each value of `keys` (arrays of that length): a pa.Table of the keys and
    `row_list`, in the order of their first row. Arrow's own order depends on its hashes, and the first schema in the
    log is the one that others must be compatible with."""
    found = pa.table({**keys, "row": rows}).group_by(list(keys), use_threads=False)
    return found.aggregate([("row", "list"), ("row", "min")]).sort_by("row_min").drop_columns("row_min")
