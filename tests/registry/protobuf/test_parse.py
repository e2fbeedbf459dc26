import base64
import random
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from support.protobuf_random import RandomProtobuf

from streamlake.core.errors import Invalid
from streamlake.registry.port import File
from streamlake.registry.protobuf import parse as module
from streamlake.registry.protobuf.parse import Refused, parse

MONEY = 'syntax = "proto3"; package common; message Money { int64 units = 1; }'
ORDER = 'syntax = "proto3"; import "common/money.proto"; message Order { common.Money price = 1; }'


def base64_of(file: FileDescriptorProto) -> str:
    return base64.b64encode(file.SerializeToString()).decode()


def money(tmp_path: Path) -> dict[str, File]:
    folder = tmp_path / "money"
    folder.mkdir()
    return {"common/money.proto": File(MONEY, parse(MONEY, {}, False, folder).compiled)}


def test_a_text_stays_as_it_is_unless_normalized(tmp_path: Path) -> None:
    text = "/* doc */ " + MONEY
    assert parse(text, {}, False, tmp_path).text == text
    parsed = parse(text, {}, True, tmp_path)
    assert parsed.text == parsed.canonical
    assert "doc" not in parsed.text


def test_a_descriptor_is_the_same_as_its_text(tmp_path: Path) -> None:
    files = money(tmp_path)
    of_text = parse(ORDER, files, False, tmp_path)
    file = FileDescriptorProto.FromString(of_text.compiled or b"")
    file.name = "any/name.proto"
    file.message_type[0].field[0].json_name = "price"
    described = parse(base64_of(file), files, False, tmp_path)
    assert (described.canonical, described.compiled) == (of_text.canonical, of_text.compiled)
    assert described.text == described.canonical


def test_descriptors_of_any_shape(tmp_path: Path) -> None:
    for seed in range(30):
        file = RandomProtobuf(random.Random(seed)).file()
        text = base64_of(file)
        assert parse(parse(text, {}, False, tmp_path).text, {}, False, tmp_path).compiled


def test_what_is_no_descriptor(tmp_path: Path) -> None:
    for text in ("abc", "AAAA", base64.b64encode(b"\xff" * 9).decode()):
        with pytest.raises(Invalid, match=r"neither the text of a \.proto file nor"):
            parse(text, {}, False, tmp_path)


def test_a_descriptor_that_no_text_makes(tmp_path: Path) -> None:
    """A message without the name that its map entry must have."""
    file = FileDescriptorProto(syntax="proto3")
    file.message_type.add(name="M").field.add(name="f", number=1, type=5, label=1, json_name="f")
    file.message_type[0].nested_type.add(name="XEntry").options.map_entry = True
    with pytest.raises((Invalid, Refused)):
        parse(base64_of(file), {}, False, tmp_path)


def test_what_protoc_refuses(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Refused):
        parse('syntax = "proto3"; message M { int32 a = 1; int32 b = 1; }', {}, False, tmp_path)
    assert 'Field number 1 has already been used in "M"' in capfd.readouterr().err


@pytest.mark.parametrize("path", ["/etc/passwd", "../../etc/passwd", "google/protobuf/nothing.proto"])
def test_no_other_file_can_be_imported(path: str, tmp_path: Path) -> None:
    with pytest.raises(Refused):
        parse(f'syntax = "proto3"; import "{path}"; message M {{}}', {}, False, tmp_path)


def test_a_file_of_the_compiler_that_is_not_well_known(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"it imports google/protobuf/compiler/plugin\.proto, which is neither"):
        parse('syntax = "proto3"; import "google/protobuf/compiler/plugin.proto"; message M {}', {}, False, tmp_path)


def test_a_reference_does_not_replace_a_well_known_type(tmp_path: Path) -> None:
    files = {"google/protobuf/timestamp.proto": File("message Other {}")}
    text = (
        'syntax = "proto3"; import "google/protobuf/timestamp.proto"; message M { google.protobuf.Timestamp at = 1; }'
    )
    assert parse(text, files, False, tmp_path).compiled


def test_references_that_are_no_files(tmp_path: Path) -> None:
    for files in ({"a": File(""), "a/b": File("")}, {"x": File("\ud800")}):
        with pytest.raises(Invalid, match="cannot be written as a file"):
            parse(MONEY, files, False, tmp_path)


def test_a_schema_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMPILED_BYTES_MAX", 10)
    with pytest.raises(Invalid, match="more than 10 bytes"):
        parse(MONEY, {}, False, tmp_path)
