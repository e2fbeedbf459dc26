import base64

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from streamlake.core.errors import Invalid
from streamlake.registry.kinds import KINDS
from streamlake.registry.levels import Level
from streamlake.registry.port import Document, File

TEXTS = {
    "AVRO": ('{"type": "string"}', '"int"'),
    "JSON": ('{"type": "string"}', '{"type": "integer"}'),
    "PROTOBUF": ('syntax = "proto3"; message M { int32 a = 1; }', 'syntax = "proto3"; message M { string a = 1; }'),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_parses_and_compares(name: str) -> None:
    kind = KINDS[name]
    first, second = (kind.parse(text, {}, False) for text in TEXTS[name])
    assert first.canonical != second.canonical
    assert kind.parse(first.text, {}, False).canonical == first.canonical
    one, other = (Document(parsed.text, parsed.compiled) for parsed in (first, second))
    assert kind.incompatibilities(Level.FULL, one, [(1, one)]) == []
    assert len(kind.incompatibilities(Level.FULL, other, [(1, one)])) == 2
    with pytest.raises(Invalid):
        kind.parse("{", {}, False)


def test_what_clients_read_serialized() -> None:
    parsed = KINDS["PROTOBUF"].parse(TEXTS["PROTOBUF"][0], {}, False)
    shown = KINDS["PROTOBUF"].serialized(Document(parsed.text, parsed.compiled))
    assert [m.name for m in FileDescriptorProto.FromString(base64.b64decode(shown)).message_type] == ["M"]
    assert KINDS["JSON"].serialized(Document('{"a": 1}')) == '{"a": 1}'
    assert KINDS["AVRO"].serialized(Document('"int"')) == '"int"'


def test_avro_takes_no_references_yet() -> None:
    with pytest.raises(Invalid, match="not supported for Avro yet"):
        KINDS["AVRO"].parse('"int"', {"a": File('"int"')}, False)
