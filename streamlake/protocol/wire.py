"""The primitive types of Kafka's wire (Kafka protocol guide, "Protocol Primitive Types"; KIP-482 for the compact ones).

Numbers are big-endian. A compact length is an unsigned varint of length + 1, where 0 means null.
How these make up messages is in encoder.py and decoder.py.
"""

from collections.abc import Sequence
from typing import NoReturn
from uuid import UUID

from streamlake.core.errors import Corrupt

Buffer = bytes | bytearray | memoryview

# Kinds of fixed size -> struct's format character.
FIXED_FORMATS = {
    "int8": "b",
    "int16": "h",
    "int32": "i",
    "int64": "q",
    "uint16": "H",
    "float64": "d",
    "bool": "?",
    "uuid": "16s",
}
NO_UUID = UUID(int=0)
NO_UUID_BYTES = NO_UUID.bytes

_MAX_VARINT_BYTES = 5  # 32 bits
_HEADER_TAGS_MAX = 100  # Kafka has none so far


class Chunks:
    """Records that lie in several buffers: they are sent one after the other, uncopied. For encoding only."""

    __slots__ = ("buffers", "size_bytes")

    def __init__(self, buffers: Sequence[Buffer]) -> None:
        self.buffers = buffers
        self.size_bytes = sum(map(len, buffers))

    def __len__(self) -> int:
        return self.size_bytes


class Malformed(Corrupt):
    """The bytes are not what Kafka's protocol says: close the connection they came from."""


class Unencodable(ValueError):
    """A message holds a value that its version cannot carry: a mistake of the code that made the message."""


def varint(number: int) -> bytes:
    """`number` (not negative) as an unsigned varint."""
    return _VARINTS[number] if number < len(_VARINTS) else _long_varint(number)


def _long_varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


_VARINTS = [_long_varint(n) for n in range(1 << 12)]


def read_varint(frame: Buffer, at: int) -> tuple[int, int]:
    """-> (value, position after it). IndexError at the end of the frame."""
    value = 0
    for shift in range(0, 7 * _MAX_VARINT_BYTES, 7):
        byte = frame[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise Malformed(f"a varint longer than {_MAX_VARINT_BYTES} bytes")


def skip_tags(frame: Buffer, at: int) -> int:
    """Position after a header's tagged fields, which nobody here knows. IndexError at the end of the frame."""
    count, at = read_varint(frame, at)
    if count > _HEADER_TAGS_MAX:
        refuse_count("a header")
    for _ in range(count):
        _, at = read_varint(frame, at)
        size, at = read_varint(frame, at)
        at += size
    return at


def refuse_null(where: str) -> NoReturn:
    raise Malformed(f"{where} is null and may not be")


def refuse_length(where: str) -> NoReturn:
    raise Malformed(f"{where} claims more elements than bytes are left")


def refuse_tag(where: str) -> NoReturn:
    raise Malformed(f"{where} is not as long as its tag says")


def refuse_count(where: str) -> NoReturn:
    raise Malformed(f"{where} has more elements than one message may have in sum")
