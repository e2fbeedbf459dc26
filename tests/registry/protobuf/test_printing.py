import random
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from hypothesis import given, settings
from hypothesis import strategies as st
from support.protobuf_random import RandomProtobuf

from streamlake.registry.protobuf.files import plain, pool_of, read_file, with_imports
from streamlake.registry.protobuf.parse import parse
from streamlake.registry.protobuf.printing import proto_text


def compiled(text: str) -> bytes:
    """By protoc, in this process."""
    with TemporaryDirectory() as folder:
        found = parse(text, {}, False, Path(folder)).compiled
    assert found is not None
    return found


def printed(data: bytes, normalize: bool = False) -> str:
    files = list(with_imports(data, {}))
    return proto_text(files[-1], pool_of(files), normalize)


def message_names(messages, scope: str = "") -> list[str]:
    """In the order that the wire format numbers them in; maps do not count, nobody sends an entry."""
    found = []
    for message in messages:
        if not message.options.map_entry:
            found += [f"{scope}{message.name}", *message_names(message.nested_type, f"{scope}{message.name}.")]
    return found


@given(st.integers(0, 2**64))
@settings(max_examples=300, deadline=None)
def test_what_is_printed_means_the_same(seed: int) -> None:
    data = plain(RandomProtobuf(random.Random(seed)).file())
    text = printed(data)
    assert compiled(text) == data, text
    normalized = printed(data, normalize=True)
    assert printed(compiled(normalized), normalize=True) == normalized
    names = [message_names(read_file(d, "").message_type) for d in (data, compiled(normalized))]
    assert names[0] == names[1], "messages keep their numbers"


TEXT = r'''
syntax = "proto2";
package a.b;
import public "google/protobuf/descriptor.proto";
option java_package = "com.example";
extend google.protobuf.FieldOptions { repeated Note note = 50000; optional string word = 50001; optional group Both = 50002 { optional int32 n = 1; } }
message Note { optional string text = 1; optional Kind kind = 2; optional double weight = 3; }
enum Kind { option allow_alias = true; NONE = 0; SOME = 1 [deprecated = true]; ANY = 1; reserved 5 to 7, 100 to max; reserved "OLD"; }
message M {
  option deprecated = true;
  repeated group Part = 1 { required string s = 1 [default = "a\"b\n\000"]; oneof x { int32 i = 2; bytes b = 3; } }
  message Inner { optional float f = 1 [default = -inf]; }
  map<string, Inner> inners = 2 [(note) = { text: "one" kind: SOME weight: inf }, (note) = { text: "two" }, (word) = "w", (both).n = 5];
  optional Kind kind = 3 [default = ANY, json_name = "KIND"];
  extensions 100 to 199, 1000 to max;
  reserved 50, 60 to 70;
  reserved "gone";
  extend M { optional M more = 100; }
}
service S { option deprecated = true; rpc Get (M) returns (stream Note) { option deprecated = true; } rpc Put (stream M) returns (M); }
'''  # fmt: skip


def test_everything_that_a_file_may_say() -> None:
    data = compiled(TEXT)
    assert compiled(printed(data)) == data
    file = read_file(data, "")
    assert [nested.name for nested in file.message_type[2].nested_type] == ["Part", "Inner", "InnersEntry"]
    assert [m.name for m in file.message_type] == ["Both", "Note", "M"], "a group of an extension is a message too"


@pytest.mark.parametrize(
    "text",
    [
        'edition = "2023"; option features.field_presence = IMPLICIT; message M { string s = 1 [features.field_presence = LEGACY_REQUIRED]; M m = 2 [features.message_encoding = DELIMITED]; reserved old; repeated int32 n = 3 [features.repeated_field_encoding = EXPANDED]; }',
        'syntax = "proto3"; message M { optional int32 a = 1; oneof o { int32 b = 2; } optional M c = 3; }',
        'message M { optional int32 no_syntax = 1; }',
    ],
)  # fmt: skip
def test_other_kinds_of_files(text: str) -> None:
    data = compiled(text)
    assert compiled(printed(data)) == data


def test_normalized_text_is_sorted() -> None:
    data = compiled(
        'syntax = "proto3"; import "google/protobuf/timestamp.proto"; import "google/protobuf/any.proto";'
        "message M { int32 b = 2; oneof o { int32 d = 4; int32 a = 1; } google.protobuf.Any c = 3; }"
        "enum E { Z = 0; Y = 2; X = 1; reserved 9, 8; }"
    )
    lines = [line.strip() for line in printed(data, normalize=True).splitlines()]
    assert [line for line in lines if " = " in line and "syntax" not in line] == [
        "int32 a = 1;", "int32 d = 4;", "int32 b = 2;", ".google.protobuf.Any c = 3;", "Z = 0;", "X = 1;", "Y = 2;",
    ]  # fmt: skip
    assert [line for line in lines if line.startswith(("import", "reserved"))] == [
        'import "google/protobuf/any.proto";', 'import "google/protobuf/timestamp.proto";', "reserved 8, 9;",
    ]  # fmt: skip
    assert isinstance(read_file(data, "x"), FileDescriptorProto)
