"""Record → schema: the five bytes before a value, and the registry behind them.

Confluent's wire format: a zero byte, the schema id as four big-endian bytes, then the value. Schemas never change, so
compiled ones are kept, the most recently used first. A registry that is down is not a property of the record: its
Unavailable passes through, the round waits, and no record is judged.
"""

import threading
from collections import OrderedDict
from typing import Protocol

from streamlake.core.errors import Invalid, NotFound
from streamlake.table.formats.avro.schema import AvroSchema, compile_schema

HEADER_BYTES = 5
MAGIC_BYTE = 0
SCHEMAS_MAX = 1_000


class SchemaSource(Protocol):
    """A schema registry, seen from a worker thread: `get` may block."""

    def get(self, schema_id: int) -> str:
        """The text of an Avro schema. Raises NotFound (no such id), Invalid (it is no Avro schema), Unavailable."""
        ...


class Schemas(Protocol):
    def avro(self, schema_id: int) -> AvroSchema:
        """Raises NotFound, Unavailable, and Invalid for a schema that no table can hold."""
        ...


class SchemaCache:
    """Implements Schemas: compiled ones by id, shared by all tables of one registry and by their threads."""

    def __init__(self, source: SchemaSource, schemas_max: int = SCHEMAS_MAX) -> None:
        self._source = source
        self._schemas_max = schemas_max
        self._known: OrderedDict[int, AvroSchema | Invalid] = OrderedDict()
        self._lock = threading.Lock()

    def avro(self, schema_id: int) -> AvroSchema:
        with self._lock:
            found = self._known.get(schema_id)
            if found is not None:
                self._known.move_to_end(schema_id)
        if found is None:
            found = self._compile(schema_id)
        if isinstance(found, Invalid):
            raise Invalid(*found.args)
        return found

    def _compile(self, schema_id: int) -> AvroSchema | Invalid:
        try:
            compiled: AvroSchema | Invalid = compile_schema(self._source.get(schema_id))
        except Invalid as error:
            compiled = error
        with self._lock:
            self._known[schema_id] = compiled
            if len(self._known) > self._schemas_max:
                self._known.popitem(last=False)
        return compiled


class RoundSchemas:
    """Implements Schemas: a cache as one round sees it. An id that the registry does not know is asked for once.

    No longer than a round: all its records were in the log before the first of them is looked at, so a schema that is
    unknown now was unknown when they were written. A record of the next round may come after the schema."""

    def __init__(self, schemas: SchemaCache) -> None:
        self._schemas = schemas
        self._unknown: dict[int, str] = {}

    def avro(self, schema_id: int) -> AvroSchema:
        if schema_id in self._unknown:
            raise NotFound(self._unknown[schema_id])
        try:
            return self._schemas.avro(schema_id)
        except NotFound as error:
            self._unknown[schema_id] = str(error)
            raise


def schema_id(header: bytes) -> int:
    """The id in the first five bytes of a value. Raises Invalid if they are no such header."""
    if len(header) < HEADER_BYTES:
        raise Invalid(f"{len(header)} bytes are too short for the schema id of the wire format (5 bytes)")
    if header[0] != MAGIC_BYTE:
        raise Invalid(f"starts with byte 0x{header[0]:02x}, not with the 0x00 of the wire format: not by_schema_id")
    return int.from_bytes(header[1:HEADER_BYTES], "big")
