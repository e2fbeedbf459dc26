import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from streamlake.core.errors import Invalid
from streamlake.registry.port import File
from streamlake.registry.protobuf.files import (
    WELL_KNOWN,
    default_json_name,
    main_name,
    plain,
    pool_of,
    read_file,
    read_foreign,
    with_imports,
)


def importing(*names: str) -> bytes:
    return FileDescriptorProto(dependency=names, syntax="proto3").SerializeToString()


def test_files_come_after_those_that_they_import() -> None:
    files = {"a.proto": File("", importing("b.proto")), "b.proto": File("", importing("google/protobuf/any.proto"))}
    found = list(with_imports(importing("b.proto", "a.proto", "google/protobuf/api.proto"), files))
    assert [file.name for file in found] == [
        "google/protobuf/any.proto", "b.proto", "a.proto", "google/protobuf/source_context.proto",
        "google/protobuf/type.proto", "google/protobuf/api.proto", "schema.proto",
    ]  # fmt: skip
    assert pool_of(found).FindFileByName("schema.proto")


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({}, "neither a reference of the schema nor a well-known type"),
        ({"a.proto": File("", importing("b.proto")), "b.proto": File("", importing("a.proto"))}, "imports itself"),
        ({"a.proto": File("text")}, "neither"),
        ({"a.proto": File("", b"\xff")}, "not a FileDescriptorProto"),
    ],
)
def test_imports_that_cannot_be(files: dict[str, File], why: str) -> None:
    with pytest.raises(Invalid, match=why):
        list(with_imports(importing("a.proto"), files))


def test_a_file_that_is_not_sound() -> None:
    file = FileDescriptorProto(name="x")
    file.message_type.add(name="M").field.add(name="f", number=1, type=11, type_name=".Nobody", label=1)
    with pytest.raises(Invalid, match="x is not sound"):
        pool_of([file])


@pytest.mark.parametrize("fields", [[], ["key"], ["value", "key"], ["key", "falue"], ["key", "value", "more"]])
def test_an_entry_of_a_map_is_one(fields: list[str]) -> None:
    """A pool takes any, and all who read maps trust it."""
    file = FileDescriptorProto(name="x", syntax="proto3")
    entry = file.message_type.add(name="M").nested_type.add(name="FEntry")
    entry.options.map_entry = True
    for number, name in enumerate(fields, 1):
        entry.field.add(name=name, number=number, type=5, label=1)
    with pytest.raises(Invalid, match="x is not sound: FEntry is not the entry of a map"):
        pool_of([file])


def test_a_descriptor_of_a_stranger() -> None:
    """Python takes what is not UTF-8 in a descriptor for bytes."""
    good = importing("a.proto")
    assert read_foreign(good) == read_file(good, "")
    for bad in (b"\xff", b"\x12\1\xff", b'"\x0c\x0a\1M\x12\7\x0a\1f:\2\xf1B'):
        with pytest.raises(Invalid, match="not a FileDescriptorProto"):
            read_foreign(bad)


def test_the_schema_has_no_name_of_a_file_that_it_imports() -> None:
    assert main_name({}) == "schema.proto"
    assert main_name({"schema.proto": File(""), "_schema.proto": File("")}) == "__schema.proto"


def test_what_says_nothing_does_not_count() -> None:
    file = read_file(WELL_KNOWN["google/protobuf/timestamp.proto"], "x")
    other = FileDescriptorProto()
    other.CopyFrom(file)
    other.name = "y"
    other.source_code_info.location.add()
    other.message_type[0].field[0].json_name = "seconds"
    assert plain(other) == plain(file)
    other.message_type[0].field[0].json_name = "other"
    assert plain(other) != plain(file)


def test_json_names() -> None:
    names = ["a_b", "a__b", "_a", "a_", "A_b", "a_1b"]
    assert [default_json_name(name) for name in names] == ["aB", "aB", "A", "a", "AB", "a1b"]
