"""Messages to bytes and back: the border where foreign bytes become typed values or an error.

One class serves all versions of a message: decoding fills what the version has, encoding writes what the version has.
The functions that do the work are compiled at first use (decoder.py, encoder.py). No frames and no headers here
(framing.py, requests.py), and no record batches: they are opaque bytes.
"""

import struct
from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from streamlake.protocol.decoder import decoder
from streamlake.protocol.encoder import Cut, encoder
from streamlake.protocol.fields import fields_at
from streamlake.protocol.wire import Buffer, Malformed, Unencodable

ELEMENTS_MAX = 2_000_000  # of an answer about every partition of a large cluster


def decode(
    message: type[Struct],
    version: int,
    flexible: bool,
    frame: Buffer,
    at: int = 0,
    elements_max: int = ELEMENTS_MAX,
) -> Any:
    """The message of class `message` that starts at `at`; bytes after it are ignored. Malformed, nothing else.

    `elements_max` limits the elements of all its arrays, and its tagged fields, together.
    `records` fields are views of `frame` and keep it alive: copy them if they are held for long.
    """
    try:
        value, end = decoder(message, version, flexible)(frame, at, [elements_max])
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise Malformed(f"{message.__name__} version {version}: {error}") from error
    if end > len(frame):
        raise Malformed(f"{message.__name__} version {version} ends {end - len(frame)} bytes after its frame")
    return value


def encode(message: Struct, version: int, flexible: bool, head: Buffer = b"") -> list[Buffer]:
    """`head` and the message, as buffers to send one after the other; large `records` are passed on uncopied.

    The first buffer is writable and begins with `head`. Unencodable if a value does not fit the version.
    """
    out = bytearray(head)
    cuts: list[Cut] = []
    try:
        encoder(type(message), version, flexible)(message, out, cuts)
    except (struct.error, AttributeError, TypeError, ValueError) as error:
        reasons = [f"{where} is null, which it may not be there" for where in _misplaced_nulls(message, version)]
        reason = ", ".join(reasons) or str(error)
        raise Unencodable(f"{type(message).__name__} version {version}: {reason}") from error
    return _pieces(out, cuts) if cuts else [out]


def _pieces(out: bytearray, cuts: list[Cut]) -> list[Buffer]:
    whole = memoryview(out)
    pieces: list[Buffer] = []
    start = 0
    for place, records in cuts:
        if place > start:
            pieces.append(whole[start:place])
        pieces.append(records)
        start = place
    if start < len(out):
        pieces.append(whole[start:])
    return pieces


def _misplaced_nulls(message: Struct, version: int) -> Iterator[str]:
    """Names of the fields that are null where the version forbids it; only asked when encoding has failed."""
    for f in fields_at(type(message), version):
        value = getattr(message, f.name)
        if value is None and f.kind != "uuid" and version not in f.null_versions:
            yield f.where
        for inner in value if isinstance(value, tuple | list) else (value,):
            if isinstance(inner, Struct):
                yield from _misplaced_nulls(inner, version)
