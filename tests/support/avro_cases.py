"""Avro types with values for property tests: what is on the wire, and what a table must show.

Leaves are encoded and decoded by fastavro with their logical types (the oracle); composites are put together here, by
the Avro specification, because fastavro does not tell which branch of a union a value took.
"""

import itertools
import json
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from io import BytesIO
from typing import Any

import fastavro
from hypothesis import strategies as st


@dataclass(frozen=True)
class AvroCase:
    """`values` draws (bytes on the wire, what Arrow's as_py gives). `column` is False for a type without one."""

    schema: Any
    values: st.SearchStrategy[tuple[bytes, Any]]
    column: bool = True
    no_bytes: bool = False


def zigzag(number: int) -> bytes:
    out = BytesIO()
    fastavro.schemaless_writer(out, "long", number)
    return out.getvalue()


def leaf(schema: Any, values: st.SearchStrategy[Any]) -> AvroCase:
    def both(value: Any) -> tuple[bytes, Any]:
        parsed = fastavro.parse_schema(names(schema, itertools.count()))
        out = BytesIO()
        fastavro.schemaless_writer(out, parsed, value)
        return out.getvalue(), fastavro.schemaless_reader(BytesIO(out.getvalue()), parsed)

    return AvroCase(schema, values.map(both))


def names(schema: Any, counter: Any) -> Any:
    """The schema with a name for every named type."""
    if isinstance(schema, list):
        return [names(branch, counter) for branch in schema]
    if not isinstance(schema, dict):
        return schema
    named = dict(schema)
    if schema["type"] in ("record", "enum", "fixed"):
        named["name"] = f"N{next(counter)}"
    for key in ("items", "values"):
        if key in schema:
            named[key] = names(schema[key], counter)
    if "fields" in schema:
        named["fields"] = [{**field, "type": names(field["type"], counter)} for field in schema["fields"]]
    return named


def logical(type: str, name: str, **more: Any) -> dict[str, Any]:
    return {"type": type, "logicalType": name, **more}


