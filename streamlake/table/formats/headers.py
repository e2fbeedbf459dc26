"""Headers: their keys are text in the table.

A key that is not UTF-8 is an error of its row, never replaced, as in string.py: two keys must not become one.
"""

from itertools import chain
from typing import Any

import pyarrow as pa

from streamlake.table.formats.converted import Reason, RowError, row_errors

SHOWN_BYTES = 100  # of a key, in the dead letter's error
TEXT_HEADERS = pa.list_(pa.struct([("key", pa.string()), ("value", pa.binary())]))


def convert(column: Any) -> tuple[Any, list[RowError]]:
    """Headers as record.arrow gives them, keys in bytes → a list array of TEXT_HEADERS, and the rows with a key that is
    not text: there U+FFFD stands for what is none."""
    headers = column.values
    try:
        keys = headers.field("key").cast(pa.string())
    except pa.ArrowInvalid:
        rows = column.to_pylist()
        faults = ((row, _fault(found)) for row, found in enumerate(rows))
        errors = [row_errors([row], Reason.INVALID_HEADER, fault) for row, fault in faults if fault]
        return _legible(rows), list(chain.from_iterable(errors))
    named = pa.StructArray.from_arrays([keys, headers.field("value")], fields=list(TEXT_HEADERS.value_type))
    return pa.ListArray.from_arrays(column.offsets, named, type=TEXT_HEADERS), []


def _legible(rows: list[list[dict[str, bytes | None]]]) -> Any:
    return pa.array([[(_key(h).decode(errors="replace"), h["value"]) for h in row] for row in rows], TEXT_HEADERS)


def _key(header: dict[str, bytes | None]) -> bytes:
    return header["key"] or b""


def _fault(headers: list[dict[str, bytes | None]]) -> str | None:
    for header in headers:
        try:
            _key(header).decode()
        except UnicodeDecodeError as error:
            shown = _key(header)[:SHOWN_BYTES].hex() + ("…" if len(_key(header)) > SHOWN_BYTES else "")
            return f"the key of a header is not UTF-8 text ({error.reason} at byte {error.start}): {shown}"
    return None
