"""The schemas that were parsed last: clients that start together send the same one, and some kinds cost a process."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping

import msgspec

from streamlake.registry.port import File, Parsed

SCHEMAS_MAX = 1_000
BYTES_MAX = 16 * 1024 * 1024


class ParsedSchemas:
    """The most recently used first. Threads may share it."""

    def __init__(self, bytes_max: int = BYTES_MAX, schemas_max: int = SCHEMAS_MAX) -> None:
        self._bytes_max = bytes_max
        self._schemas_max = schemas_max
        self._bytes = 0
        self._known: OrderedDict[bytes, Parsed] = OrderedDict()
        self._lock = threading.Lock()

    def get(
        self, kind: str, text: str, files: Mapping[str, File], normalize: bool, parse: Callable[[], Parsed]
    ) -> Parsed:
        """What `parse` makes of a schema, whose errors are raised and not kept."""
        key = _key(kind, text, files, normalize)
        with self._lock:
            found = self._known.get(key)
            if found is not None:
                self._known.move_to_end(key)
                return found
        found = parse()
        with self._lock:
            if key not in self._known and _size_bytes(found) <= self._bytes_max:
                self._known[key] = found
                self._bytes += _size_bytes(found)
            while self._bytes > self._bytes_max or len(self._known) > self._schemas_max:
                self._bytes -= _size_bytes(self._known.popitem(last=False)[1])
        return found


def _key(kind: str, text: str, files: Mapping[str, File], normalize: bool) -> bytes:
    """A hash: schemas are large."""
    parts = [kind, text, normalize, sorted((name, file.text) for name, file in files.items())]
    return hashlib.sha256(msgspec.msgpack.encode(parts)).digest()


def _size_bytes(parsed: Parsed) -> int:
    """About: a character as one byte."""
    return len(parsed.text) + len(parsed.canonical) + len(parsed.compiled or b"")
