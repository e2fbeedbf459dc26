"""JSON: schemas that clients register or other registries send, values that claim to be of one, and plain values.

A value is read by the kernel and by its twin. Of plain values nothing is lost: columns and rest together are the record.
"""

import json
import random
from dataclasses import replace
from typing import Any

import pyarrow as pa
from fuzz.avro_targets import DICTIONARY, same
from fuzz.target import MIB, Target
from support import json_cases
from support.json_random import RandomJson

from streamlake.core.errors import Invalid
from streamlake.registry.json_schema.compatibility import incompatibilities
from streamlake.registry.json_schema.documents import Documents, decode
from streamlake.registry.json_schema.schema import parse_schema
from streamlake.registry.levels import Level
from streamlake.registry.port import Document
from streamlake.table.formats.converted import Converted, Reason, row_errors, row_numbers
from streamlake.table.formats.json.convert import codec_of
from streamlake.table.formats.json.infer import Inference
from streamlake.table.formats.json.plain import converter
from streamlake.table.formats.json.schema import plan_of
from streamlake.table.formats.port import ValueReader

PLANS = [RandomJson(random.Random(seed)).plan(rest=seed % 2 == 1) for seed in range(12)]
PLANS.append(plan_of(Documents(json_cases.schema(), {})))
CODECS = [codec_of(plan) for plan in PLANS]
TWINS = [replace(codec, native=None) for codec in CODECS]
TOKENS = (
    *DICTIONARY, b"{", b"}", b"[", b"]", b":", b",", b'"', b"\\", b"\\u0000", b"\\ud83d\\ude00", b"\\ud800", b"null", b"true",
    b"false", b"1e999", b"-0.0", b"9223372036854775808", b"NaN", b"\xef\xbb\xbf", b"\xed\xa0\x80", b'{"a":', b"[[[[[[[[[[[[[[[[",
    b"$ref", b'"$ref":"#"', b"$id", b"$schema", b"properties", b"additionalProperties", b"allOf", b"oneOf", b"items", b"enum",
    b"const", b"type", b"definitions", b"patternProperties", b"http://json-schema.org/draft-04/schema#", b"(a+)+$",
)  # fmt: skip


def value_seeds() -> list[bytes]:
    """The number of a plan, and a value of it."""
    rng = random.Random(3)
    r = RandomJson(rng)
    return [bytes([n]) + r.value(plan, errors) for n, plan in enumerate(PLANS) for errors in (0, 0, 0.1, 0.3)]


def _converted(codec: Any, column: Any) -> Converted:
    group, errors = codec.read(column, row_numbers(len(column)), 0)
    return Converted(
        (group,), tuple(error for row, why in errors for error in row_errors([row], Reason.INVALID_VALUE, why))
    )


def check_value(data: bytes) -> None:
    """One bad value is one error of its row, and never spoils its neighbours."""
    number = data[0] % len(PLANS) if data else 0
    column = pa.array([data[1:], b"{}", data[1:]], pa.binary())
    found = _converted(CODECS[number], column)
    same(found, _converted(TWINS[number], column))
    rows = [row for group in found.groups for row in group.rows.to_pylist()]
    assert sorted(rows + [error.row for error in found.errors]) == [0, 1, 2]
    assert (0 in rows) == (2 in rows)


class _NoSchemas:
    def get(self, schema_id: int) -> ValueReader:
        raise AssertionError("nobody asks")


def plain_seeds() -> list[bytes]:
    """Values by line."""
    rng = random.Random(5)
    r = RandomJson(rng)
    lines = [b"\n".join(r.value(r.plan(rest=True), 0.1).replace(b"\n", b" ") for _ in range(3)) for _ in range(40)]
    return [*lines, json.dumps(json_cases.plain_value()).encode(), b'{"\\ud800":1,"a":{"\\udc00":2}}']


def check_plain(data: bytes) -> None:
    values = data.split(b"\n")[:20]
    found = converter(Inference({}, 20))(pa.array(values, pa.binary()), Reason.INVALID_VALUE, _NoSchemas())
    dead = {error.row for error in found.errors}
    rows = {}
    for group in found.groups:
        group.values.validate(full=True)
        rows |= zip(group.rows.to_pylist(), group.values.to_pylist(), strict=True)
    assert dead | rows.keys() == set(range(len(values))) and not dead & rows.keys()
    for at, row in rows.items():
        rest = json.loads(row.pop("_rest") or "{}", parse_int=_whole)
        record = json.loads(values[at].decode().removeprefix("\ufeff"), parse_int=_whole)
        _assert_whole(record, row, rest)


def _whole(text: str) -> int | str:
    """Python refuses to read more digits."""
    return int(text) if len(text) < 4_000 else text


def _assert_whole(record: dict[str, Any], row: Any, rest: Any) -> None:
    """Every value of a record that is not null is in its column or in the rest."""
    for key, value in record.items():
        column = (row or {}).get(key)
        if isinstance(value, dict) and isinstance(column, dict):
            below = rest.get(key) if isinstance(rest.get(key), dict) else {}
            _assert_whole(value, column, below)
        elif value is not None and key in rest:
            assert rest[key] == value
        elif value is not None:
            assert _without_nulls(column) == _without_nulls(value), (key, value, column, rest)


def _without_nulls(value: Any) -> Any:
    """A struct has all keys."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def schema_seeds() -> list[bytes]:
    cases = [
        {"definitions": json_cases.DEFINITIONS, **case.schema} for case in json_cases.CASES if case.schema is not False
    ]
    return [json.dumps(each).encode() for each in [json_cases.schema(), *cases, True]]


def check_schema(data: bytes) -> None:
    """A schema is refused, or can be compared, and a table can hold its values or says why not."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        parsed = parse_schema(text, {})
    except Invalid:
        return
    parse_schema(parsed.canonical, {})
    document = Document(text)
    try:
        assert incompatibilities(Level.FULL_TRANSITIVE, document, [(1, document)]) == []
    except Invalid as error:
        assert "too" in str(error)
    try:
        codec = codec_of(plan_of(Documents(decode(text), {})))
    except Invalid:
        return
    group, _ = codec.read(pa.array([b"{}", b"null"], pa.binary()), row_numbers(2), 0)
    assert len(group.rows) <= 2


TARGETS = [
    Target("json value", value_seeds, check_value, TOKENS, memory_factor=3000),
    Target("json plain", plain_seeds, check_plain, TOKENS, memory_factor=3000),
    Target("json schema", schema_seeds, check_schema, TOKENS, memory_bytes=64 * MIB, memory_factor=3000),
]
