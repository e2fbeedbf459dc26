"""What the registry takes a table takes as well, and shows the values that fastavro reads; what neither takes, Avro's
own implementations do not take either."""

import asyncio
import json
import random
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from io import BytesIO
from typing import Any
from uuid import UUID

import avro.schema
import fastavro
import pyarrow as pa
import pytest
from fastavro.schema import expand_schema
from hypothesis import given, settings
from hypothesis import strategies as st
from support.avro_dressed import DressedAvro, Usual
from support.avro_random import RandomAvro, sized, zigzag
from support.table_world import World

from streamlake.core.errors import Invalid
from streamlake.registry.avro.compatibility import incompatibilities
from streamlake.registry.avro.schema import parse_schema
from streamlake.registry.avro.types import LEVELS_MAX, understood
from streamlake.registry.levels import Level
from streamlake.table.formats.avro.convert import AvroReader
from streamlake.table.formats.avro.schema import AvroSchema, compile_schema
from streamlake.table.formats.converted import row_numbers

# docs/guides/types.md has these, and no others.
UNSUPPORTED = re.compile(
    r"contains itself|a (list of|map to) null or|more than Iceberg's 38 digits|at most 65536 bytes"
)
pytestmark = pytest.mark.filterwarnings("ignore::avro.errors.IgnoredLogicalType")  # also how Apache's parser says so
TWO_OF_ONE_NAME = (
    "has two types of one name"  # an array, and a record called array: Avro's Java says so, its Python not
)
HEADER = b"\0\0\0\0\1"
VALUES = 5


@given(st.integers(0, 2**64))
@settings(max_examples=400, deadline=None)
def test_a_schema_is_the_same_for_all(seed: int) -> None:
    agree(seed)


def test_many_schemas_get_that_far() -> None:
    ends = Counter(agree(seed) for seed in range(800))
    assert ends["rows"] > 400, ends
    assert ends["refused"] > 20, ends
    assert ends["unsupported"] > 20, ends


def agree(seed: int) -> str:
    schema = DressedAvro(random.Random(seed)).schema()
    try:
        text = parse_schema(json.dumps(schema))
    except Invalid as error:
        assert refused_by_others(schema) or TWO_OF_ONE_NAME in str(error), (str(error), schema)
        return "refused"
    assert parse_schema(text) == text
    assert incompatibilities(Level.FULL, text, [(1, text)]) == []
    try:
        compiled = compile_schema(text)
    except Invalid as error:
        assert UNSUPPORTED.search(str(error)), (str(error), schema)
        return "unsupported"
    if compiled.type is None:
        return "nothing"
    plain = understood(json.loads(text))
    written_out = expand_schema(plain)
    values = RandomAvro(Usual(seed))
    bodies = [values.value(written_out) for _ in range(VALUES)]
    read = [fastavro_reads(plain, body) for body in bodies]
    for form in (replace(compiled, native=None), compiled) if compiled.native else (compiled,):
        rows, ours = rows_of(form, bodies)
        for row, value in zip(rows, ours, strict=True):
            assert _text(value) == _text(shown(written_out, read[row])), (schema, bodies[row])
        assert len(rows) == VALUES or "decimal" in text, (schema, bodies)  # a byte may have more digits than it
    return "rows"


def refused_by_others(schema: Any) -> bool:
    """By Apache's parser, or by fastavro: what it says of logical types alone does not count."""
    plain = understood(schema)
    for parse in (lambda: avro.schema.parse(json.dumps(plain)), lambda: fastavro.parse_schema(plain)):
        try:
            parse()
        except Exception:
            return True
    return False


def fastavro_reads(plain: Any, body: bytes) -> Any:
    stream = BytesIO(body)
    found = fastavro.schemaless_reader(stream, plain, return_named_type=True)
    assert stream.tell() == len(body)
    return found


def rows_of(form: AvroSchema, bodies: list[bytes]) -> tuple[list[int], list[Any]]:
    column = pa.array([HEADER + body for body in bodies], pa.binary())
    (group,), errors, _ = AvroReader(form).read(column, row_numbers(len(bodies)), len(HEADER))
    group.values.validate(full=True)
    assert all("decimal" in message or "digits" in message for _, message in errors), errors
    return group.rows.to_pylist(), group.values.to_pylist()


def _text(value: Any) -> str:
    """NaN equals NaN, and UTC is UTC."""
    return repr(value).replace("zoneinfo.ZoneInfo(key='UTC')", "datetime.timezone.utc")


NOTHING = object()
KINDS = {type(None): "null", list: "array", int: "int", date: "int", time: "int", str: "string", UUID: "string"}


