"""convert.*.type = by_schema_id: Avro in Confluent's wire format, decoded with the schema it was written with.

A native reader makes columns of all values that it understands. The others, or all if there is none, go to its twin
here: values are decoded one by one (a bad one is an error of its row) and made into Arrow columns a chunk at a time. If
a chunk does not fit its columns, halving it finds the rows that do not.
"""

from collections.abc import Iterator
from io import BytesIO
from struct import error as StructError
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.compute as pc

from streamlake.core.errors import Invalid, NotFound
from streamlake.table.formats.avro.columns import BAD_VALUE
from streamlake.table.formats.avro.schema import AvroSchema
from streamlake.table.formats.converted import Converted, Group, Reason, RowError, row_errors, row_numbers
from streamlake.table.formats.resolve import HEADER_BYTES, Schemas, schema_id

CHUNK_ROWS = 4_096  # decoded Python objects weigh far more than columns: hold few of them
CHUNK_BYTES = 1 << 20

_UNDECODABLE = (ValueError, LookupError, ArithmeticError, TypeError, StructError)


def convert(column: Any, reason: Reason, schemas: Schemas) -> Converted:
    """A binary array as one group for each schema id; bad values carry `reason`. Raises Unavailable."""
    groups: list[Group] = []
    errors: list[RowError] = []
    for header, rows in _by_header(column):
        id = None
        try:
            id = schema_id(header)
            schema = schemas.avro(id)
        except NotFound as error:
            errors += row_errors(rows.to_pylist(), Reason.UNKNOWN_SCHEMA, f"schema {id}: {error}")
        except Invalid as error:
            if id is None:
                errors += row_errors(rows.to_pylist(), reason, str(error))
            else:
                errors += row_errors(rows.to_pylist(), Reason.UNSUPPORTED_SCHEMA, f"schema {id}: {error}")
        else:
            group, bad = _of_one_schema(column, rows, schema, reason, f"not a value of schema {id}: ")
            groups.append(group)
            errors += bad
    return Converted(tuple(groups), tuple(errors))


def _by_header(column: Any) -> list[tuple[bytes, Any]]:
    """For each header the rows that begin with it (int64 array), in the order of their first row."""
    rows = row_numbers(len(column))
    first: bytes = ((column[0].as_py() if len(column) else None) or b"")[:HEADER_BYTES]
    if len(first) == HEADER_BYTES and pc.all(pc.starts_with(column, first), skip_nulls=False).as_py():
        return [(first, rows)]  # as it nearly always is
    headers = pc.binary_slice(column, 0, HEADER_BYTES)
    pairs = pa.table([headers, rows], ["header", "row"]).filter(pc.is_valid(headers))
    found = pairs.group_by("header", use_threads=False).aggregate([("row", "list")]).combine_chunks()
    return [(header.as_py(), rows.values) for header, rows in zip(found["header"], found["row_list"], strict=True)]


def _of_one_schema(
    column: Any, rows: Any, schema: AvroSchema, reason: Reason, prefix: str
) -> tuple[Group, list[RowError]]:
    if schema.native is None:
        twin = _Conversion(schema, reason, prefix)
        return twin.run(column, rows), twin.errors
    taken, refused, values = schema.native.read(column, rows, HEADER_BYTES)
    if not len(refused):
        return Group(schema.type, taken, values), []
    twin = _Conversion(schema, reason, prefix)
    group = twin.run(column, refused)  # says what is wrong with them; and takes what only the kernel does not know
    if len(group.rows):
        both = pa.concat_arrays([taken, group.rows])
        order = pc.sort_indices(both)
        taken, values = both.take(order), pa.concat_arrays([values, group.values]).take(order)
    return Group(schema.type, taken, values), twin.errors


class _Conversion:
    """The values of one schema in Python: the twin of the native reader."""

    def __init__(self, schema: AvroSchema, reason: Reason, prefix: str) -> None:
        self.errors: list[RowError] = []
        self._schema = schema
        self._reason = reason
        self._prefix = prefix
        self._rows: list[int] = []
        self._arrays: list[Any] = []

    def run(self, column: Any, rows: Any) -> Group:
        for start, end in _chunks(column, rows):
            chunk = rows.slice(start, end - start)
            self._build(*self._decode(chunk.to_pylist(), column.take(chunk).to_pylist()))
        build = self._schema.build
        if build is None:
            joined = pa.nulls(len(self._rows))
        else:
            joined = pa.concat_arrays(self._arrays or [build([])])
        return Group(self._schema.type, pa.array(self._rows, pa.int64()), joined)

    def _decode(self, rows: list[int], values: list[bytes]) -> tuple[list[int], list[Any]]:
        """The rows that can be decoded, and what they are."""
        read, decoder = fastavro.schemaless_reader, self._schema.decoder
        good: list[int] = []
        decoded: list[Any] = []
        for row, whole in zip(rows, values, strict=True):
            body = whole[HEADER_BYTES:]
            stream = BytesIO(body)
            try:
                value = read(stream, decoder)
            except EOFError:
                self._fail(row, "the bytes end before the value does")
                continue
            except _UNDECODABLE as error:
                self._fail(row, repr(error))
                continue
            if stream.tell() == len(body):
                good.append(row)
                decoded.append(value)
            else:
                self._fail(row, f"{len(body) - stream.tell()} bytes are left over")
        return good, decoded

    def _build(self, rows: list[int], decoded: list[Any]) -> None:
        """Keep the rows that fit their columns."""
        if self._schema.build is not None and rows:
            try:
                array = self._schema.build(decoded)
            except BAD_VALUE as error:
                if len(rows) == 1:
                    self._fail(rows[0], str(error))
                    return
                half = len(rows) // 2
                self._build(rows[:half], decoded[:half])
                self._build(rows[half:], decoded[half:])
                return
            self._arrays.append(array)
        self._rows += rows

    def _fail(self, row: int, message: str) -> None:
        self.errors += row_errors([row], self._reason, self._prefix + message)


def _chunks(column: Any, rows: Any) -> Iterator[tuple[int, int]]:
    start = size_bytes = 0
    for at, length in enumerate(pc.binary_length(column.take(rows)).to_pylist()):
        size_bytes += length
        if size_bytes > CHUNK_BYTES or at + 1 - start == CHUNK_ROWS:
            yield start, at + 1
            start, size_bytes = at + 1, 0
    if start < len(rows):
        yield start, len(rows)
