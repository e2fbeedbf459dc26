"""The wire format: five bytes before a value name its schema, and whatever is wrong hurts its own row only."""

import pyarrow as pa
import pytest
from support.table_records import Registry, record, wire

from streamlake.core.errors import Invalid, Unavailable
from streamlake.table.formats import by_schema_id
from streamlake.table.formats.by_schema_id import schema_id
from streamlake.table.formats.converted import Reason
from streamlake.table.formats.resolve import SchemaCache

POINT = record(("x", "int"), ("s", ["null", "string"]))


def convert(values, schemas):
    return by_schema_id.convert(pa.array(values, pa.binary()), Reason.INVALID_VALUE, SchemaCache(Registry(schemas)))


def by_row(converted) -> dict[int, object]:
    return {
        row: value
        for group in converted.groups
        for row, value in zip(group.rows.to_pylist(), group.values.to_pylist(), strict=True)
    }


def test_header() -> None:
    assert schema_id(b"\0\0\0\1\2") == 258
    with pytest.raises(Invalid, match="too short"):
        schema_id(b"\0\0\0\1")
    with pytest.raises(Invalid, match="0x7b"):
        schema_id(b'{"a":')


def test_every_kind_of_bad_value_has_its_reason() -> None:
    good = wire(1, POINT, {"x": 7, "s": "a"})
    values = [
        good,
        None,  # a tombstone is no error
        b'{"x": 7}',
        b"\0\0\0",
        b"",
        good + b"\0",
        good[:-1],
        b"\0\0\0\0\1" + b"\x0e\x02\x04\xff\xfe",  # not UTF-8
        b"\0\0\0\0\1" + b"\xfe\xff\xff\xff\x7f\x00",  # an int of 34 bits
        wire(9, POINT, {"x": 7, "s": "a"}),
        wire(2, "int", 3),
        good,
    ]
    converted = convert(values, {1: POINT, 2: "{}"})
    assert by_row(converted) == {0: {"x": 7, "s": "a"}, 11: {"x": 7, "s": "a"}}
    reasons = {e.row: e.reason for e in converted.errors}
    assert reasons == {
        **dict.fromkeys((2, 3, 4, 5, 6, 7, 8), Reason.INVALID_VALUE),
        9: Reason.UNKNOWN_SCHEMA,
        10: Reason.UNSUPPORTED_SCHEMA,
    }
    messages = {e.row: e.message for e in converted.errors}
    assert "0x7b" in messages[2]
    assert "1 bytes are left over" in messages[5]
    assert "schema 9" in messages[9]


def test_groups_by_schema_and_empty_groups() -> None:
    other = record(("y", "long"))
    values = [
        wire(1, POINT, {"x": 1, "s": None}),
        wire(2, other, {"y": 2}),
        wire(1, POINT, {"x": 3, "s": None}),
        b"\0\0\0\0\2",
    ]
    converted = convert(values, {1: POINT, 2: other})
    assert [group.rows.to_pylist() for group in converted.groups] == [[0, 2], [1]]
    (only,) = convert([b"\0\0\0\0\2"], {2: other}).groups
    assert (only.rows.to_pylist(), only.values.to_pylist()) == ([], [])


def test_a_registry_that_is_down_judges_nobody() -> None:
    registry = Registry({1: POINT})
    registry.down = Unavailable("down")
    with pytest.raises(Unavailable):
        by_schema_id.convert(pa.array([b"\0\0\0\0\1"], pa.binary()), Reason.INVALID_VALUE, SchemaCache(registry))


def test_a_registry_that_says_it_is_no_avro_schema() -> None:
    registry = Registry()
    registry.down = Invalid("schema 1 is PROTOBUF")
    converted = by_schema_id.convert(
        pa.array([b"\0\0\0\0\1"], pa.binary()), Reason.INVALID_VALUE, SchemaCache(registry)
    )
    assert [(e.reason, e.message) for e in converted.errors] == [
        (Reason.UNSUPPORTED_SCHEMA, "schema 1: schema 1 is PROTOBUF")
    ]
