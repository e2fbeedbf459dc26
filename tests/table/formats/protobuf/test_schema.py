import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from support.protobuf import Classes, compiled
from support.protobuf_cases import CASES, Case, file
from support.source_types import words

from streamlake.core.errors import Invalid, NotFound
from streamlake.registry.avro.types import LEVELS_MAX, TYPES_MAX
from streamlake.table.formats.protobuf.schema import compile_message, message_at
from streamlake.table.formats.source_schema import SourceField, SourceStruct
from streamlake.table.formats.twin import Codec

GUIDE = Path(__file__).parents[4] / "docs" / "guides" / "types.md"


def codec(text: str, name: str = "M") -> Codec:
    classes = Classes({"m.proto": text if text.startswith("syntax") else f'syntax = "proto3"; {text}'})
    return compile_message(classes.pool.FindMessageTypeByName(name), classes.pool)


def test_every_kind_of_field_has_its_column() -> None:
    found = codec(file(), "Row").type
    assert isinstance(found, SourceStruct)
    assert {field.segment: words(field.type) for field in found.fields} == {
        f"#{n}": case.column for n, case in enumerate(CASES, 1) if case.column
    }


def test_values_of_every_kind() -> None:
    row = Classes({"row.proto": file()})["Row"]
    full = row(**{f"f{n}": case.value for n, case in enumerate(CASES, 1) if case.column})
    column = pa.array([message.SerializeToString() for message in (full, row())], pa.binary())
    group, errors = codec(file(), "Row").read(column, pa.array([0, 1]), 0)
    assert errors == []
    for found, wanted in zip(group.values.to_pylist(), ("shown", "absent"), strict=True):
        columns = {f"#{n}": as_arrow(case, getattr(case, wanted)) for n, case in enumerate(CASES, 1) if case.column}
        assert found == columns


def as_arrow(case: Case, value: Any) -> Any:
    """Maps are lists of pairs, fields have numbers."""
    if isinstance(value, dict) and case.column.startswith("map"):
        return list(value.items())
    if isinstance(value, dict):
        return {f"#{n}": item for n, item in enumerate(value.values(), 1)}
    return value


def test_the_guide_has_every_kind() -> None:
    section = GUIDE.read_text().partition("## Protobuf")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `?(.+?)`? \| (.*?) \|$", section, re.MULTILINE)
    said = {kind: column.strip("`") for kinds, column in rows for kind in kinds.split("`, `")}
    for case in CASES:
        assert said.get(case.kind) == (case.column or "no column"), case.kind
    assert said.keys() - {case.kind for case in CASES} == {"Protobuf"}, "kinds that no test knows"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("message M { M m = 1; }", "message M contains itself"),
        ("message M { N n = 1; } message N { repeated M m = 1; }", "message M contains itself"),
        ("message M { map<string, M> m = 1; }", "message M contains itself"),
        ("message N {} message M { repeated N n = 1; }", "M.n: a list of messages without fields"),
        ("message N {} message M { map<string, N> n = 1; }", "M.NEntry.value: a map to messages without fields"),
    ],
)
def test_what_no_table_holds(text: str, why: str) -> None:
    with pytest.raises(Invalid, match=re.escape(why)):
        codec(text)


def test_messages_that_are_too_wide_or_too_deep() -> None:
    wide = "".join(f"int32 f{n} = {n};" for n in range(1, TYPES_MAX))
    assert codec(f"message M {{ {wide} }}")
    with pytest.raises(Invalid, match="more than 5,000 types"):
        codec(f"message M {{ {wide} int32 last = {TYPES_MAX}; }}")
    doubling = "".join(f"message M{n} {{ M{n + 1} a = 1; M{n + 1} b = 2; }}" for n in range(60))
    with pytest.raises(Invalid, match="more than 5,000 types"):
        codec(f"{doubling} message M60 {{ int32 x = 1; }}", "M0")
    deep = "".join(f"message M{n} {{ M{n + 1} a = 1; }}" for n in range(LEVELS_MAX - 1))
    assert codec(f"{deep} message M{LEVELS_MAX - 1} {{ int32 x = 1; }}", "M1")
    with pytest.raises(Invalid, match="more than 64 levels"):
        codec(f"{deep} message M{LEVELS_MAX - 1} {{ int32 x = 1; }}", "M0")


def test_presence() -> None:
    """Null is what was not there, where a message can tell."""
    read = codec("message M { optional int32 a = 1; int32 b = 2; oneof o { int32 c = 3; int32 d = 4; } }").read
    column = pa.array([b"", b"\x08\0\x10\0\x18\0", b"\x18\1\x20\2"], pa.binary())
    rows = read(column, pa.array([0, 1, 2]), 0)[0].values.to_pylist()
    assert rows == [
        {"#1": None, "#2": 0, "#3": None, "#4": None},
        {"#1": 0, "#2": 0, "#3": 0, "#4": None},
        {"#1": None, "#2": 0, "#3": None, "#4": 2},
    ]


def test_a_closed_enum_keeps_numbers_that_it_does_not_know() -> None:
    read = codec('syntax = "proto2"; enum E { A = 0; } message M { optional E e = 1; map<int32, E> m = 2; }').read
    column = pa.array([b"\x08\x07", b"\x12\x02\x08\x01"], pa.binary())
    rows = read(column, pa.array([0, 1]), 0)[0].values.to_pylist()
    assert rows == [{"#1": "7", "#2": []}, {"#1": None, "#2": [(1, "A")]}]


def test_messages_by_their_numbers() -> None:
    classes = Classes({"m.proto": 'syntax = "proto3"; message A { message B {} } message C { map<string, A> m = 1; }'})
    found = classes.pool.FindFileByName("schema.proto")
    assert [message_at(found, path).full_name for path in ((0,), (0, 0), (1,))] == ["A", "A.B", "C"]
    for path in ((2,), (0, 1), (1, 0), (0, 0, 0)):
        with pytest.raises(NotFound, match="message index"):
            message_at(found, path)


def test_fields_have_the_names_of_the_file() -> None:
    (field,) = codec("message M { int32 some_Name = 9; }").type.fields
    assert field == SourceField("#9", "some_Name", field.type, message="M")
    assert compiled('syntax = "proto3";')
