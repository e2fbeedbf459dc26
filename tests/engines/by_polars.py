"""Polars: it takes PyIceberg's table, and reads the files by itself."""

from functools import reduce
from typing import Any

import polars as pl
from engines.by_pyiceberg import ByRest
from engines.conditions import And, Compare, Condition, In, IsNaN, IsNull, Not, Or, StartsWith
from engines.engine import Engine, Lake, rows_of
from engines.queries import Ask

OPERATORS = {"=": "eq", "<>": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge"}


class Polars(Engine):
    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        self.pyiceberg = ByRest(lake)

    def answer(self, ask: Ask) -> list[tuple[Any, ...]]:
        table = self.pyiceberg.table(ask.topic.name)
        frame = pl.scan_iceberg(table, snapshot_id=self.lake.snapshot(table, ask.batches) if ask.batches else None)
        if ask.where:
            frame = frame.filter(expression(ask.where))
        if ask.count:
            return [(frame.select(pl.len()).collect().item(),)]
        selected = frame.select(column(name).alias(f"c{i}") for i, name in enumerate(ask.columns))
        return rows_of(selected.collect().to_arrow())


def column(path: str) -> pl.Expr:
    first, *fields = path.split(".")
    return reduce(lambda expr, name: expr.struct.field(name), fields, pl.col(first))


def expression(condition: Condition) -> pl.Expr:
    match condition:
        case Compare(path, operator, value):
            compared: pl.Expr = getattr(column(path), OPERATORS[operator])(pl.lit(value))
            return compared
        case In(path, values):
            return column(path).is_in(list(values))
        case IsNull(path):
            return column(path).is_null()
        case IsNaN(path):
            return column(path).is_nan()
        case StartsWith(path, prefix):
            return column(path).str.starts_with(prefix)
        case Not(inner):
            return ~expression(inner)
        case And(left, right):
            return expression(left) & expression(right)
        case Or(left, right):
            return expression(left) | expression(right)
    raise ValueError(condition)
