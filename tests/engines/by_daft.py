"""Daft: it takes PyIceberg's table, and reads the files by itself."""

from functools import reduce
from typing import Any

import daft
from engines.by_pyiceberg import ByRest
from engines.engine import Engine, Lake, rows_of
from engines.expressions import expression
from engines.queries import Ask


class Daft(Engine):
    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        self.pyiceberg = ByRest(lake)

    def answer(self, ask: Ask) -> list[tuple[Any, ...]]:
        table = self.pyiceberg.table(ask.topic.name)
        frame = daft.read_iceberg(table, snapshot_id=self.lake.snapshot(table, ask.batches) if ask.batches else None)
        if ask.where:
            where = expression(ask.where, column, daft.lit, lambda text, prefix: text.startswith(prefix))
            frame = frame.where(where)
        if ask.count:
            return [(frame.count_rows(),)]
        return rows_of(frame.select(*(column(name).alias(f"c{i}") for i, name in enumerate(ask.columns))).to_arrow())


def column(path: str) -> Any:
    first, *fields = path.split(".")
    return reduce(lambda expr, name: expr.get(name), fields, daft.col(first))
