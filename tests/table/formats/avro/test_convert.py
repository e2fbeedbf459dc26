"""Avro values come out as fastavro reads them, and bad bytes hurt their own row only."""

import json

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.avro_cases import LEAVES, TYPES, schema_text
from support.table_records import Registry, record, wire

from streamlake.table.formats import by_schema_id, twin
from streamlake.table.formats.converted import Reason
from streamlake.table.formats.resolve import SchemaCache

SLOW_START = settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=40)
POINT = record(("x", "int"), ("s", ["null", "string"]))


def convert(values, schemas):
    return by_schema_id.convert(pa.array(values, pa.binary()), Reason.INVALID_VALUE, SchemaCache(Registry(schemas)))


def by_row(converted) -> dict[int, object]:
    return {
        row: value
        for group in converted.groups
        for row, value in zip(group.rows.to_pylist(), group.values.to_pylist(), strict=True)
    }


@pytest.mark.parametrize("case", LEAVES, ids=lambda case: str(case.schema))
@SLOW_START
@given(data=st.data())
def test_leaves_equal_the_oracle(case, data) -> None:
    values = data.draw(st.lists(case.values, min_size=1, max_size=8))
    converted = convert([b"\0\0\0\0\1" + wire for wire, _ in values], {1: schema_text(case)})
    assert converted.errors == ()
    assert list(by_row(converted).values()) == [value for _, value in values]


@SLOW_START
@given(TYPES.flatmap(lambda case: st.tuples(st.just(case), st.lists(case.values | st.none(), max_size=5))))
def test_values_equal_the_oracle(case_and_values) -> None:
    case, values = case_and_values
    converted = convert([v and b"\0\0\0\0\1" + v[0] for v in values], {1: schema_text(case)})
    assert converted.errors == ()
    assert by_row(converted) == {i: v[1] if case.column else None for i, v in enumerate(values) if v is not None}


@SLOW_START
@given(TYPES.flatmap(lambda case: st.tuples(st.just(case), case.values)), st.data())
def test_bytes_from_anywhere_never_spoil_a_neighbour(case_and_value, data) -> None:
    case, (body, shown) = case_and_value
    cut = st.integers(0, len(body)).map(lambda n: body[:n])
    flipped = st.tuples(st.integers(0, max(0, len(body) - 1)), st.integers(1, 255)).map(
        lambda at: bytes(b ^ at[1] if i == at[0] else b for i, b in enumerate(body))
    )
    foreign = data.draw(st.lists(cut | flipped | st.binary(max_size=30), max_size=4))
    values = [b"\0\0\0\0\1" + b for b in (body, *foreign, body)]
    converted = convert(values, {1: schema_text(case)})
    found = by_row(converted)
    assert found[0] == found[len(values) - 1] == (shown if case.column else None)
    assert found.keys() | {e.row for e in converted.errors} == set(range(len(values)))
    assert not found.keys() & {e.row for e in converted.errors}


def test_chunks_join_and_keep_their_order(monkeypatch) -> None:
    monkeypatch.setattr(twin, "CHUNK_ROWS", 3)
    monkeypatch.setattr(twin, "CHUNK_BYTES", 20)
    values = [wire(1, POINT, {"x": i, "s": "a" * (i * 5 % 17)}) for i in range(20)]
    values[11] = values[11] + b"!"
    assert [v["x"] for v in by_row(convert(values, {1: POINT})).values()] == [i for i in range(20) if i != 11]


def test_a_claim_of_many_items_ends_with_the_value() -> None:
    schema = {"type": "array", "items": "boolean"}
    converted = convert([b"\0\0\0\0\1" + b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01" + b"\1"], {1: schema})
    assert [e.reason for e in converted.errors] == [Reason.INVALID_VALUE]


def test_enum_symbols_out_of_bounds_are_bad() -> None:
    schema = {"type": "enum", "name": "E", "symbols": ["A", "B"]}
    converted = convert([b"\0\0\0\0\1" + b for b in (b"\0", b"\1", b"\2", b"\4")], {1: json.dumps(schema)})
    assert by_row(converted) == {0: "A", 2: "B"}
