"""convert.*.type = by_schema_id: Confluent's wire format, each value decoded with the schema it was written with.

The format: a zero byte, the schema id as four big-endian bytes, then the value, which is a matter of the schema's kind.
"""

from dataclasses import replace
from typing import Any

import pyarrow.compute as pc

from streamlake.core.errors import Invalid, NotFound
from streamlake.table.formats.converted import Converted, Group, Reason, RowError, row_errors, row_numbers, rows_by
from streamlake.table.formats.port import Schemas

HEADER_BYTES = 5
MAGIC_BYTE = 0


def convert(column: Any, reason: Reason, schemas: Schemas) -> Converted:
    """A binary array as one group for each schema id; bad values carry `reason`. Raises Unavailable."""
    groups: list[Group] = []
    errors: list[RowError] = []
    for header, rows in _by_header(column):
        id = None
        try:
            id = schema_id(header)
            reader = schemas.get(id)
        except NotFound as error:
            errors += row_errors(rows.to_pylist(), Reason.UNKNOWN_SCHEMA, f"schema {id}: {error}")
        except Invalid as error:
            if id is None:
                errors += row_errors(rows.to_pylist(), reason, str(error))
            else:
                errors += row_errors(rows.to_pylist(), Reason.UNSUPPORTED_SCHEMA, f"schema {id}: {error}")
        else:
            read = reader.read(column, rows, HEADER_BYTES)
            groups += [replace(group, schema_id=id) for group in read.groups]
            for row, message in read.errors:
                errors += row_errors([row], reason, f"not a value of schema {id}: {message}")
            for row, message in read.unsupported:
                errors += row_errors([row], Reason.UNSUPPORTED_SCHEMA, f"schema {id}: {message}")
    return Converted(tuple(groups), tuple(errors))


def schema_id(header: bytes) -> int:
    """The id in the first five bytes of a value. Raises Invalid if they are no such header."""
    if len(header) < HEADER_BYTES:
        raise Invalid(f"{len(header)} bytes are too short for the schema id of the wire format (5 bytes)")
    if header[0] != MAGIC_BYTE:
        raise Invalid(f"starts with byte 0x{header[0]:02x}, not with the 0x00 of the wire format: not by_schema_id")
    return int.from_bytes(header[1:HEADER_BYTES], "big")


def _by_header(column: Any) -> list[tuple[bytes, Any]]:
    """For each header the rows that begin with it (int64 array), in the order of their first row."""
    rows = row_numbers(len(column))
    first: bytes = ((column[0].as_py() if len(column) else None) or b"")[:HEADER_BYTES]
    if len(first) == HEADER_BYTES and pc.all(pc.starts_with(column, first), skip_nulls=False).as_py():
        return [(first, rows)]  # as it nearly always is
    headers = pc.binary_slice(column, 0, HEADER_BYTES)
    valid = pc.is_valid(headers)
    found = rows_by({"header": headers.filter(valid)}, rows.filter(valid))
    return [(header.as_py(), rows.values) for header, rows in zip(found["header"], found["row_list"], strict=True)]
