"""The kernel takes nothing that its twin refuses, and makes the same of what it takes."""

import json
import random
from dataclasses import replace

import pyarrow as pa
import pytest
from support.avro_random import LEAVES, RandomAvro, sized, zigzag
from support.hostile import mutated
from support.table_records import record

from streamlake.core.errors import Invalid
from streamlake.table.formats.avro import native as avro_native
from streamlake.table.formats.avro.convert import AvroReader
from streamlake.table.formats.avro.schema import compile_schema
from streamlake.table.formats.converted import row_numbers

pytestmark = pytest.mark.skipif(avro_native._kernel is None, reason="no C compiler")
HEADER = b"\0\0\0\0\1"


def twin_and_kernel(schema, bodies):
    """What each makes of values: (rows, values, errors); and the rows that the kernel took by itself."""
    compiled = compile_schema(json.dumps(schema))
    column = pa.array([b"", *(HEADER + body for body in bodies)], pa.binary()).slice(1)
    rows = row_numbers(len(bodies))
    results = []
    for form in (replace(compiled, native=None), compiled):
        (group,), errors, _ = AvroReader(form).read(column, rows, len(HEADER))
        group.values.validate(full=True)
        results.append((group.rows.to_pylist(), group.values, sorted(errors)))
    taken, refused, values = compiled.native.read(column, rows, len(HEADER))
    values.validate(full=True)
    assert sorted(taken.to_pylist() + refused.to_pylist()) == rows.to_pylist()
    return *results, taken.to_pylist()


def assert_same(twin, kernel, what) -> None:
    assert twin[0] == kernel[0], what
    assert twin[2] == kernel[2], what
    assert twin[1].type == kernel[1].type
    # NaNs are equal here. Equal values may differ in what lies under a null, so buffers are not compared.
    assert twin[1].equals(kernel[1]) or repr(twin[1].to_pylist()) == repr(kernel[1].to_pylist()), what


def usable_schema(rng: random.Random):
    while True:
        schema = RandomAvro(rng).schema()
        try:
            if compile_schema(json.dumps(schema)).native is not None:
                return schema
        except Invalid:
            continue


@pytest.mark.parametrize("seed", range(8))
def test_kernel_equals_twin(seed: int) -> None:
    rng = random.Random(seed)
    alone = both = refused = 0
    for _ in range(60):
        schema = usable_schema(rng)
        values = RandomAvro(rng)
        bodies = [values.value(schema) for _ in range(20)]
        bodies += [mutated(rng, body) for body in bodies]
        twin, kernel, taken = twin_and_kernel(schema, bodies)
        assert set(taken) <= set(twin[0]), (schema, bodies)
        assert_same(twin, kernel, (schema, bodies))
        alone, both, refused = alone + len(taken), both + len(twin[0]), refused + len(twin[2])
    assert refused > 300
    assert alone > 0.9 * both  # the twin is needed for odd values only


@pytest.mark.parametrize("schema", LEAVES, ids=str)
def test_every_leaf_at_its_edges(schema) -> None:
    rng = random.Random(str(schema))
    schema = {**schema, "name": "N"} if isinstance(schema, dict) else schema
    for form in (schema, ["null", schema], record(("a", schema), ("b", "int"))):
        bodies = [RandomAvro(rng).value(form) for _ in range(200)]
        bodies += [body[:n] for body in bodies[:20] for n in range(len(body))]
        twin, kernel, _ = twin_and_kernel(form, bodies)
        assert_same(twin, kernel, form)


def test_a_refused_value_leaves_no_trace() -> None:
    """Refused at the last byte, after every kind of column has grown."""
    schema = record(
        ("union", ["null", "int", record(("a", "string"), name="A")]),
        ("list", {"type": "array", "items": ["null", {"type": "map", "values": "boolean"}]}),
        ("bools", {"type": "array", "items": ["null", "boolean"]}),
        ("decimal", {"type": "bytes", "logicalType": "decimal", "precision": 4}),
        ("text", ["null", "string"]),
        ("last", "boolean"),
    )
    rng = random.Random(1)
    good = [RandomAvro(rng).value(schema) for _ in range(400)]
    bad = [body[:-1] for body in good]
    twin, kernel, taken = twin_and_kernel(schema, [body for pair in zip(good, bad, strict=True) for body in pair])
    assert_same(twin, kernel, schema)
    assert len(taken) > 150
    assert len(twin[2]) >= 400


def test_decimals_longer_than_their_numbers() -> None:
    schema = {"type": "bytes", "logicalType": "decimal", "precision": 38}
    short = [
        b"",
        b"\0" * 40 + b"\5",
        b"\xff" * 40 + b"\x80",
        (10**38 - 1).to_bytes(30, "big"),
        (1 - 10**38).to_bytes(16, "big", signed=True),
    ]
    long = [
        b"\0" + b"\xff" * 16,
        b"\xff" + b"\0" * 16,
        b"\1" + b"\0" * 16,
        (10**38).to_bytes(16, "big"),
        (-(10**38)).to_bytes(17, "big", signed=True),
    ]
    twin, kernel, taken = twin_and_kernel(schema, [sized(number) for number in short + long])
    assert_same(twin, kernel, schema)
    assert twin[0] == taken == [0, 1, 2, 3, 4]


def test_maps_of_many_keys_and_double_keys() -> None:
    schema = {"type": "map", "values": "int"}

    def body(keys) -> bytes:
        entries = b"".join(sized(key) + zigzag(n) for n, key in enumerate(keys))
        return zigzag(len(keys)) + entries + b"\0" if keys else b"\0"

    many = [b"key-%d" % n for n in range(3_000)]
    bodies = [
        body(keys)
        for keys in ([], [b"a", b"b", b"a"], many, [*many, b"key-7"], [b"", b""], [b"a" * n for n in range(20)])
    ]
    twin, kernel, taken = twin_and_kernel(schema, bodies)
    assert_same(twin, kernel, schema)
    assert taken == [0, 2, 5]
    assert len(twin[0]) == len(bodies)


def test_more_values_than_the_sample_that_buffers_are_sized_by() -> None:
    schema = record(("a", "string"), ("b", {"type": "array", "items": "long"}))
    bodies = [
        sized(b"s" * (n % 50 * (n > 500))) + zigzag(n % 5) + b"\2" * (n % 5) + b"\0" * (n % 5 > 0) for n in range(3_000)
    ]
    twin, kernel, taken = twin_and_kernel(schema, bodies)
    assert_same(twin, kernel, schema)
    assert len(taken) == 3_000


def test_wide_and_deep_schemas() -> None:
    wide = record(*((f"f{n}", ["null", "int"]) for n in range(1_600)))
    twin, kernel, taken = twin_and_kernel(wide, [b"\0" * 1_600, b"\2\2" * 1_600, b"\2\2" * 1_599])
    assert_same(twin, kernel, "wide")
    assert taken == [0, 1]
    deep: object = "int"
    for _ in range(30):  # a list is two levels of 64
        deep = {"type": "array", "items": deep}
    twin, kernel, taken = twin_and_kernel(deep, [b"\2" * 30 + b"\6" + b"\0" * 30, b"\2" * 30, b"\0"])
    assert_same(twin, kernel, "deep")
    assert taken == [0, 2]