_PLAIN_DATES = st.dates(date(1, 1, 1), date(9999, 12, 31))
_NAIVE = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30))
_MILLIS = _NAIVE.map(lambda d: d.replace(microsecond=d.microsecond // 1000 * 1000))
_TIMES = st.times()


def _decimals(precision: int, scale: int) -> st.SearchStrategy[Decimal]:
    most = 10**precision - 1
    return st.integers(-most, most).map(lambda n: Decimal((int(n < 0), tuple(map(int, str(abs(n)))), -scale)))


LEAVES = [
    leaf("boolean", st.booleans()),
    leaf("int", st.integers(-(2**31), 2**31 - 1)),
    leaf("long", st.integers(-(2**63), 2**63 - 1)),
    leaf("float", st.floats(width=32, allow_nan=False)),
    leaf("double", st.floats(allow_nan=False)),
    leaf("bytes", st.binary(max_size=20)),
    leaf("string", st.text(max_size=20)),
    leaf({"type": "fixed", "size": 3}, st.binary(min_size=3, max_size=3)),
    leaf({"type": "enum", "symbols": ["A", "B", "C"]}, st.sampled_from("ABC")),
    leaf(logical("int", "date"), _PLAIN_DATES),
    leaf(logical("int", "time-millis"), _TIMES.map(lambda t: t.replace(microsecond=t.microsecond // 1000 * 1000))),
    leaf(logical("long", "time-micros"), _TIMES),
    leaf(logical("long", "timestamp-millis"), _MILLIS.map(lambda d: d.replace(tzinfo=UTC))),
    leaf(logical("long", "timestamp-micros"), _NAIVE.map(lambda d: d.replace(tzinfo=UTC))),
    leaf(logical("long", "local-timestamp-millis"), _MILLIS),
    leaf(logical("long", "local-timestamp-micros"), _NAIVE),
    leaf(logical("bytes", "decimal", precision=20, scale=4), _decimals(20, 4)),
    leaf({"type": "fixed", "size": 8, "logicalType": "decimal", "precision": 10, "scale": 2}, _decimals(10, 2)),
    leaf(logical("string", "uuid"), st.uuids()),
]
NULL = AvroCase("null", st.just((b"", None)), column=False, no_bytes=True)


def array_of(item: AvroCase) -> AvroCase:
    def both(items: list[tuple[bytes, Any]]) -> tuple[bytes, Any]:
        block = zigzag(len(items)) + b"".join(wire for wire, _ in items) if items else b""
        return block + b"\0", [value for _, value in items]

    return AvroCase({"type": "array", "items": item.schema}, st.lists(item.values, max_size=3).map(both))


def map_of(item: AvroCase) -> AvroCase:
    def both(items: dict[str, tuple[bytes, Any]]) -> tuple[bytes, Any]:
        entries = b"".join(zigzag(len(k.encode())) + k.encode() + wire for k, (wire, _) in items.items())
        block = zigzag(len(items)) + entries if items else b""
        return block + b"\0", [(key, value) for key, (_, value) in items.items()]

    values = st.dictionaries(st.text(max_size=4), item.values, max_size=3).map(both)
    return AvroCase({"type": "map", "values": item.schema}, values)


def optional(item: AvroCase, null_first: bool) -> AvroCase:
    at = 1 if null_first else 0
    null = (zigzag(1 - at), None)
    values = st.just(null) | item.values.map(lambda found: (zigzag(at) + found[0], found[1]))
    return AvroCase(["null", item.schema] if null_first else [item.schema, "null"], values)


def union_of(branches: list[AvroCase]) -> AvroCase:
    """Branches are of different primitive types, so each is named by its type."""

    def branch(at: int) -> st.SearchStrategy[tuple[bytes, Any]]:
        def both(found: tuple[bytes, Any]) -> tuple[bytes, Any]:
            if not branches[at].column:
                return zigzag(at), None
            return zigzag(at) + found[0], {
                b.schema: found[1] if b is branches[at] else None for b in branches if b.column
            }

        return branches[at].values.map(both)

    return AvroCase([b.schema for b in branches], st.one_of([branch(at) for at in range(len(branches))]))


def record_of(fields: list[AvroCase]) -> AvroCase:
    def both(values: tuple[tuple[bytes, Any], ...]) -> tuple[bytes, Any]:
        shown = {f"f{i}": value for i, (_, value) in enumerate(values) if fields[i].column}
        return b"".join(wire for wire, _ in values), shown

    schema = {"type": "record", "fields": [{"name": f"f{i}", "type": f.schema} for i, f in enumerate(fields)]}
    return AvroCase(
        schema,
        st.tuples(*(f.values for f in fields)).map(both),
        column=any(f.column for f in fields),
        no_bytes=all(f.no_bytes for f in fields),
    )


_SIMPLE = [case for case in LEAVES if isinstance(case.schema, str)]


def _composite(children: st.SearchStrategy[AvroCase]) -> st.SearchStrategy[AvroCase]:
    data = children.filter(lambda case: case.column)
    return st.one_of(
        data.map(array_of),
        data.map(map_of),
        data.filter(lambda case: not isinstance(case.schema, list)).flatmap(
            lambda case: st.booleans().map(lambda first: optional(case, first))
        ),
        st.lists(st.sampled_from([*_SIMPLE, NULL]), min_size=3, max_size=4, unique_by=lambda c: c.schema).map(union_of),
        st.lists(children | st.just(NULL), max_size=4).map(record_of),
    )


_LEAVES = st.sampled_from(LEAVES)
TYPES = _composite(_LEAVES) | st.recursive(_LEAVES, _composite, max_leaves=6)
RECORDS = st.lists(_LEAVES | TYPES, min_size=1, max_size=4).map(record_of).filter(lambda case: case.column)


def schema_text(case: AvroCase) -> str:
    return json.dumps(names(case.schema, itertools.count()))
