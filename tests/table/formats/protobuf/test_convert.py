"""Messages come out as upb reads them with their own descriptor, and bad bytes hurt their own row only."""

import base64
import random
from collections import Counter
from typing import Any

import pyarrow as pa
import pytest
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given, settings
from hypothesis import strategies as st
from support import protobuf_shown
from support.protobuf import Classes, compiled
from support.protobuf_random import RandomProtobuf, fill

from streamlake.core.errors import Invalid
from streamlake.registry.port import File
from streamlake.registry.protobuf.files import plain
from streamlake.table.formats import by_schema_id
from streamlake.table.formats.converted import Reason
from streamlake.table.formats.port import Reference, WriterSchema
from streamlake.table.formats.protobuf.convert import ProtobufReader, compile_reader
from streamlake.table.formats.resolve import SchemaCache

HEADER = b"\0\0\0\0\1"
MONEY = 'syntax = "proto3"; package common; message Money { int64 units = 1; }'
ORDER = 'syntax = "proto3"; import "common/money.proto"; message Order { common.Money price = 1; }'


def read(reader: ProtobufReader, bodies: list[bytes]) -> tuple[dict[int, Any], dict[int, str], dict[int, str]]:
    column = pa.array([HEADER + body for body in bodies], pa.binary())
    found = reader.read(column, pa.array(range(len(bodies))), len(HEADER))
    rows: dict[int, Any] = {}
    for group in found.groups:
        group.values.validate(full=True)
        rows |= zip(group.rows.to_pylist(), group.values.to_pylist(), strict=True)
    return rows, dict(found.errors), dict(found.unsupported)


