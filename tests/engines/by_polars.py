"""Polars: it takes PyIceberg's table, and reads the files by itself."""

from functools import reduce
from typing import Any

import polars as pl
from engines.by_pyiceberg import ByRest
from engines.engine import Engine, Lake, rows_of
from engines.expressions import expression
from engines.queries import Ask


class Polars(Engine):
    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        self.pyiceberg = ByRest(lake)

    def answer(self, ask: Ask) -> list[tuple[Any, ...]]:
        table = self.pyiceberg.table(ask.topic.name)
        frame = pl.scan_iceberg(table, snapshot_id=self.lake.snapshot(table, ask.batches) if ask.batches else None)
        if ask.where:
            frame = frame.filter(
                expression(ask.where, column, pl.lit, lambda text, prefix: text.str.starts_with(prefix))
            )
        if ask.count:
            return [(frame.select(pl.len()).collect().item(),)]
        selected = frame.select(column(name).alias(f"c{i}") for i, name in enumerate(ask.columns))
        return rows_of(selected.collect().to_arrow())


def column(path: str) -> pl.Expr:
    first, *fields = path.split(".")
    return reduce(lambda expr, name: expr.struct.field(name), fields, pl.col(first))
