"""The referee of the engines: SQL's rules, by hand."""

import math

import pytest
from engines.conditions import And, Compare, Condition, In, IsNaN, IsNull, Not, Or, StartsWith, holds

ROW = {"n": 1, "f": math.nan, "none": None, "word": "ü😀", "place": {"x": 2}}
YES, NO, UNKNOWN = Compare("n", "=", 1), Compare("n", "<>", 1), Compare("none", "=", 1)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (YES, True),
        (NO, False),
        (UNKNOWN, None),
        (Not(UNKNOWN), None),
        (And(UNKNOWN, NO), False),
        (And(UNKNOWN, YES), None),
        (Or(UNKNOWN, YES), True),
        (Or(UNKNOWN, NO), None),
        (IsNull("none"), True),
        (IsNull("place.y"), True),
        (Not(In("none", (1, 2))), None),
        (In("n", (1, 2)), True),
        (Compare("f", ">", 1e308), True),
        (Compare("f", "=", math.nan), True),
        (Compare("f", "<", 1.0), False),
        (IsNaN("f"), True),
        (IsNaN("none"), None),
        (Compare("word", ">", "\ue000"), False),
        (Compare("word", ">", "a"), True),
        (StartsWith("word", "ü"), True),
        (Compare("place.x", ">=", 2), True),
    ],
)
def test_what_a_condition_means(condition: Condition, expected: bool | None) -> None:
    assert holds(condition, ROW) is expected
