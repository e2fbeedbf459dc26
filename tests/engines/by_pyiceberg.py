"""PyIceberg: by the server's catalog, and by the SQL catalog itself."""

from typing import Any

from engines.conditions import And, Compare, Condition, In, IsNaN, IsNull, Not, Or, StartsWith, value_at
from engines.engine import NAMESPACE, Engine, Lake
from engines.queries import Ask
from pyiceberg import expressions
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.expressions import AlwaysTrue, BooleanExpression
from pyiceberg.table import Table
from support.lake import load_table

COMPARISONS = {
    "=": expressions.EqualTo,
    "<>": expressions.NotEqualTo,
    "<": expressions.LessThan,
    "<=": expressions.LessThanOrEqual,
    ">": expressions.GreaterThan,
    ">=": expressions.GreaterThanOrEqual,
}


class _PyIceberg(Engine):
    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        self.loaded: dict[str, Table] = {}  # the tables do not change

    def load(self, name: str) -> Table:
        raise NotImplementedError

    def table(self, name: str) -> Table:
        if name not in self.loaded:
            self.loaded[name] = self.load(name)
        return self.loaded[name]

    def answer(self, ask: Ask) -> list[tuple[Any, ...]]:
        table = self.table(ask.topic.name)
        scan = table.scan(
            row_filter=expression(ask.where) if ask.where else AlwaysTrue(),
            selected_fields=tuple(ask.columns),
            snapshot_id=self.lake.snapshot(table, ask.batches) if ask.batches else None,
        )
        if ask.count:
            return [(scan.count(),)]
        return [tuple(value_at(row, column) for column in ask.columns) for row in scan.to_arrow().to_pylist()]


class ByRest(_PyIceberg):
    def __init__(self, lake: Lake) -> None:
        super().__init__(lake)
        self.catalog = RestCatalog("lake", uri=lake.endpoint)

    def load(self, name: str) -> Table:
        return self.catalog.load_table((NAMESPACE, name))


class BySql(_PyIceberg):
    def load(self, name: str) -> Table:
        return load_table(self.lake.server, name)


def expression(condition: Condition) -> BooleanExpression:
    match condition:
        case Compare(column, operator, value):
            return COMPARISONS[operator](column, value)
        case In(column, values):
            return expressions.In(column, values)
        case IsNull(column):
            return expressions.IsNull(column)
        case IsNaN(column):
            return expressions.IsNaN(column)
        case StartsWith(column, prefix):
            return expressions.StartsWith(column, prefix)
        case Not(inner):
            return expressions.Not(expression(inner))
        case And(left, right):
            return expressions.And(expression(left), expression(right))
        case Or(left, right):
            return expressions.Or(expression(left), expression(right))
    raise ValueError(condition)
