"""The frame of what coordinators keep in a column as bytes: magic, version, a MessagePack body, and a CRC-32C.

Numbers are big-endian; docs/formats/{group,transaction}-members.md.
"""

import struct
from typing import TypeVar

import msgspec
from crc32c import crc32c

from streamlake.core.errors import Corrupt

_HEAD = struct.Struct(">4sH")  # magic, version
_CRC = struct.Struct(">I")

T = TypeVar("T")


def seal(magic: bytes, version: int, body: object) -> bytes:
    blob = _HEAD.pack(magic, version) + msgspec.msgpack.encode(body)
    return blob + _CRC.pack(crc32c(blob))


def unseal(blob: bytes, magic: bytes, version: int, type: type[T], what: str) -> T:
    """The body. Corrupt if the blob is damaged or of another version; `what` it is, in the plural, for the error."""
    sealed, crc = blob[: -_CRC.size], blob[-_CRC.size :]
    if len(sealed) < _HEAD.size or sealed[: len(magic)] != magic or _CRC.pack(crc32c(sealed)) != crc:
        raise Corrupt(f"{what} are damaged: magic or CRC-32C is wrong")
    _, found = _HEAD.unpack_from(sealed)
    if found != version:
        raise Corrupt(f"{what} have version {found}, this program reads {version}: upgrade it")
    try:
        return msgspec.msgpack.decode(sealed[_HEAD.size :], type=type)
    except msgspec.DecodeError as error:
        raise Corrupt(f"{what} cannot be read: {error}") from None
