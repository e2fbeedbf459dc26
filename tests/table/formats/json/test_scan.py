"""Each kind of odd JSON, and what becomes of it: with a schema, and without."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlake.table.formats.json.native import Op, Plan, PlanField
from streamlake.table.formats.json.scan import decoder
from streamlake.table.formats.twin import Undecodable

FIELDS = tuple(PlanField(op.name.lower(), Plan(op)) for op in (Op.LONG, Op.DOUBLE, Op.TEXT, Op.BOOLEAN, Op.JSON))
strictly = decoder(Plan(Op.STRUCT, FIELDS))
with_rest = decoder(Plan(Op.STRUCT, FIELDS, rest=True))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "there is no JSON value in it"),
        (" \n", "there is no JSON value in it"),
        ("{", "not JSON: "),
        ('{"long":1}{"long":2}', "not one JSON value: after it comes '{\"long\":2}'"),
        ('{"long":NaN}', "NaN is no JSON"),
        ('{"x":[-Infinity]}', "-Infinity is no JSON"),
        ('{"long":01}', "not JSON: "),
        ('{"text":"a\nb"}', "not JSON: Invalid control character"),
        ('{"x":"\\x"}', "not JSON: "),
        ("[" * 100_000, "nested too deeply"),
        ('{"x":' * 5_000 + "1" + "}" * 5_000, "nested too deeply"),
        ("\ufeff", "there is no JSON value in it"),
        ("\ufeff\ufeff{}", "not JSON: "),
    ],
)  # fmt: skip
def test_what_is_no_value(text: str, why: str) -> None:
    for decode in (strictly, with_rest):
        with pytest.raises(Undecodable, match=r".*") as raised:
            decode(text.encode())
        assert why in str(raised.value)


def test_bytes_that_are_no_text() -> None:
    for data in (b'{"x":"\xff"}', b"\xed\xa0\x80", b"\xff\xfe{\0}\0"):
        with pytest.raises(Undecodable, match="not UTF-8 text"):
            strictly(data)


@pytest.mark.parametrize("text", ["null", "1", '"x"', "[]", "[{}]", "true"])
def test_without_a_schema_only_objects_are_values(text: str) -> None:
    with pytest.raises(Undecodable, match="is not a JSON object"):
        with_rest(text.encode())


def test_a_byte_order_mark_is_skipped() -> None:
    assert strictly(b'\xef\xbb\xbf{"long":1}')["long"] == 1


def test_of_a_key_that_comes_twice_the_last_counts() -> None:
    assert strictly(b'{"long":1,"long":2,"text":"a"}') == {"long": 2, "text": "a"}
    assert strictly(b'{"long":"x","long":2}') == {"long": 2}
    assert with_rest(b'{"long":1,"long":"x"}') == {"_rest": '{"long":"x"}'}


MISFITS = [
    ("long", "9223372036854775808", "an integer of 64 bits"),
    ("long", "-9223372036854775809", "an integer of 64 bits"),
    ("long", "1" * 5_000, "an integer of 64 bits"),
    ("long", "1.5", "an integer of 64 bits"),
    ("long", "1e400", "an integer of 64 bits"),
    ("long", "9007199254740992.0", "an integer of 64 bits"),
    ("long", "true", "an integer of 64 bits"),
    ("long", '"1"', "an integer of 64 bits"),
    ("double", "1e309", "a number that a double holds"),
    ("double", '"NaN"', "a number that a double holds"),
    ("text", "1", "a text"),
    ("text", '"\\ud800"', "a text"),
    ("text", '"\\udc00\\ud800"', "a text"),
    ("boolean", "0", "a boolean"),
    ("boolean", '"true"', "a boolean"),
]


@pytest.mark.parametrize(("key", "value", "what"), MISFITS)
def test_values_that_do_not_fit_their_column(key: str, value: str, what: str) -> None:
    body = f'{{"{key}": {value}}}'.encode()
    with pytest.raises(Undecodable) as raised:
        strictly(body)
    assert str(raised.value).startswith(f"{key} is ") and str(raised.value).endswith(f", not {what}")
    assert with_rest(body) == {"_rest": f'{{"{key}":{value}}}'}


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("long", "-9223372036854775808", -(2**63)),
        ("long", "1.0", 1),
        ("long", "1e3", 1000),
        ("long", "-0", 0),
        ("double", "1", 1.0),
        ("double", "5e-324", 5e-324),
        ("text", '"\\ud83d\\ude00"', "😀"),
        ("text", '"\\u0000"', "\0"),
        ("json", '{"a" : [ 1.00, null]}', '{"a" : [ 1.00, null]}'),
        ("json", "1" * 5_000, "1" * 5_000),
        ("json", '"\\ud800"', '"\\ud800"'),
        ("long", "null", None),
    ],
)  # fmt: skip
def test_values_that_fit(key: str, text: str, value: Any) -> None:
    body = f'{{"{key}":{text}}}'.encode()
    assert strictly(body) == {key: value}
    assert with_rest(body) == {key: value, "_rest": None}


def test_whole_numbers_that_a_double_would_round() -> None:
    body = b'{"double":9007199254740993}'
    assert strictly(body) == {"double": 9007199254740992.0}, "JSON Schema's numbers are doubles"
    assert with_rest(body) == {"_rest": '{"double":9007199254740993}'}, "but nothing is lost without one"
    assert with_rest(b'{"double":9007199254740992}')["double"] == 2.0**53


def test_keys_of_maps_are_text() -> None:
    decode = decoder(Plan(Op.MAP, child=Plan(Op.LONG)))
    assert decode(b'{"a":1,"a":2,"":3}') == [("a", 2), ("", 3)]
    with pytest.raises(Undecodable, match="half of a surrogate pair"):
        decode(b'{"\\ud800":1}')
    with pytest.raises(Undecodable, match=r"^a is '\"x\"', not an integer"):
        decode(b'{"a":"x"}')


leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
trees = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=8
)


@given(st.dictionaries(st.sampled_from([*(field.name for field in FIELDS), "more", "_rest"]), trees))
@settings(max_examples=300, deadline=None)
def test_nothing_is_lost(record: dict[str, Any]) -> None:
    """Columns and rest together are the record, but for its nulls and for the spelling of numbers."""
    row = with_rest(json.dumps(record).encode("utf-8", "surrogatepass"))
    rest = json.loads(row.pop("_rest") or "{}")
    if isinstance(row.get("json"), str):
        row["json"] = json.loads(row["json"])
    found = {key: value for key, value in (row | rest).items() if value is not None}
    assert found == {key: value for key, value in record.items() if value is not None}
    assert not {key for key, value in row.items() if value is not None} & rest.keys()
