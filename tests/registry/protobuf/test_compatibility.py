"""The rules as a table: what a schema may become. The cases of Confluent's own table are among them, in our words."""

import random
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.unknown_fields import UnknownFieldSet
from support.protobuf_random import RandomProtobuf

from streamlake.registry.levels import Level
from streamlake.registry.port import Document, File
from streamlake.registry.protobuf.compatibility import FAULTS_MAX, incompatibilities
from streamlake.registry.protobuf.files import plain, pool_of, with_imports
from streamlake.registry.protobuf.parse import parse


def document(text: str, **imports: str) -> Document:
    """Imports by name without .proto; a text without syntax is proto3."""
    files = {}
    for name, imported in imports.items():
        found = document(imported)
        files[f"{name}.proto"] = File(found.text, found.compiled)
    whole = text if text.startswith("syntax") else f'syntax = "proto3"; {text}'
    with TemporaryDirectory() as folder:
        return Document(whole, parse(whole, files, False, Path(folder)).compiled, files)


def reads(reader: Document, writer: Document) -> list[str]:
    return incompatibilities(Level.BACKWARD, reader, [(1, writer)])


def message(*fields: str) -> str:
    return f"message M {{ {' '.join(f'{field};' for field in fields)} }}"


def proto2(*fields: str) -> str:
    return f'syntax = "proto2"; {message(*fields)}'


INTEGERS = ("int32", "int64", "uint32", "uint64", "bool")
STATUS = " enum Status { ACTIVE = 0; INACTIVE = 1; }"
INNER = " message I { string s = 1; }"

READABLE = [
    ("the same", message("string a = 1"), message("string a = 1")),
    ("a field more", message("string a = 1", "string b = 2"), message("string a = 1")),
    ("a field less", message("string a = 1"), message("string a = 1", "string b = 2")),
    ("a field renamed", message("string b = 1"), message("string a = 1")),
    ("another number", message("string a = 2"), message("string a = 1")),
    *[(f"{old} to {new}", message(f"{new} a = 1"), message(f"{old} a = 1")) for old in INTEGERS for new in INTEGERS],
    ("zigzag", message("sint64 a = 1"), message("sint32 a = 1")),
    ("fixed 32", message("sfixed32 a = 1"), message("fixed32 a = 1")),
    ("fixed 64", message("fixed64 a = 1"), message("sfixed64 a = 1")),
    ("text to bytes", message("bytes a = 1"), message("string a = 1")),
    ("bytes to text", message("string a = 1"), message("bytes a = 1")),
    ("a number to an enum", message("Status a = 1") + STATUS, message("int32 a = 1")),
    ("an enum to a number", message("int64 a = 1"), message("Status a = 1") + STATUS),
    ("an enum value renamed", message("S a = 1") + " enum S { A = 0; C = 1; }", message("S a = 1") + " enum S { A = 0; B = 1; }"),
    ("an enum value more", message("S a = 1") + " enum S { A = 0; B = 1; }", message("S a = 1") + " enum S { A = 0; }"),
    ("an enum value less", message("S a = 1") + " enum S { A = 0; }", message("S a = 1") + " enum S { A = 0; B = 1; }"),
    ("one field moved into a new oneof", message("string a = 1", "oneof o { string b = 2; int32 c = 3; }"), message("string a = 1", "string b = 2")),
    ("a oneof grows", message("oneof o { string a = 1; int32 b = 2; }"), message("oneof o { string a = 1; }")),
    ("a oneof dissolved", message("string a = 1", "string b = 2"), message("oneof o { string a = 1; string b = 2; }")),
    ("a oneof renamed", message("oneof p { string a = 1; string b = 2; }"), message("oneof o { string a = 1; string b = 2; }")),
    ("presence comes", message("optional int32 a = 1"), message("int32 a = 1")),
    ("a text becomes a list", message("repeated string a = 1"), message("optional string a = 1")),
    ("bytes become a list", message("repeated bytes a = 1"), message("optional bytes a = 1")),
    ("a message becomes a list", message("repeated I a = 1") + INNER, message("optional I a = 1") + INNER),
    ("another package", "package b; message M { .b.M.I a = 1; message I {} }", "package a; message M { .a.M.I a = 1; message I {} }"),
    ("a message more", message("string a = 1") + INNER, message("string a = 1")),
    ("messages in another order", "message N {} message M {}", "message M {} message N {}"),
    ("proto2 to proto3", message("optional string a = 1"), proto2("optional string a = 1")),
    ("recursion", "message M { M m = 1; int64 a = 2; }", "message M { M m = 1; int32 a = 2; }"),
    ("required stays", proto2("required string a = 1"), proto2("required string a = 1")),
    ("required no more", proto2("optional string a = 1"), proto2("required string a = 1")),
    ("a map", message("map<string, int64> a = 1"), message("map<string, int32> a = 1")),
    ("a map renamed", message("map<string, int64> b = 1"), message("map<string, int32> a = 1")),
    ("a group", proto2("optional group G = 1 { optional int64 a = 1; }"), proto2("optional group G = 1 { optional int32 a = 1; }")),
    ("packed or not", proto2("repeated int32 a = 1 [packed = true]"), proto2("repeated int32 a = 1")),
]  # fmt: skip

