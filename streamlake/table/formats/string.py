"""convert.*.type = string: UTF-8 text.

Bytes that are not UTF-8 are an error of their row, never replaced: two different keys must not become one.
"""

from typing import Any

import pyarrow as pa
from pyiceberg.types import StringType

from streamlake.table.formats.converted import Converted, Group, Reason, RowError, row_numbers
from streamlake.table.formats.port import Schemas


def convert(column: Any, reason: Reason, schemas: Schemas) -> Converted:
    """A binary array as one group of strings, nulls included; errors carry `reason`."""
    rows = row_numbers(len(column))
    errors: list[RowError] = []
    try:
        text = column.cast(pa.large_string())
    except pa.ArrowInvalid:
        faults = [_fault(value) for value in column.to_pylist()]
        errors = [
            RowError(row, reason, f"not UTF-8 text ({fault}): use type raw, or by_schema_id")
            for row, fault in enumerate(faults)
            if fault
        ]
        good = pa.array([fault is None for fault in faults], pa.bool_())
        rows, text = rows.filter(good), column.filter(good).cast(pa.large_string())
    return Converted((Group(StringType(), rows, text),), tuple(errors))


def _fault(value: bytes | None) -> str | None:
    try:
        (value or b"").decode()
    except UnicodeDecodeError as error:
        return f"{error.reason} at byte {error.start}"
    return None
