"""The values of one Protobuf schema → Arrow arrays: one group for each message of the file that they name."""

import base64
import binascii
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import Descriptor

from streamlake.core.errors import SHOWN_CHARS_MAX, Invalid, NotFound
from streamlake.registry.port import File
from streamlake.registry.protobuf.files import pool_of, read_foreign, with_imports
from streamlake.registry.protobuf.schema import parse_schema
from streamlake.table.formats.port import ReadValues, WriterSchema
from streamlake.table.formats.protobuf.indexes import Path, split
from streamlake.table.formats.protobuf.schema import (
    JSON_TYPES,
    TIMESTAMP,
    compile_message,
    message_at,
    message_named,
)
from streamlake.table.formats.twin import Codec

MESSAGES_MAX = 1_000  # of one schema that are compiled: values may name any


def compile_reader(schema: WriterSchema) -> "ProtobufReader":
    """Raises Invalid, saying why values of this schema cannot go to a table; and Unavailable."""
    files: dict[str, File] = {}
    file = _compiled(schema, files)
    assert file.compiled is not None
    return ProtobufReader(file.compiled, files)


def _compiled(schema: WriterSchema, files: dict[str, File]) -> File:
    """Also puts what the schema refers to into `files`, by name. The schemas that a SchemaSource hands out are no
    circle."""
    for reference in schema.references:
        if reference.schema is None:
            raise Invalid(f"the schema it refers to as {reference.name[:SHOWN_CHARS_MAX]} was not fetched")
        if reference.name not in files:
            files[reference.name] = _compiled(reference.schema, files)
    try:
        data = base64.b64decode(schema.text, validate=True)  # what our registry sends
        return File(schema.text, read_foreign(data).SerializeToString())
    except (binascii.Error, ValueError):
        pass
    parsed = parse_schema(schema.text, files)
    return File(parsed.text, parsed.compiled)


class ProtobufReader:
    """Implements SchemaReader. Messages are compiled when the first value names them."""

    def __init__(self, compiled: bytes, files: dict[str, File]) -> None:
        found = list(with_imports(compiled, files))
        self._pool = pool_of(found)
        self._file = self._pool.FindFileByName(found[-1].name)
        self._codecs: dict[Path, Codec | Invalid] = {}
        self._lock = threading.Lock()

    def read(self, column: Any, rows: Any, skip_bytes: int) -> ReadValues:
        parts, errors = split(column, rows, skip_bytes)
        groups, unsupported = [], []
        for prefix, of_prefix in parts:
            try:
                codec = self.codec(prefix.path)
            except NotFound as error:
                errors += [(row, str(error)) for row in of_prefix.to_pylist()]
                continue
            except Invalid as error:
                unsupported += [(row, str(error)) for row in of_prefix.to_pylist()]
                continue
            group, bad = codec.read(column, of_prefix, skip_bytes + prefix.size_bytes)
            groups.append(group)
            errors += bad
        return ReadValues(groups, errors, unsupported)

    def of_message(self, name: str) -> "MessageReader":
        return MessageReader(self.codec(message_named(self._file, name)))

    def losses(self) -> Sequence[str]:
        with self._lock:
            read = [path for path, found in self._codecs.items() if not isinstance(found, Invalid)]
        return sorted({loss for path in read for loss in _losses(message_at(self._file, path), "")})

    def codec(self, path: Path) -> Codec:
        """How to read a message. Raises NotFound and Invalid."""
        message = message_at(self._file, path)
        with self._lock:
            found = self._codecs.get(path)
            if found is None:
                found = self._compile(message)
                if len(self._codecs) < MESSAGES_MAX:
                    self._codecs[path] = found
        if isinstance(found, Invalid):
            raise Invalid(*found.args)
        return found

    def _compile(self, message: Descriptor) -> Codec | Invalid:
        try:
            return compile_message(message, self._pool)
        except Invalid as error:
            return error


def _losses(message: Descriptor, field: str) -> Iterator[str]:
    """Of a message that has been compiled: it does not contain itself."""
    for inner in message.fields:
        name = f"{field}.{inner.name}" if field else inner.name
        of = inner.message_type
        if of is None:
            continue
        if of.full_name == TIMESTAMP:
            yield f"{name}: nanoseconds are rounded down to microseconds"
        elif of.full_name in JSON_TYPES:
            yield f"{name}: {of.full_name} is JSON text"
        else:
            yield from _losses(of, name)


@dataclass(frozen=True, slots=True)
class MessageReader:
    """Implements ValueReader: of one message, without an index before its bytes."""

    codec: Codec

    def read(self, column: Any, rows: Any, skip_bytes: int) -> ReadValues:
        group, errors = self.codec.read(column, rows, skip_bytes)
        return ReadValues((group,), errors)