def text_of(value: Any) -> str:
    """NaN equals NaN; maps of upb have no order."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {text_of(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        items = [f"({text_of(i[0])}, {text_of(i[1])})" if isinstance(i, tuple) else text_of(i) for i in value]
        return str(sorted(items) if value and isinstance(value[0], tuple) else items)
    return repr(value).replace("zoneinfo.ZoneInfo(key='UTC')", "datetime.timezone.utc")


def agree(seed: int) -> Counter[str]:
    """A random file, and random messages of all that it has."""
    r = random.Random(seed)
    data = plain(RandomProtobuf(r).file())
    reader = ProtobufReader(data, {})
    seen: Counter[str] = Counter()
    for index, message in enumerate(reader._file.message_types_by_name.values()):
        kind = GetMessageClass(message)
        values = [fill(kind(), r) for _ in range(4)]
        bodies = [b"\x02" + bytes([2 * index]) + value.SerializePartialToString() for value in values]
        rows, errors, unsupported = read(reader, bodies)
        assert rows.keys() | errors.keys() | unsupported.keys() == set(range(4))
        if unsupported:
            assert all("without fields has no column type" in why for why in unsupported.values())
            seen["unsupported"] += 4
            continue
        for row, value in enumerate(values):
            try:
                shown = protobuf_shown.message(value, reader._pool)
            except protobuf_shown.NotShown:
                shown = None
            if shown is None or not value.IsInitialized():
                assert row in errors
                seen["errors"] += 1
            else:
                assert text_of(rows[row]) == text_of(None if shown is protobuf_shown.NOTHING else shown)
                seen["rows"] += 1
    return seen


@given(st.integers(0, 2**64))
@settings(max_examples=200, deadline=None)
def test_messages_are_shown_as_upb_reads_them(seed: int) -> None:
    agree(seed)


def test_many_messages_get_that_far() -> None:
    ends = sum((agree(seed) for seed in range(200)), Counter())
    assert ends["rows"] > 800 and ends["errors"] > 5 and ends["unsupported"] > 5, ends


@given(st.integers(0, 2**64), st.data())
@settings(max_examples=100, deadline=None)
def test_bytes_from_anywhere_never_spoil_a_neighbour(seed: int, data: st.DataObject) -> None:
    r = random.Random(seed)
    reader = ProtobufReader(plain(RandomProtobuf(r).file()), {})
    kind = GetMessageClass(next(iter(reader._file.message_types_by_name.values())))
    body = b"\0" + fill(kind(), r).SerializePartialToString()
    cut = st.integers(0, len(body)).map(lambda n: body[:n])
    flipped = st.tuples(st.integers(0, len(body) - 1), st.integers(1, 255)).map(
        lambda at: bytes(b ^ at[1] if i == at[0] else b for i, b in enumerate(body))
    )
    foreign = data.draw(st.lists(cut | flipped | st.binary(max_size=30), max_size=4))
    alone = read(reader, [body])
    rows, errors, unsupported = read(reader, [body, *foreign, body])
    last = len(foreign) + 1
    assert rows.keys() | errors.keys() | unsupported.keys() == set(range(last + 1))
    assert not rows.keys() & errors.keys()
    for found, of_one in zip((rows, errors, unsupported), alone, strict=True):
        for row in (0, last):
            assert text_of(found.get(row)) == text_of(of_one.get(0))


@pytest.mark.parametrize("serialized", [False, True], ids=["text", "descriptor"])
def test_schemas_with_references(serialized: bool) -> None:
    """A registry may send either form."""
    texts = [ORDER, MONEY]
    if serialized:
        files = {"common/money.proto": File(MONEY, compiled(MONEY))}
        texts = [base64.b64encode(data).decode() for data in (compiled(ORDER, files), compiled(MONEY))]
    reference = Reference("common/money.proto", "money", 1, WriterSchema("PROTOBUF", texts[1]))
    reader = compile_reader(WriterSchema("PROTOBUF", texts[0], (reference,)))
    assert read(reader, [b"\0\x0a\x02\x08\x05"]) == ({0: {"#1": {"#1": 5}}}, {}, {})


def test_schemas_that_are_none() -> None:
    for schema in (
        WriterSchema("PROTOBUF", "message {"),
        WriterSchema("PROTOBUF", "AAAA"),
        WriterSchema("PROTOBUF", ORDER),
        WriterSchema("PROTOBUF", base64.b64encode(b'\x12\x01p"\x03\n\x01M*\x03\n\x01M').decode()),
        WriterSchema("PROTOBUF", ORDER, (Reference("common/money.proto", "money", 1),)),
    ):
        with pytest.raises(Invalid):
            compile_reader(schema)


def test_every_kind_of_bad_value_has_its_reason() -> None:
    text = 'syntax = "proto3"; message M { string s = 1; } message R { R r = 1; int32 n = 2; }'
    file = base64.b64encode(compiled(text)).decode()

    class Source:
        def get(self, schema_id: int) -> WriterSchema:
            return WriterSchema("PROTOBUF", file)

    good = HEADER + b"\0\x0a\1x"
    values = [
        good,
        None,
        HEADER,
        HEADER + b"\0\x0a\5x",
        HEADER + b"\0\x0a\1\xff",
        HEADER + b"\2\4",
        HEADER + b"\2\2",
        good,
    ]
    found = by_schema_id.convert(pa.array(values, pa.binary()), Reason.INVALID_VALUE, SchemaCache(Source()))
    rows = [row for group in found.groups for row in group.rows.to_pylist()]
    assert rows == [0, 7]
    assert {e.row: e.reason for e in found.errors} == {
        **dict.fromkeys((2, 3, 4, 5), Reason.INVALID_VALUE),
        6: Reason.UNSUPPORTED_SCHEMA,
    }
    messages = {e.row: e.message for e in found.errors}
    assert "the bytes are not a M" in messages[3]
    assert "message index 2: the schema has 2 messages" in messages[5]
    assert "message R contains itself" in messages[6]


def test_a_required_field_that_is_missing() -> None:
    reader = ProtobufReader(compiled('syntax = "proto2"; message M { required int32 a = 1; }'), {})
    assert read(reader, [b"\0\x08\1", b"\0"]) == ({0: {"#1": 1}}, {1: "a M without the required f1"}, {})


def test_nested_messages_by_their_path() -> None:
    reader = ProtobufReader(compiled('syntax = "proto3"; message A { message B { int32 x = 1; } } message C { map<string, A> m = 1; message D {} }'), {})  # fmt: skip
    rows, errors, _ = read(reader, [b"\4\0\0\x08\7", b"\4\2\0", b"\4\2\2"])
    assert rows == {0: {"#1": 7}, 2: None}
    assert errors == {1: "the message index names the entry of a map"}


def test_classes_of_a_client_have_the_same_bytes() -> None:
    classes = Classes({"common/money.proto": MONEY, "order.proto": ORDER})
    assert classes["Order"](price={"units": 5}).SerializeToString() == b"\x0a\x02\x08\x05"
