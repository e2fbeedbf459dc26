"""Conditions on rows, as every engine can be asked them, and what they mean.

`holds` follows SQL: a comparison with null is unknown, and only rows of which a condition is true are in an answer. NaN
is equal to itself and greater than every number, as in Java, Spark, DuckDB and PostgreSQL.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Operator = Literal["=", "<>", "<", "<=", ">", ">="]


@dataclass(frozen=True)
class Compare:
    column: str  # dots name fields of structs
    operator: Operator
    value: Any


@dataclass(frozen=True)
class In:
    column: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class IsNull:
    column: str


@dataclass(frozen=True)
class IsNaN:
    column: str


@dataclass(frozen=True)
class StartsWith:
    column: str
    prefix: str


@dataclass(frozen=True)
class Not:
    condition: "Condition"


@dataclass(frozen=True)
class And:
    left: "Condition"
    right: "Condition"


@dataclass(frozen=True)
class Or:
    left: "Condition"
    right: "Condition"


Condition = Compare | In | IsNull | IsNaN | StartsWith | Not | And | Or


def value_at(row: Mapping[str, Any], column: str) -> Any:
    found: Any = row
    for name in column.split("."):
        if found is None:
            return None
        found = found.get(name)  # a struct of an older schema has fewer fields
    return found


def holds(condition: Condition, row: Mapping[str, Any]) -> bool | None:
    """None is unknown."""
    match condition:
        case Not(inner):
            found = holds(inner, row)
            return None if found is None else not found
        case And(left, right):
            both = holds(left, row), holds(right, row)
            return False if False in both else None if None in both else True
        case Or(left, right):
            both = holds(left, row), holds(right, row)
            return True if True in both else None if None in both else False
        case IsNull(column):
            return value_at(row, column) is None
    value = value_at(row, condition.column)
    if value is None:
        return None
    match condition:
        case IsNaN():
            return math.isnan(value)
        case StartsWith(_, prefix):
            return bool(value.startswith(prefix))
        case In(_, values):
            return value in values
        case Compare(_, operator, other):
            return _compare(_order(value), operator, _order(other))
    raise ValueError(condition)


def _compare(value: Any, operator: Operator, other: Any) -> bool:
    return {
        "=": value == other,
        "<>": value != other,
        "<": value < other,
        "<=": value <= other,
        ">": value > other,
        ">=": value >= other,
    }[operator]


def _order(value: Any) -> Any:
    """Of the same order as SQL's values: text by its UTF-8, NaN last."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, float):
        return math.isnan(value), 0.0 if math.isnan(value) else value
    return value
