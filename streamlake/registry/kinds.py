"""THE list of the kinds of schema that the registry takes, by `schemaType`."""

from collections.abc import Mapping, Sequence

from streamlake.core.errors import Invalid
from streamlake.registry.avro import compatibility as avro_compatibility
from streamlake.registry.avro import schema as avro
from streamlake.registry.json_schema import compatibility as json_compatibility
from streamlake.registry.json_schema import schema as json_schema
from streamlake.registry.levels import Level
from streamlake.registry.port import Document, File, Kind, Parsed
from streamlake.registry.protobuf import compatibility as protobuf_compatibility
from streamlake.registry.protobuf import schema as protobuf


def _parse_avro(text: str, files: Mapping[str, File], normalize: bool) -> Parsed:
    if files:
        raise Invalid("references are not supported for Avro yet: put the types that are referred to into the schema")
    canonical = avro.parse_schema(text, normalize)
    return Parsed(canonical, canonical)


def _compare_avro(level: Level, new: Document, earlier: Sequence[tuple[int, Document]]) -> list[str]:
    return avro_compatibility.incompatibilities(level, new.text, [(version, old.text) for version, old in earlier])


KINDS: Mapping[str, Kind] = {
    "AVRO": Kind(_parse_avro, _compare_avro, lambda document: document.text),
    "JSON": Kind(json_schema.parse_schema, json_compatibility.incompatibilities, lambda document: document.text),
    "PROTOBUF": Kind(protobuf.parse_schema, protobuf_compatibility.incompatibilities, protobuf.serialized),
}