UNREADABLE = [
    ("a required field more", proto2("required string a = 1"), proto2(), "field 1 of M (a) is required and was not there before"),
    ("a required field less", proto2(), proto2("required string a = 1"), "field 1 of M (a) is required and has gone"),
    ("required now", proto2("required string a = 1"), proto2("optional string a = 1"), "is required now"),
    ("a number to a text", message("string b = 1"), message("int32 a = 1"), "field 1 of M (b) was integer, and is text or bytes now"),
    ("a number to a message", message("I a = 1") + INNER, message("int32 a = 1"), "was integer, and is message now"),
    ("int to sint", message("sint32 a = 1"), message("int32 a = 1"), "was integer, and is zigzag integer now"),
    ("int to fixed", message("fixed32 a = 1"), message("int32 a = 1"), "is four bytes now"),
    ("float to double", message("double a = 1"), message("float a = 1"), "was float, and is double now"),
    ("float to fixed", message("fixed32 a = 1"), message("float a = 1"), "was float"),
    ("another message", message("J a = 1") + INNER + " message J { string s = 1; }", message("I a = 1") + INNER, "was a I, and is a J now"),
    ("a message less", message(), message() + INNER, "message I is not there any more"),
    ("a nested message less", "message M {}", "message M { message I {} }", "message M.I is not there any more"),
    ("a number becomes a list", message("repeated int32 a = 1"), message("optional int32 a = 1"), "is a list in one schema only"),
    ("a list becomes a number", message("double a = 1"), message("repeated double a = 1"), "is a list in one schema only"),
    ("an enum becomes a list", message("repeated Status a = 1") + STATUS, message("Status a = 1") + STATUS, "is a list"),
    ("two fields moved into a oneof", message("oneof o { string a = 1; string b = 2; }"), message("string a = 1", "string b = 2"), "fields 1, 2 of M moved into oneof o"),
    ("a oneof shrinks", message("oneof o { string a = 1; }"), message("oneof o { string a = 1; int32 b = 2; }"), "oneof o of M lost its field 2"),
    ("a map of others", message("map<string, string> a = 1"), message("map<string, int32> a = 1"), "field 2 of M.AEntry (value) was integer"),
    ("a map to a list", message("repeated I a = 1") + INNER, message("map<string, string> a = 1"), "is a map in one schema only"),
    ("deep", "message M { N n = 1; } message N { string a = 1; }", "message M { N n = 1; } message N { int32 a = 1; }", "field 1 of N (a)"),
    ("in a recursion", "message M { M m = 1; string a = 2; }", "message M { M m = 1; int32 a = 2; }", "field 2 of M (a)"),
    ("a group of others", proto2("optional group G = 1 { optional string a = 1; }"), proto2("optional group G = 1 { optional int32 a = 1; }"), "field 1 of M.G (a)"),
]  # fmt: skip


@pytest.mark.parametrize(("reader", "writer"), [c[1:] for c in READABLE], ids=[c[0] for c in READABLE])
def test_readable(reader: str, writer: str) -> None:
    assert reads(document(reader), document(writer)) == []


@pytest.mark.parametrize(("reader", "writer", "why"), [c[1:] for c in UNREADABLE], ids=[c[0] for c in UNREADABLE])
def test_unreadable(reader: str, writer: str, why: str) -> None:
    (found,) = reads(document(reader), document(writer))
    assert why in found
    assert found.startswith("the new schema cannot read data written with version 1: ")


HOME = "package demo; message Home { int32 id = 1; }"
USES = 'import "home.proto"; message M { demo.Home home = 1; }'


def test_what_is_imported_counts() -> None:
    old = document(USES, home=HOME)
    assert reads(document(USES, home=HOME.replace("int32", "int64")), old) == []
    (why,) = reads(document(USES, home=HOME.replace("int32", "string")), old)
    assert "field 1 of Home (id) was integer" in why
    elsewhere = document(USES.replace("demo", "demo2"), home=HOME.replace("demo", "demo2"))
    assert reads(elsewhere, old) == [], "the package may change"
    inside = document("message M { Home home = 1; } message Home { int32 id = 1; }")
    assert reads(inside, old) == []
    (why,) = reads(old, inside)
    assert "message Home is not there any more" in why


def test_many_faults_are_not_all_named() -> None:
    old, new = (document(message(*[f"{kind} f{n} = {n}" for n in range(1, 2_000)])) for kind in ("int32", "string"))
    (why,) = reads(new, old)
    assert why.count("was integer") == FAULTS_MAX


def test_any_schema_may_follow_itself() -> None:
    for seed in range(100):
        data = plain(RandomProtobuf(random.Random(seed)).file())
        assert incompatibilities(Level.FULL_TRANSITIVE, Document("", data), [(1, Document("", data))] * 2) == []


VALUES = {
    "int32 to int64": b"\x08\x05",
    "text to bytes": b"\x0a\x01x",
    "a number to an enum": b"\x08\x01",
    "a message becomes a list": b"\x0a\x03\x0a\x01x",
    "a oneof grows": b"\x0a\x01x",
    "a map": b"\x0a\x05\x0a\x01k\x10\x07",
    "packed or not": b"\x08\x01\x08\x02",
}


@pytest.mark.parametrize("case", [c for c in READABLE if c[0] in VALUES], ids=lambda c: c[0])
def test_what_is_said_to_be_readable_is_read(case: tuple[str, str, str]) -> None:
    name, *texts = case
    for text in texts:
        files = list(with_imports(document(text).compiled or b"", {}))
        kind = GetMessageClass(pool_of(files).FindMessageTypeByName("M"))
        try:
            read = kind.FromString(VALUES[name])
        except DecodeError as error:
            pytest.fail(f"{name}: {error}")
        assert len(read.ListFields()) == 1
        assert len(UnknownFieldSet(read)) == 0
