"""The values of one JSON Schema → an Arrow array, by twin.py: this is its JSON half."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from streamlake.core.errors import SHOWN_CHARS_MAX, Invalid
from streamlake.registry.json_schema.documents import Documents, decode
from streamlake.registry.port import File
from streamlake.table.formats.json.native import Plan, compile_plan
from streamlake.table.formats.json.scan import decoder
from streamlake.table.formats.json.schema import plan_of
from streamlake.table.formats.port import ReadValues, WriterSchema
from streamlake.table.formats.source_schema import SourceType, arrow_type
from streamlake.table.formats.twin import Build, Codec


def compile_reader(schema: WriterSchema) -> "JsonReader":
    """Raises Invalid, saying why values of this schema cannot go to a table."""
    files: dict[str, File] = {}
    _collect(schema, files)
    return JsonReader(codec_of(plan_of(Documents(decode(schema.text), files))))


def _collect(schema: WriterSchema, files: dict[str, File]) -> None:
    """Puts what the schema refers to into `files`, by name. The schemas that a SchemaSource hands out are no circle."""
    for reference in schema.references:
        if reference.schema is None:
            raise Invalid(f"the schema it refers to as {reference.name[:SHOWN_CHARS_MAX]} was not fetched")
        if reference.name not in files:
            files[reference.name] = File(reference.schema.text)
            _collect(reference.schema, files)


def codec_of(plan: Plan) -> Codec:
    type = plan.type
    return Codec(type, decoder(plan), None if type is None else _builder(type), compile_plan(plan))


def _builder(type: SourceType) -> Build:
    arrow = arrow_type(type)
    return lambda values: pa.array(values, arrow)


@dataclass(frozen=True, slots=True)
class JsonReader:
    """Implements SchemaReader."""

    codec: Codec

    def of_message(self, name: str) -> "JsonReader":
        return self

    def losses(self) -> Sequence[str]:
        return ("properties that the JSON Schema does not list have no column",)

    def read(self, column: Any, rows: Any, skip_bytes: int) -> ReadValues:
        group, errors = self.codec.read(column, rows, skip_bytes)
        return ReadValues((group,), errors)
