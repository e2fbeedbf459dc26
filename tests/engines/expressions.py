"""Conditions as expressions of Polars and Daft: both have Python's operators, `is_in`, `is_null` and `is_nan`."""

from collections.abc import Callable
from operator import eq, ge, gt, le, lt, ne
from typing import Any

from engines.conditions import And, Compare, Condition, In, IsNaN, IsNull, Not, Or, StartsWith

OPERATORS = {"=": eq, "<>": ne, "<": lt, "<=": le, ">": gt, ">=": ge}


def expression(
    condition: Condition,
    column: Callable[[str], Any],
    literal: Callable[[Any], Any],
    starts_with: Callable[[Any, str], Any],
) -> Any:
    def made(part: Condition) -> Any:
        match part:
            case Compare(path, operator, value):
                return OPERATORS[operator](column(path), literal(value))
            case In(path, values):
                return column(path).is_in(list(values))
            case IsNull(path):
                return column(path).is_null()
            case IsNaN(path):
                return column(path).is_nan()
            case StartsWith(path, prefix):
                return starts_with(column(path), prefix)
            case Not(inner):
                return ~made(inner)
            case And(left, right):
                return made(left) & made(right)
            case Or(left, right):
                return made(left) | made(right)
        raise ValueError(part)

    return made(condition)
