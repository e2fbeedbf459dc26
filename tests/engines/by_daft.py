"""Daft: it takes PyIceberg's table, and reads the files by itself."""

from functools import reduce
from operator import eq, ge, gt, le, lt, ne
from typing import Any

import daft
from engines.by_pyiceberg import ByRest
from engines.conditions import And, Compare, Condition, In, IsNaN, IsNull, Not, Or, StartsWith
from engines.engine import Engine, Lake, rows_of
from engines.queries import Ask

OPERATORS = {"=": eq, "<>": ne, "<": lt, "<=": le, ">": gt, ">=": ge}


class Daft(Engine):
    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        self.pyiceberg = ByRest(lake)

    def answer(self, ask: Ask) -> list[tuple[Any, ...]]:
        table = self.pyiceberg.table(ask.topic.name)
        frame = daft.read_iceberg(table, snapshot_id=self.lake.snapshot(table, ask.batches) if ask.batches else None)
        if ask.where:
            frame = frame.where(expression(ask.where))
        if ask.count:
            return [(frame.count_rows(),)]
        return rows_of(frame.select(*(column(name).alias(f"c{i}") for i, name in enumerate(ask.columns))).to_arrow())


def column(path: str) -> Any:
    first, *fields = path.split(".")
    return reduce(lambda expr, name: expr.get(name), fields, daft.col(first))


def expression(condition: Condition) -> Any:
    match condition:
        case Compare(path, operator, value):
            return OPERATORS[operator](column(path), daft.lit(value))
        case In(path, values):
            return column(path).is_in(list(values))
        case IsNull(path):
            return column(path).is_null()
        case IsNaN(path):
            return column(path).is_nan()
        case StartsWith(path, prefix):
            return column(path).startswith(prefix)
        case Not(inner):
            return ~expression(inner)
        case And(left, right):
            return expression(left) & expression(right)
        case Or(left, right):
            return expression(left) | expression(right)
    raise ValueError(condition)
