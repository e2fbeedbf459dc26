"""The records of batches as Arrow columns, batch by batch: in C (kernel.pyx), or here if there is no kernel.

The twin is also the referee. A batch that the kernel refuses is read again in Python, which either says what is wrong
with it, or takes it: then its rows make a piece of their own.
"""

from typing import Any, Protocol

import pyarrow as pa

from streamlake.core import native
from streamlake.record.batch import BatchHeader, Buffer
from streamlake.record.decode import NOT_TEXT, parse_records

_kernel = native.load("streamlake.record.kernel")

CREATE_TIME, LOG_APPEND_TIME = 0, 1

_HEADERS = pa.list_(pa.struct([("key", pa.binary()), ("value", pa.binary())]))  # a key is text, if all is well
RECORDS_SCHEMA = pa.schema(
    [
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("timestamp", pa.int64(), nullable=False),  # milliseconds; -1: none
        pa.field("timestamp_type", pa.int8(), nullable=False),
        pa.field("key", pa.binary()),
        pa.field("value", pa.binary()),
        pa.field("headers", _HEADERS, nullable=False),
    ]
)


class Rows(Protocol):
    """Rows in the order they were added."""

    def add(self, header: BatchHeader, payload: Buffer, first_offset: int) -> int:
        """Take the records from `first_offset` on of an uncompressed payload; returns how many.

        InvalidRecord if the payload is not what the header claims: then none was taken."""
        ...

    def table(self) -> Any:
        """A pa.Table of RECORDS_SCHEMA with all rows."""
        ...


def new_rows(expected_bytes: int) -> Rows:
    """`expected_bytes`: about the size of the values that will come."""
    return KernelRows(expected_bytes) if _kernel else PythonRows()


class PythonRows:
    def __init__(self) -> None:
        self._columns: tuple[list[Any], ...] = ([], [], [], [], [])  # as a record has them
        self._timestamp_types: list[int] = []

    def add(self, header: BatchHeader, payload: Buffer, first_offset: int) -> int:
        rows = [
            (offset, timestamp, key, value, [(name.encode(errors=NOT_TEXT), held) for name, held in headers])
            for offset, timestamp, key, value, headers in parse_records(header, bytes(payload))
            if offset >= first_offset
        ]
        for column, values in zip(self._columns, zip(*rows, strict=True), strict=False):
            column.extend(values)
        kind = LOG_APPEND_TIME if header.is_log_append_time else CREATE_TIME
        self._timestamp_types.extend([kind] * len(rows))
        return len(rows)

    def table(self) -> Any:
        offsets, timestamps, keys, values, headers = self._columns
        columns = [offsets, timestamps, self._timestamp_types, keys, values, headers]
        arrays = [pa.array(column, field.type) for column, field in zip(columns, RECORDS_SCHEMA, strict=True)]
        return pa.Table.from_arrays(arrays, schema=RECORDS_SCHEMA)


class KernelRows:
    def __init__(self, expected_bytes: int) -> None:
        self._rows = _kernel.Rows(expected_bytes)
        self._pieces: list[Any] = []

    def add(self, header: BatchHeader, payload: Buffer, first_offset: int) -> int:
        added: int | None = self._rows.add(header, payload, first_offset)
        if added is not None:
            return added
        twin = PythonRows()
        added = twin.add(header, payload, first_offset)
        self._pieces += [self._take(), twin.table()]
        return added

    def table(self) -> Any:
        if self._pieces:
            return pa.concat_tables([*self._pieces, self._take()])
        return self._take()

    def _take(self) -> Any:
        rows = len(self._rows)
        offsets, timestamps, kinds, key, value, header_offsets, header_key, header_value = self._rows.take()
        header = _HEADERS.value_type
        headers = pa.StructArray.from_arrays(
            [_binary(header.field(0).type, header_key), _binary(header.field(1).type, header_value)],
            fields=list(header),
        )
        arrays = [
            pa.Array.from_buffers(pa.int64(), rows, [None, pa.py_buffer(offsets)], 0),
            pa.Array.from_buffers(pa.int64(), rows, [None, pa.py_buffer(timestamps)], 0),
            pa.Array.from_buffers(pa.int8(), rows, [None, pa.py_buffer(kinds)], 0),
            _binary(pa.binary(), key),
            _binary(pa.binary(), value),
            pa.Array.from_buffers(_HEADERS, rows, [None, pa.py_buffer(header_offsets)], 0, children=[headers]),
        ]
        return pa.Table.from_arrays(arrays, schema=RECORDS_SCHEMA)


def _binary(type: Any, column: tuple[int, int, Any, Any, Any]) -> Any:
    length, nulls, validity, offsets, data = column
    buffers = [None if validity is None else pa.py_buffer(validity), pa.py_buffer(offsets), pa.py_buffer(data)]
    return pa.Array.from_buffers(type, length, buffers, nulls)
