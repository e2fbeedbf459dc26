"""The values of one schema → an Arrow array: by a kernel, and by its twin in Python.

A native reader makes columns of all values that it understands. The others, or all if there is none, go to its twin:
values are decoded one by one (a bad one is an error of its row) and made into Arrow columns a chunk at a time. If a
chunk does not fit its columns, halving it finds the rows that do not.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from streamlake.table.formats.converted import Group
from streamlake.table.formats.source_schema import SourceType

CHUNK_ROWS = 4_096  # decoded Python objects weigh far more than columns: hold few of them
CHUNK_BYTES = 1 << 20

BAD_VALUE = (ValueError, ArithmeticError, LookupError, TypeError, pa.ArrowException)

Build: TypeAlias = Callable[[list[Any]], Any]  # decoded values → an array; raises one of BAD_VALUE
Decode: TypeAlias = Callable[[bytes], Any]  # raises Undecodable


class Undecodable(Exception):
    """The bytes are no value of the schema: why."""


class NativeReader(Protocol):
    """A compiled kernel."""

    def read(self, column: Any, rows: Any, skip_bytes: int) -> tuple[Any, Any, Any]:
        """Decode the values of a binary array that `rows` (int64 array, no nulls) number, each from byte `skip_bytes`.

        (rows taken, rows refused: int64 arrays; an array of the taken rows' values)."""
        ...


@dataclass(frozen=True, slots=True)
class Codec:
    """How to read the values of one schema. `type` and `build` are None if it holds no data; `native` is None then too,
    and if there is no kernel."""

    type: SourceType | None
    decode: Decode
    build: Build | None
    native: NativeReader | None

    def read(self, column: Any, rows: Any, skip_bytes: int) -> tuple[Group, list[tuple[int, str]]]:
        """See ValueReader."""
        if self.native is None:
            twin = _Twin(self, skip_bytes)
            return twin.run(column, rows), twin.errors
        return self.finish(column, skip_bytes, *self.native.read(column, rows, skip_bytes))

    def finish(
        self, column: Any, skip_bytes: int, taken: Any, refused: Any, values: Any
    ) -> tuple[Group, list[tuple[int, str]]]:
        """The same, when a native reader has been over it."""
        if not len(refused):
            return Group(self.type, taken, values), []
        twin = _Twin(self, skip_bytes)
        group = twin.run(column, refused)  # says what is wrong with them; and takes what only the kernel does not know
        if len(group.rows):
            both = pa.concat_arrays([taken, group.rows])
            order = pc.sort_indices(both)
            taken, values = both.take(order), pa.concat_arrays([values, group.values]).take(order)
        return Group(self.type, taken, values), twin.errors


class _Twin:
    """The values of one schema in Python."""

    def __init__(self, codec: Codec, skip_bytes: int) -> None:
        self.errors: list[tuple[int, str]] = []
        self._codec = codec
        self._skip_bytes = skip_bytes
        self._rows: list[int] = []
        self._arrays: list[Any] = []

    def run(self, column: Any, rows: Any) -> Group:
        for start, end in _chunks(column, rows):
            chunk = rows.slice(start, end - start)
            self._build(*self._decode(chunk.to_pylist(), column.take(chunk).to_pylist()))
        build = self._codec.build
        if build is None:
            joined = pa.nulls(len(self._rows))
        else:
            joined = pa.concat_arrays(self._arrays or [build([])])
        return Group(self._codec.type, pa.array(self._rows, pa.int64()), joined)

    def _decode(self, rows: list[int], values: list[bytes]) -> tuple[list[int], list[Any]]:
        """The rows that can be decoded, and what they are."""
        decode = self._codec.decode
        good: list[int] = []
        decoded: list[Any] = []
        for row, whole in zip(rows, values, strict=True):
            try:
                value = decode(whole[self._skip_bytes :])
            except Undecodable as error:
                self._fail(row, str(error))
            else:
                good.append(row)
                decoded.append(value)
        return good, decoded

    def _build(self, rows: list[int], decoded: list[Any]) -> None:
        """Keep the rows that fit their columns."""
        if self._codec.build is not None and rows:
            try:
                array = self._codec.build(decoded)
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
