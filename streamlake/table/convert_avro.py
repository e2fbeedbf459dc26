"""convert.*.type = by_schema_id: Avro in Confluent's wire format, decoded with the schema it was written with.

Values are decoded one by one (a bad one is an error of its row) and made into Arrow columns a chunk at a time. If a
chunk does not fit its columns, halving it finds the rows that do not.
"""

from io import BytesIO
from struct import error as StructError
from typing import Any

import fastavro
import pyarrow as pa

from streamlake.core.errors import Invalid, NotFound
from streamlake.table.avro_columns import BAD_VALUE
from streamlake.table.avro_schema import AvroSchema
from streamlake.table.converted import Converted, Group, Reason, RowError, row_errors
from streamlake.table.resolve import HEADER_BYTES, SchemaCache, schema_id

CHUNK_ROWS = 4_096  # decoded Python objects weigh far more than columns: hold few of them
CHUNK_BYTES = 1 << 20

_UNDECODABLE = (EOFError, ValueError, LookupError, ArithmeticError, TypeError, StructError)


def convert(column: Any, reason: Reason, schemas: SchemaCache) -> Converted:
    """A binary array as one group for each schema id; bad values carry `reason`. Raises Unavailable."""
    values = column.to_pylist()
    by_header: dict[bytes, list[int]] = {}
    for row, value in enumerate(values):
        if value is not None:
            by_header.setdefault(value[:HEADER_BYTES], []).append(row)
    groups: list[Group] = []
    errors: list[RowError] = []
    for header, rows in by_header.items():
        id = None
        try:
            id = schema_id(header)
            schema = schemas.avro(id)
        except NotFound as error:
            errors += row_errors(rows, Reason.UNKNOWN_SCHEMA, f"schema {id}: {error}")
        except Invalid as error:
            if id is None:
                errors += row_errors(rows, reason, str(error))
            else:
                errors += row_errors(rows, Reason.UNSUPPORTED_SCHEMA, f"schema {id}: {error}")
        else:
            conversion = _Conversion(schema, reason, f"not a value of schema {id}: ")
            groups.append(conversion.run(values, rows))
            errors += conversion.errors
    return Converted(tuple(groups), tuple(errors))


class _Conversion:
    """The values of one schema."""

    def __init__(self, schema: AvroSchema, reason: Reason, prefix: str) -> None:
        self.errors: list[RowError] = []
        self._schema = schema
        self._reason = reason
        self._prefix = prefix
        self._rows: list[int] = []
        self._arrays: list[Any] = []

    def run(self, values: list[bytes], rows: list[int]) -> Group:
        start = 0
        while start < len(rows):
            end = _chunk_end(values, rows, start)
            self._build(*self._decode(values, rows[start:end]))
            start = end
        build = self._schema.build
        if build is None:
            joined = pa.nulls(len(self._rows))
        else:
            joined = pa.concat_arrays(self._arrays or [build([])])
        return Group(self._schema.type, pa.array(self._rows, pa.int64()), joined)

    def _decode(self, values: list[bytes], rows: list[int]) -> tuple[list[int], list[Any]]:
        """The rows that can be decoded, and what they are."""
        read, decoder = fastavro.schemaless_reader, self._schema.decoder
        good: list[int] = []
        decoded: list[Any] = []
        for row in rows:
            body = values[row][HEADER_BYTES:]
            stream = BytesIO(body)
            try:
                value = read(stream, decoder)
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


def _chunk_end(values: list[bytes], rows: list[int], start: int) -> int:
    size_bytes = 0
    limit = min(len(rows), start + CHUNK_ROWS)
    for end in range(start, limit):
        size_bytes += len(values[rows[end]])
        if size_bytes > CHUNK_BYTES:
            return end + 1
    return limit
