"""Builders refuse what does not fit a column, and say so by one of BAD_VALUE."""

import datetime as dt
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from google.protobuf import any_pb2, struct_pb2, timestamp_pb2
from google.protobuf.descriptor_pool import Default, DescriptorPool

from streamlake.table.formats.protobuf import columns
from streamlake.table.formats.twin import BAD_VALUE


def pair(one: Any, other: Any = None) -> SimpleNamespace:
    return SimpleNamespace(f1=one, f2=other)


def test_enums_have_names_or_digits() -> None:
    build = columns.enums({0: "A", -5: "B"})
    assert build([0, -5, None, 7, -(2**31)]).to_pylist() == ["A", "B", None, "7", "-2147483648"]
    assert build([0, None]).to_pylist() == ["A", None]
    assert build([]).type == pa.large_string()


def test_unsigned_numbers_of_64_bits() -> None:
    assert columns.unsigned(pa.decimal128(20, 0))([2**64 - 1, None]).to_pylist() == [Decimal(2**64 - 1), None]


def test_timestamps() -> None:
    found = columns.timestamps([pair(-1, 999), pair(0, 999_999_999), None, pair(columns.SECONDS_MAX, 0)]).to_pylist()
    assert found[:3] == [dt.datetime(1969, 12, 31, 23, 59, 59, tzinfo=dt.UTC), dt.datetime(1970, 1, 1, 0, 0, 0, 999_999, tzinfo=dt.UTC), None]  # fmt: skip
    for bad in (pair(columns.SECONDS_MAX + 1, 0), pair(columns.SECONDS_MIN - 1, 0), pair(0, -1), pair(0, 10**9)):
        with pytest.raises(BAD_VALUE):
            columns.timestamps([bad])


def test_text_is_utf_8() -> None:
    assert columns.text([b"\xc3\xbc", None]).to_pylist() == ["ü", None]
    with pytest.raises(BAD_VALUE):
        columns.text([b"\xff"])


def test_maps_keep_the_last_of_each_key_at_the_place_of_the_first() -> None:
    type = pa.map_(pa.field("key", pa.large_string(), nullable=False), pa.int32())
    build = columns.maps(type, columns.text, columns.plain(pa.int32()))
    found = build([[pair(b"a", 1), pair(b"b", 2), pair(b"a", 3)], None, []])
    assert found.to_pylist() == [[("a", 3), ("b", 2)], None, []]


def test_lists_and_wrappers() -> None:
    build = columns.lists(pa.large_list(pa.field("element", pa.int32())), columns.wrappers(columns.plain(pa.int32())))
    assert build([[pair(1), pair(2)], None, []]).to_pylist() == [[1, 2], None, []]


def test_structs() -> None:
    class Message(SimpleNamespace):
        def HasField(self, name: str) -> bool:
            return name in self.has

    type = pa.struct([("#1", pa.int32()), ("#2", pa.int32())])
    plain = columns.plain(pa.int32())
    build = columns.structs(type, [("f1", True), ("f2", False)], [plain, plain])
    found = build([Message(f1=0, f2=0, has=()), None, Message(f1=0, f2=5, has=("f1",))]).to_pylist()
    assert found == [{"#1": None, "#2": 0}, None, {"#1": 0, "#2": 5}]


def test_json_texts() -> None:
    build = columns.json_texts(struct_pb2.Struct, DescriptorPool())
    tree = struct_pb2.Struct()
    tree.update({"b": 1, "a": ["ü", None, {"x": True}]})
    assert build([tree, None]).to_pylist() == ['{"a":["ü",null,{"x":true}],"b":1.0}', None]
    for number in (float("nan"), float("inf")):
        bad = struct_pb2.Struct()
        bad["x"] = number
        with pytest.raises(BAD_VALUE):
            build([bad])
    with pytest.raises(BAD_VALUE):
        build([SimpleNamespace(SerializeToString=lambda: b"\x0a\xff")])


def test_any_of_a_type_that_is_known_or_not() -> None:
    value = any_pb2.Any()
    value.Pack(timestamp_pb2.Timestamp(seconds=1))
    name = "type.googleapis.com/google.protobuf.Timestamp"
    assert columns.json_texts(any_pb2.Any, Default())([value]).to_pylist() == [
        f'{{"@type":"{name}","value":"1970-01-01T00:00:01Z"}}'
    ]
    assert columns.json_texts(any_pb2.Any, DescriptorPool())([value]).to_pylist() == [
        f'{{"@type":"{name}","value":"CAE="}}'
    ]
