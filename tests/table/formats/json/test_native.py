"""The kernel takes nothing that its twin refuses, and makes the same of what it takes."""

import random
import struct
from typing import Any

import pyarrow as pa
import pytest
from support.hostile import mutated
from support.json_random import NUMBERS, RandomJson
from support.kernel_twin import twin_and_kernel

from streamlake.table.formats.converted import row_numbers
from streamlake.table.formats.json import native
from streamlake.table.formats.json.convert import codec_of
from streamlake.table.formats.json.native import Op, Plan, PlanField

pytestmark = pytest.mark.skipif(native._kernel is None, reason="no C compiler")


def assert_same(twin: Any, kernel: Any, what: Any) -> None:
    assert twin[0] == kernel[0], what
    assert twin[2] == kernel[2], what
    assert twin[1].type == kernel[1].type
    # repr: of a negative zero as well. Equal values may differ in what lies under a null, so buffers are not compared.
    assert twin[1].equals(kernel[1]) and repr(twin[1].to_pylist()) == repr(kernel[1].to_pylist()), what


@pytest.mark.parametrize("rest", [False, True], ids=["schema", "rest"])
@pytest.mark.parametrize("seed", range(6))
def test_kernel_equals_twin(seed: int, rest: bool) -> None:
    rng = random.Random(seed)
    r = RandomJson(rng)
    alone = both = refused = 0
    for _ in range(40):
        plan = r.plan(rest)
        codec = codec_of(plan)
        bodies = [r.value(plan, rng.choice([0, 0.02, 0.2])) for _ in range(12)]
        bodies += [mutated(rng, body) for body in bodies]
        twin, kernel, taken = twin_and_kernel(codec, bodies)
        assert_same(twin, kernel, (seed, plan, bodies))
        alone += len(taken)
        both += len(twin[0])
        refused += len(twin[2])
    assert alone > 100 and both > alone and refused > 100, (alone, both, refused)


@pytest.mark.parametrize("op", [Op.LONG, Op.DOUBLE])
@pytest.mark.parametrize("rest", [False, True], ids=["schema", "rest"])
def test_numbers(op: Op, rest: bool) -> None:
    rng = random.Random(5)
    doubles = [repr(struct.unpack("<d", rng.randbytes(8))[0]) for _ in range(3_000)]
    longs = [str(rng.randint(-(2**65), 2**65) >> rng.randint(0, 60)) for _ in range(1_000)]
    mixed = [
        f"{rng.randint(0, 10 ** rng.randint(1, 25))}.{rng.randint(0, 10**9)}e{rng.randint(-30, 30)}"
        for _ in range(1_000)
    ]
    bodies = [
        f'{{"a":{text}}}'.encode()
        for text in [*doubles, *longs, *mixed, *NUMBERS]
        if text not in ("nan", "inf", "-inf")
    ]
    plan = Plan(Op.STRUCT, (PlanField("a", Plan(op)),), rest=rest)
    twin, kernel, taken = twin_and_kernel(codec_of(plan), bodies)
    assert_same(twin, kernel, op)
    if op == Op.DOUBLE and not rest:
        values = dict(zip(twin[0], twin[1].field(0).to_pylist(), strict=True))
        assert all(values[row] == float(bodies[row][5:-1]) for row in values)
        assert len(taken) > len(twin[0]) * 0.99


def test_a_value_that_is_refused_leaves_nothing_behind() -> None:
    fields = tuple(PlanField(name, plan) for name, plan in [
        ("n", Plan(Op.LONG)), ("s", Plan(Op.TEXT)), ("l", Plan(Op.LIST, child=Plan(Op.STRUCT, (PlanField("x", Plan(Op.BOOLEAN)),)))),
        ("m", Plan(Op.MAP, child=Plan(Op.DOUBLE))), ("j", Plan(Op.JSON)),
    ])  # fmt: skip
    good = b'{"n":1,"s":"a","l":[{"x":true},{}],"m":{"k":1.5},"j":[1, {}]}'
    for rest in (False, True):
        codec = codec_of(Plan(Op.STRUCT, fields, rest=rest))
        for end in range(len(good)):
            twin, kernel, taken = twin_and_kernel(codec, [good, good[:end], good])
            assert_same(twin, kernel, end)
            assert taken == [0, 2] == twin[0]


