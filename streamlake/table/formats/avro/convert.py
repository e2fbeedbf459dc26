"""The values of one Avro schema → an Arrow array, by twin.py: this is its Avro half."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from struct import error as StructError
from typing import Any

import fastavro

from streamlake.core.errors import Invalid
from streamlake.table.formats.avro.schema import AvroSchema, compile_schema
from streamlake.table.formats.port import ReadValues, WriterSchema
from streamlake.table.formats.twin import Codec, Undecodable

_UNDECODABLE = (ValueError, LookupError, ArithmeticError, TypeError, StructError)


def compile_reader(schema: WriterSchema) -> "AvroReader":
    """Raises Invalid, saying why values of this schema cannot go to a table."""
    if schema.references:
        raise Invalid("the Avro schema refers to other schemas, which is not supported yet")
    return AvroReader(compile_schema(schema.text), schema.text)


def _losses(schema: Any, field: str) -> Iterator[str]:
    """Names of types that were defined before are not followed: they were seen where they are defined."""
    match schema:
        case list():
            for branch in schema:
                yield from _losses(branch, field)
        case {"fields": fields}:
            for inner in fields:
                yield from _losses(inner["type"], f"{field}.{inner['name']}" if field else inner["name"])
        case {"items": inner} | {"values": inner}:
            yield from _losses(inner, field)
        case {"type": dict() | list() as inner}:
            yield from _losses(inner, field)
        case {"logicalType": str(logical)} if logical.endswith("-nanos"):
            yield f"{field or 'the value'}: nanoseconds are rounded down to microseconds"


@dataclass(frozen=True, slots=True)
class AvroReader:
    """Implements SchemaReader."""

    schema: AvroSchema
    text: str = '"null"'  # of the schema

    def of_message(self, name: str) -> "AvroReader":
        return self

    def losses(self) -> Sequence[str]:
        return sorted(set(_losses(json.loads(self.text), "")))

    def read(self, column: Any, rows: Any, skip_bytes: int) -> ReadValues:
        schema = self.schema
        group, errors = Codec(schema.type, self._decode, schema.build, schema.native).read(column, rows, skip_bytes)
        return ReadValues((group,), errors)

    def _decode(self, body: bytes) -> Any:
        stream = BytesIO(body)
        try:
            value = fastavro.schemaless_reader(stream, self.schema.decoder)
        except EOFError:
            raise Undecodable("the bytes end before the value does") from None
        except _UNDECODABLE as error:
            raise Undecodable(repr(error)) from None
        if stream.tell() != len(body):
            raise Undecodable(f"{len(body) - stream.tell()} bytes are left over")
        return value
