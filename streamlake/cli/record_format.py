r"""How `streamlake topic consume` prints a record: a text with %fields and \escapes, read once, then used for all.

Bytes that are no UTF-8, and control characters that a terminal would obey, come out as \xNN; `{raw}` gives the bytes
as they are. A key or value that is null prints nothing; its length is -1.
"""

import base64
import re
from collections.abc import Callable
from typing import Any

from streamlake.cli.console import Usage, visible

FIELDS = "%t topic, %p partition, %o offset, %d timestamp in ms, %k key, %v value, %K and %V their lengths, %h headers"
MODIFIERS = "{raw}, {hex}, {base64}"
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "\\": "\\"}
_ITEM = re.compile(r"%(?P<field>[^{]?)(?:\{(?P<how>[^}]*)\})?|\\(?P<escape>x[0-9a-fA-F]{2}|.?)", re.DOTALL)

Row = dict[str, Any]  # topic, partition, and the columns of record/columns.py
Part = Callable[[Row], bytes]


def compile_format(text: str) -> Callable[[Row], bytes]:
    """Usage says what is wrong with `text`."""
    parts: list[Part] = []
    at = 0
    for found in _ITEM.finditer(text):
        parts.append(_literal(text[at : found.start()]))
        at = found.end()
        if found["escape"] is not None:
            parts.append(_literal(_escape(found["escape"])))
        else:
            parts.append(_field(found["field"], found["how"]))
    parts.append(_literal(text[at:]))
    return lambda row: b"".join(part(row) for part in parts)


def unescape(text: str) -> bytes:
    r"""A text of an option in which \t, \n and the like may stand. Usage."""
    return re.sub(r"\\(x[0-9a-fA-F]{2}|.?)", lambda found: _escape(found[1]), text, flags=re.DOTALL).encode(
        errors="surrogateescape"
    )


def readable(data: bytes | None) -> bytes:
    if data is None:
        return b""
    return visible(data.decode("utf-8", "backslashreplace"), "\n\t").encode()


def _literal(text: str) -> Part:
    data = text.encode(errors="surrogateescape")
    return lambda row: data


def _escape(text: str) -> str:
    if text[:1] == "x" and len(text) == 3:
        byte = int(text[1:], 16)
        return chr(byte if byte < 0x80 else 0xDC00 + byte)  # as Python has single bytes in texts (PEP 383)
    if text not in _ESCAPES:
        raise Usage(rf"there is no escape \{text}: known are \n, \t, \r, \0, \\ and \xNN")
    return _ESCAPES[text]


def _field(name: str, how: str | None) -> Part:
    if name == "%" and how is None:
        return _literal("%")
    if name in ("k", "v"):
        column, encode = {"k": "key", "v": "value"}[name], _bytes(how)
        return lambda row: encode(row[column])
    if how is not None:
        raise Usage(f"only %k and %v take {MODIFIERS}, not %{name}")
    if name in ("K", "V"):
        column = {"K": "key", "V": "value"}[name]
        return lambda row: str(-1 if row[column] is None else len(row[column])).encode()
    if name in ("p", "o", "d"):
        column = {"p": "partition", "o": "offset", "d": "timestamp"}[name]
        return lambda row: str(row[column]).encode()
    if name == "t":
        return lambda row: str(row["topic"]).encode()
    if name == "h":
        return lambda row: b",".join(_header(header) for header in row["headers"] or ())
    raise Usage(f"--format has no field %{name}: known are {FIELDS}, %% for a percent sign; after %k or %v {MODIFIERS}")


def _bytes(how: str | None) -> Callable[[bytes | None], bytes]:
    match how:
        case None:
            return readable
        case "raw":
            return lambda data: data or b""
        case "hex":
            return lambda data: (data or b"").hex().encode()
        case "base64":
            return lambda data: base64.b64encode(data or b"")
    raise Usage(f"there is no {{{how}}}: after %k or %v stands {MODIFIERS} or nothing")


def _header(header: Any) -> bytes:
    key = header["key"]
    return readable(key.encode() if isinstance(key, str) else key) + b"=" + readable(header["value"])
