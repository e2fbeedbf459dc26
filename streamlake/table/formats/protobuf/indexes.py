"""The message indexes of Confluent's wire format: which message of a .proto file a value is.

After the schema id come a count and as many indexes, all zigzag varints: the first numbers a message of the file, the
next a message nested in that, and so on; map entries count, as in descriptors. A count of zero means the first message.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from streamlake.core.errors import Invalid
from streamlake.table.formats.converted import rows_by

INDEXES_MAX = 32  # protoc nests no deeper
PREFIX_BYTES = 5 * (INDEXES_MAX + 1)
INDEX_MAX = 2**31 - 1
FIRST = (0,)

Path = tuple[int, ...]


class Prefix(NamedTuple):
    path: Path
    size_bytes: int


def read_prefix(data: bytes) -> Prefix:
    """The indexes at the beginning of `data`. Raises Invalid."""
    count, at = _zigzag(data, 0)
    if count == 0:
        return Prefix(FIRST, at)
    if not 0 < count <= INDEXES_MAX:
        raise Invalid(f"{count} is not a number of message indexes")
    path = []
    for _ in range(count):
        index, at = _zigzag(data, at)
        if index < 0:
            raise Invalid(f"{index} is not the index of a message")
        path.append(index)
    return Prefix(tuple(path), at)


def split(column: Any, rows: Any, skip_bytes: int) -> tuple[list[tuple[Prefix, Any]], list[tuple[int, str]]]:
    """For each message that the values (see ValueReader) name, their rows; and the errors of those that name none."""
    # The five bytes that most begin with are enough for one index; a value may be shorter.
    heads = pc.binary_slice(column, skip_bytes, skip_bytes + PREFIX_BYTES)
    if len(rows) < len(column):
        heads = heads.take(rows)
    if not len(rows):
        return [], []
    try:
        first = read_prefix(heads[0].as_py())
        if pc.all(pc.starts_with(heads, heads[0].as_py()[: first.size_bytes])).as_py():
            return [(first, rows)], []  # as it nearly always is
    except Invalid:
        pass
    return _split_one_by_one(heads.to_pylist(), rows)


def _split_one_by_one(heads: Sequence[bytes], rows: Any) -> tuple[list[tuple[Prefix, Any]], list[tuple[int, str]]]:
    numbers: dict[Prefix, int] = {}
    found: list[int | None] = []
    errors: list[tuple[int, str]] = []
    for row, head in zip(rows.to_pylist(), heads, strict=True):
        try:
            found.append(numbers.setdefault(read_prefix(head), len(numbers)))
        except Invalid as error:
            found.append(None)
            errors.append((row, str(error)))
    keys = pa.array(found, pa.int64())
    grouped = rows_by({"prefix": keys.drop_null()}, rows.filter(pc.is_valid(keys)))
    prefixes = list(numbers)
    parts = zip(grouped["prefix"].to_pylist(), grouped["row_list"], strict=True)
    return [(prefixes[number], part.values) for number, part in parts], errors


def _zigzag(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while at < len(data) and shift < 35:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            if number > 2 * INDEX_MAX + 1:
                break
            return number >> 1 ^ -(number & 1), at
        shift += 7
    raise Invalid("the message indexes of the wire format end too early, or are too large")
