"""The values of one Avro schema → an Arrow array.

A native reader makes columns of all values that it understands. The others, or all if there is none, go to its twin
here: values are decoded one by one (a bad one is an error of its row) and made into Arrow columns a chunk at a time. If
a chunk does not fit its columns, halving it finds the rows that do not.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from struct import error as StructError
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.compute as pc

from streamlake.core.errors import Invalid
from streamlake.table.formats.avro.columns import BAD_VALUE
from streamlake.table.formats.avro.schema import AvroSchema, compile_schema
from streamlake.table.formats.converted import Group
from streamlake.table.formats.port import WriterSchema

CHUNK_ROWS = 4_096  # decoded Python objects weigh far more than columns: hold few of them
CHUNK_BYTES = 1 << 20

_UNDECODABLE = (ValueError, LookupError, ArithmeticError, TypeError, StructError)


def compile_reader(schema: WriterSchema) -> "AvroReader":
    """Raises Invalid, saying why values of this schema cannot go to a table."""
    if schema.references:
        raise Invalid("the Avro schema refers to other schemas, which is not supported yet")
    return AvroReader(compile_schema(schema.text))


@dataclass(frozen=True, slots=True)
class AvroReader:
    """Implements ValueReader."""

    schema: AvroSchema

    def read(self, column: Any, rows: Any, skip_bytes: int) -> tuple[Group, list[tuple[int, str]]]:
        schema = self.schema
        if schema.native is None:
            twin = _Conversion(schema, skip_bytes)
            return twin.run(column, rows), twin.errors
        taken, refused, values = schema.native.read(column, rows, skip_bytes)
        if not len(refused):
            return Group(schema.type, taken, values), []
        twin = _Conversion(schema, skip_bytes)
        group = twin.run(column, refused)  # says what is wrong with them; and takes what only the kernel does not know
        if len(group.rows):
            both = pa.concat_arrays([taken, group.rows])
            order = pc.sort_indices(both)
            taken, values = both.take(order), pa.concat_arrays([values, group.values]).take(order)
        return Group(schema.type, taken, values), twin.errors


class _Conversion:
    """The values of one schema in Python: the twin of the native reader."""

    def __init__(self, schema: AvroSchema, skip_bytes: int) -> None:
        self.errors: list[tuple[int, str]] = []
        self._schema = schema
        self._skip_bytes = skip_bytes
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
            body = whole[self._skip_bytes :]
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
        self.errors.append((row, message))


def _chunks(column: Any, rows: Any) -> Iterator[tuple[int, int]]:
    start = size_bytes = 0
    for at, length in enumerate(pc.binary_length(column.take(rows)).to_pylist()):
        size_bytes += length
        if size_bytes > CHUNK_BYTES or at + 1 - start == CHUNK_ROWS:
            yield start, at + 1
            start, size_bytes = at + 1, 0
    if start < len(rows):
        yield start, len(rows)