def shown(schema: Any, value: Any) -> Any:
    """What a table shows of a value that fastavro read; NOTHING if there is no column."""
    found = _shown(schema, value)
    return None if found is NOTHING else found


def _shown(schema: Any, value: Any) -> Any:
    if isinstance(schema, list):
        return _union(schema, value)
    kind = schema if isinstance(schema, str) else schema["type"]
    match kind:
        case "null":
            return NOTHING
        case "record":
            return _struct({f["name"]: (f["type"], value and value[f["name"]]) for f in schema["fields"]}, value)
        case "array":
            return None if value is None else [_shown(schema["items"], item) for item in value]
        case "map":
            return None if value is None else [(k, _shown(schema["values"], item)) for k, item in value.items()]
        case "fixed" if schema["size"] == 0:
            return NOTHING
        case "fixed" if schema.get("logicalType") == "uuid":
            return UUID(bytes=value) if value else None
    nanos = isinstance(schema, dict) and str(schema.get("logicalType")).endswith("nanos")
    if nanos and value is not None:
        local = schema["logicalType"].startswith("local")
        epoch = datetime(1970, 1, 1, tzinfo=None if local else UTC)
        return epoch + timedelta(microseconds=value // 1000)
    return value


def _struct(fields: dict[str, tuple[Any, Any]], value: Any) -> Any:
    children = {name: _shown(kind, child) for name, (kind, child) in fields.items()}
    kept = {name: child for name, child in children.items() if child is not NOTHING}
    if not kept:
        return NOTHING
    return None if value is None else kept


def _union(branches: list[Any], value: Any) -> Any:
    """fastavro names the branch if it is of a named type; Python's types tell the others of RandomAvro apart."""
    named, datum = value if isinstance(value, tuple) else (None, value)
    others = [branch for branch in branches if _name(branch) != "null"]
    if len(others) <= 1:
        return _shown(others[0], datum) if others else NOTHING
    taken = named or KINDS[type(datum)]
    return _struct(
        {_name(b): (b, datum if _name(b) == taken else None) for b in others}, None if taken == "null" else 1
    )


def _name(schema: Any) -> str:
    return schema if isinstance(schema, str) else schema.get("name") or schema["type"]


def _widest() -> Any:
    return {"type": "record", "name": "W", "fields": [_optional(f"f{n}", "long") for n in range(2_000)]}


def _deepest(*around: str) -> Any:
    deep: Any = "long"
    for n in range((LEVELS_MAX - 2) // sum(1 if kind == "record" else 2 for kind in around)):
        for kind in around:
            inside = {"record": {"name": f"D{n}", "fields": [_optional("x", deep)]}, "array": {"items": deep}}
            deep = {"type": kind, **inside.get(kind, {"values": deep})}
    return {"type": "record", "name": "Deepest", "fields": [_optional("x", deep)]}


def _optional(name: str, kind: Any) -> Any:
    return {"name": name, "type": ["null", kind], "default": None}


def _value(schema: Any) -> bytes:
    """The same everywhere: one item, the second branch."""
    if isinstance(schema, list):
        return zigzag(1) + _value(schema[1])
    match schema["type"] if isinstance(schema, dict) else schema:
        case "record":
            return b"".join(_value(field["type"]) for field in schema["fields"])
        case "array":
            return zigzag(1) + _value(schema["items"]) + zigzag(0)
        case "map":
            return zigzag(1) + sized(b"k") + _value(schema["values"]) + zigzag(0)
    return zigzag(5)


async def _as_rows(schema: Any) -> tuple[list[Any], list[Any]]:
    """What a table shows of three values, and fastavro."""
    world = World()
    world.registry.schemas[9] = parse_schema(json.dumps(schema))
    body = _value(schema)
    world.log.produce(0, [b"\0\0\0\0\x09" + body] * 3)
    await world.life().drain()
    world.check()
    read = fastavro.schemaless_reader(BytesIO(body), fastavro.parse_schema(schema))
    return world.load().scan().to_arrow().drop_columns("_kafka").to_pylist(), [read] * 3


@pytest.mark.parametrize(
    "schema",
    [_widest(), _deepest("record"), _deepest("array"), _deepest("map"), _deepest("record", "array", "map")],
    ids=["2,000 columns", "records", "lists", "maps", "mixed"],
)
def test_the_largest_schemas_become_tables(schema: Any) -> None:
    with ThreadPoolExecutor(1) as pool:  # pyiceberg recurses: as in a worker, not below all of pytest
        ours, theirs = pool.submit(asyncio.run, _as_rows(schema)).result()
    assert repr(ours).replace("[('k', ", "{'k': ").replace(")]", "}") == repr(theirs)