def test_keys_in_any_order_and_number() -> None:
    rng = random.Random(2)
    names = [f"k{n}" for n in range(500)]
    codec = codec_of(Plan(Op.STRUCT, tuple(PlanField(name, Plan(Op.LONG)) for name in names)))
    bodies = []
    for _ in range(5):
        rng.shuffle(names)
        bodies.append(("{" + ",".join(f'"{name}":{name[1:]}' for name in names) + "}").encode())
    twin, kernel, taken = twin_and_kernel(codec, bodies)
    assert_same(twin, kernel, "keys")
    assert taken == [0, 1, 2, 3, 4]
    assert kernel[1].to_pylist()[0] == {f"k{n}": n for n in range(500)}


def test_keys_with_escapes_and_byte_order_marks() -> None:
    for rest in (False, True):
        codec = codec_of(Plan(Op.STRUCT, (PlanField("ünï", Plan(Op.LONG)), PlanField('"', Plan(Op.LONG))), rest=rest))
        bodies = [
            b'{"\\u00fcn\\u00ef":1,"\\"":2}',
            b'\xef\xbb\xbf {"\xc3\xbcn\xc3\xaf":3}',
            b'{"\\ud800":1}',
            b'{"\\t":1}',
            b"\xef\xbb\xbf",
        ]
        twin, kernel, taken = twin_and_kernel(codec, bodies)
        assert_same(twin, kernel, rest)
        assert taken == [0, 1, 3]
        assert kernel[1].to_pylist()[0]["ünï"] == 1 and kernel[1].to_pylist()[1]["ünï"] == 3


def test_the_rest_has_the_shape_of_the_record() -> None:
    inner = Plan(
        Op.STRUCT, (PlanField("b", Plan(Op.LONG)), PlanField("c", Plan(Op.STRUCT, (PlanField("d", Plan(Op.TEXT)),))))
    )
    tags = Plan(Op.LIST, child=Plan(Op.STRUCT, (PlanField("t", Plan(Op.LONG)),)))
    codec = codec_of(Plan(Op.STRUCT, (PlanField("a", inner), PlanField("tags", tags)), rest=True))
    cases = [
        (b'{"a":{"b":1}}', None),
        (b'{"a":{"b":"x","c":{"d":1,"e": [ 1 ]},"f":2},"g":{}}', '{"a":{"b":"x","c":{"d":1,"e":[ 1 ]},"f":2},"g":{}}'),
        (b'{"a":5,"b":null,"tags":[{"t":1},{"t":1,"u":null}]}', '{"a":5}'),
        (b'{"tags":[{"t":1},{"u":2}],"a":{"c":{}}}', '{"tags":[{"t":1},{"u":2}]}'),
        (b'{"tags":[{"t":1},{"t":"x"}]}', '{"tags":[{"t":1},{"t":"x"}]}'),
        (b'{"x":1,"x":2}', '{"x":1,"x":2}'),
        (b'{"_rest":{"a":1}}', '{"_rest":{"a":1}}'),
    ]
    twin, kernel, taken = twin_and_kernel(codec, [body for body, _ in cases])
    assert_same(twin, kernel, "rest")
    assert taken == list(range(len(cases)))
    assert [row["_rest"] for row in kernel[1].to_pylist()] == [rest for _, rest in cases]
    assert kernel[1].to_pylist()[1]["a"] == {"b": None, "c": {"d": None}}
    assert [row["tags"] for row in kernel[1].to_pylist()] == [None, None, [{"t": 1}, {"t": 1}], None, None, None, None]


def test_rows_with_keys_that_might_have_columns() -> None:
    codec = codec_of(Plan(Op.STRUCT, (PlanField("a", Plan(Op.LONG)), PlanField("no", Plan(Op.REST))), rest=True))
    assert isinstance(codec.native, native.Compiled)
    bodies = [
        b'{"a":1}',
        b'{"a":"x"}',
        b'{"b":1}',
        b'{"b":null}',
        b'{"b":{ }}',
        b'{"b":[]}',
        b'{"b":[1]}',
        b'{"no":[1]}',
    ]
    found = codec.native.take(pa.array(bodies, pa.binary()), row_numbers(len(bodies)), 0)
    assert found.novel.to_pylist() == [2, 6]
