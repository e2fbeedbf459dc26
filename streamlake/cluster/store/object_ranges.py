"""The ranges of a stream-set object as one packed blob: to insert 10,000 of them as rows would take 53 ms.

Four columns of fixed width, little-endian, after a header with a magic, a version and a CRC-32C; the byte table is in
docs/formats/metadata.md. The order of the ranges (by stream, then offset) is kept. Once ranges of the object were given
to others, the columns follow the number of their offsets: version 2. So the length of a blob tells whether it changed.
"""

import struct
import sys
from array import array
from collections.abc import Iterator, Sequence

import crc32c

from streamlake.core.errors import Corrupt
from streamlake.s3stream.metadata import StreamRange

MAGIC = b"SLRG"
VERSION, VERSION_GIVEN = 1, 2
_HEADER = struct.Struct("<4sHHII")  # magic, version, zero, count, CRC-32C of what follows
_GIVEN = struct.Struct("<Q")
_ROW_BYTES = 32


def encode(ranges: Sequence[StreamRange], given_offsets: int = 0) -> bytes:
    """`given_offsets`: how many offsets the object held in ranges that other objects have now."""
    columns = (
        array("q", [r.stream_id for r in ranges]),
        array("q", [r.stream_epoch for r in ranges]),
        array("q", [r.start_offset for r in ranges]),
        array("q", [r.end_offset for r in ranges]),
    )
    body = b"".join(_little_endian(column).tobytes() for column in columns)
    version = VERSION
    if given_offsets:
        version, body = VERSION_GIVEN, _GIVEN.pack(given_offsets) + body
    return _HEADER.pack(MAGIC, version, 0, len(ranges), crc32c.crc32c(body)) + body


def decode(blob: bytes) -> tuple[StreamRange, ...]:
    """Corrupt if the blob is damaged."""
    return tuple(StreamRange(*row) for row in rows(blob))


def rows(blob: bytes) -> Iterator[tuple[int, int, int, int]]:
    """(stream id, stream epoch, start offset, end offset) of each range; Corrupt as `decode`."""
    count, _, body = _checked(blob)
    values = array("q")
    values.frombytes(body)
    values = _little_endian(values)
    columns = [values[at * count : (at + 1) * count] for at in range(4)]
    return zip(*columns, strict=True)


def given_offsets(blob: bytes) -> int:
    """As it was encoded; Corrupt as `decode`."""
    return _checked(blob)[1]


def _checked(blob: bytes) -> tuple[int, int, bytes]:
    """The number of ranges, that of the offsets given away, and the columns."""
    if len(blob) < _HEADER.size:
        raise Corrupt(f"the ranges of an object are cut short: {len(blob)} bytes")
    magic, version, zero, count, crc = _HEADER.unpack_from(blob)
    body, given = blob[_HEADER.size :], 0
    if magic != MAGIC or zero != 0:
        raise Corrupt("the ranges of an object do not begin as they must")
    if version not in (VERSION, VERSION_GIVEN):
        raise Corrupt(
            f"the ranges of an object have version {version}, this StreamLake reads up to {VERSION_GIVEN}: upgrade it"
        )
    head = _GIVEN.size if version == VERSION_GIVEN else 0
    if len(body) != head + count * _ROW_BYTES or crc32c.crc32c(body) != crc:
        raise Corrupt("the ranges of an object are damaged: length or checksum is wrong")
    if head:
        (given,) = _GIVEN.unpack_from(body)
        if given == 0:
            raise Corrupt("the ranges of an object contradict themselves: none was given away")
    return count, given, body[head:]


def _little_endian(values: "array[int]") -> "array[int]":
    if sys.byteorder == "big":
        values.byteswap()
    return values
