import json
from typing import Any

import pytest
from pyiceberg.types import BinaryType, DoubleType, LongType, StringType

from streamlake.table.formats.json.infer import KEY_CHARS_MAX, LEVELS_MAX, Inference
from streamlake.table.formats.json.native import Op, Plan
from streamlake.table.formats.source_schema import SourceField, SourceList, SourceMap, SourceStruct


def inferred(*records: Any, columns_max: int = 500, **known: Any) -> dict[str, Any]:
    found = Inference(known, columns_max)
    for record in records:
        found.learn(record if isinstance(record, bytes) else json.dumps(record).encode())
    return shown(found.plan())


def shown(plan: Plan) -> Any:
    if plan.op == Op.STRUCT:
        return {field.name: shown(field.plan) for field in plan.fields if field.name != "_rest"}
    return [shown(plan.child)] if plan.child is not None else plan.op.name


def test_the_first_value_that_is_not_null_decides() -> None:
    records = [{"a": None, "b": 1}, {"a": "x", "b": "x"}, {"a": 1, "c": 1.0, "d": True}]
    assert inferred(*records) == {"b": "LONG", "a": "TEXT", "c": "DOUBLE", "d": "BOOLEAN"}


def test_dates_are_not_guessed() -> None:
    assert inferred({"at": "2026-03-01T12:00:00Z"}) == {"at": "TEXT"}


def test_what_is_empty_waits() -> None:
    assert inferred({"a": {}, "b": [], "c": [None], "d": {"e": {}}, "f": [[]]}) == {}
    assert inferred({"a": {}, "b": []}, {"a": {"x": 1}, "b": [None, "y"]}) == {"a": {"x": "LONG"}, "b": ["TEXT"]}


def test_objects_and_lists_grow() -> None:
    records = [
        {"a": {"x": 1}, "l": [{"p": 1}, {"q": "x"}, 5]},
        {"a": {"y": {"z": 1.5}}, "l": [{"r": [1]}]},
        {"a": 5, "l": 5},
    ]
    assert inferred(*records) == {
        "a": {"x": "LONG", "y": {"z": "DOUBLE"}},
        "l": [{"p": "LONG", "q": "TEXT", "r": ["LONG"]}],
    }


def test_numbers_that_no_column_holds_wait() -> None:
    assert inferred({"a": 2**63}) == {}
    assert inferred({"a": 2**63}, {"a": 1}) == {"a": "LONG"}
    assert inferred(b'{"a":' + b"1" * 5_000 + b',"b":1}') == {"b": "LONG"}


def test_no_more_columns_than_allowed() -> None:
    found = Inference({}, 3)
    assert not found.is_full
    assert found.learn(b'{"a":{"b":1,"c":2,"d":3},"e":1}')
    assert found.is_full
    assert shown(found.plan()) == {"a": {"b": "LONG", "c": "LONG"}}
    assert not found.learn(b'{"f":1}')
    assert inferred({"a": 1}, columns_max=0) == {}


def test_no_deeper_than_allowed() -> None:
    record: Any = 1
    for _ in range(LEVELS_MAX + 1):
        record = {"a": record}
    found = shown(Inference({}, 500).plan())
    assert found == {}
    levels = 0
    found = inferred({"leaf": 1, **record}, record)
    while isinstance(found, dict) and "a" in found:
        found, levels = found["a"], levels + 1
    assert levels < LEVELS_MAX + 1
    flat = {"l": [1]}
    for _ in range(LEVELS_MAX - 2):
        flat = {"a": flat}  # type: ignore[dict-item]
    assert "LONG" in str(inferred(flat))


@pytest.mark.parametrize("key", ["", "x" * (KEY_CHARS_MAX + 1), "a\nb", "\x00", "_rest"])
def test_keys_that_are_no_names_get_no_column(key: str) -> None:
    found = Inference({}, 500)
    found.learn(json.dumps({key: 1, "a": 1}).encode())
    assert found.plan().type == SourceStruct(
        (SourceField("a", "a", LongType()), SourceField("_rest", "_rest", StringType()))
    )
    assert not found.learn(json.dumps({key: 1}).encode()), "it is not asked for again"


def test_only_the_outermost_rest_is_taken() -> None:
    assert inferred({"a": {"_rest": 1}})["a"] == {}  # `shown` leaves it out
    assert "_rest" in str(Inference({}, 5).plan())


@pytest.mark.parametrize("data", [b"", b"{", b"[1]", b"5", b"null", b"\xff", b'{"a":NaN', b"[" * 100_000])
def test_what_is_no_object_says_nothing(data: bytes) -> None:
    assert not Inference({}, 5).learn(data)


def test_the_columns_of_the_table_come_first() -> None:
    a = SourceStruct((SourceField("x", "x", DoubleType()),))
    known = {
        "a": a,
        "l": SourceList(StringType()),
        "m": SourceMap(StringType(), LongType()),
        "b": BinaryType(),
        "n": SourceList(BinaryType()),
    }
    assert inferred({"a": {"x": 1, "y": 1}, "l": [1], "m": {"k": 1}, "b": 1, "n": [1], "new": 1}, **known) == {
        "a": {"x": "DOUBLE", "y": "LONG"}, "l": ["TEXT"], "m": ["LONG"], "b": "REST", "n": "REST", "new": "LONG",
    }  # fmt: skip
    assert Inference(known, 5).is_full, "they count"
