"""THE list of record formats. To add one, write its module and name it here.

A new kind of schema in the registry is a line of SCHEMA_KINDS. A new value of `convert.*.type` is a line of
CONVERT_TYPES, and one in streamlake/cluster/config/formats.py, which says what the server needs to know about it.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from streamlake.core.errors import Invalid
from streamlake.table.formats import by_latest_schema, by_schema_id, raw, string
from streamlake.table.formats.avro import convert as avro
from streamlake.table.formats.json import convert as json_schema
from streamlake.table.formats.json import plain as json
from streamlake.table.formats.json.infer import Inference
from streamlake.table.formats.port import Compile, Convert, SchemaReader, WriterSchema
from streamlake.table.formats.protobuf import convert as protobuf


class Conversion(NamedTuple):
    """What a converter of keys or of values may need. `subject`, `message`: see by_latest_schema.py."""

    inference: Inference
    subject: str
    message: str


# What makes the converter of a round.
CONVERT_TYPES: Mapping[str, Callable[[Conversion], Convert]] = {
    "raw": lambda _: raw.convert,
    "string": lambda _: string.convert,
    "by_schema_id": lambda _: by_schema_id.convert,
    "by_latest_schema": lambda wanted: by_latest_schema.converter(wanted.subject, wanted.message),
    "json": lambda wanted: json.converter(wanted.inference),
}

SCHEMA_KINDS: Mapping[str, Compile] = {
    "AVRO": avro.compile_reader,
    "JSON": json_schema.compile_reader,
    "PROTOBUF": protobuf.compile_reader,
}


def converter(convert_type: str, wanted: Conversion) -> Convert:
    return CONVERT_TYPES[convert_type](wanted)


def compile_reader(schema: WriterSchema) -> SchemaReader:
    """Raises Invalid, saying why values of this schema cannot go to a table."""
    compile = SCHEMA_KINDS.get(schema.kind)
    if compile is None:
        raise Invalid(f"its type is {schema.kind}: only {', '.join(SCHEMA_KINDS)} can be a table yet")
    return compile(schema)
