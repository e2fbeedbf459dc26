"""The port of an engine, and what engines that are asked in SQL share."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

from engines.conditions import And, Compare, Condition, In, IsNaN, IsNull, Not, Or, StartsWith
from engines.queries import Ask
from pyiceberg.table import Table
from support.seaweedfs import SeaweedFS
from support.server import Server

NAMESPACE = "default"


@dataclass(frozen=True)
class Lake:
    """A server whose topics were produced; its tables' files lie in `bucket_server`, or on the local disk."""

    server: Server
    bucket_server: SeaweedFS | None = None

    @property
    def endpoint(self) -> str:
        return f"{self.server.http}/iceberg"

    def snapshot(self, table: Table, batches: int) -> int:
        """The snapshot after so many batches of a topic: the first commits of rows, in order."""
        appends = [s for s in table.metadata.snapshots if s.summary and int(s.summary.get("added-records") or 0)]
        return int(appends[batches - 1].snapshot_id)


class Engine(ABC):
    @abstractmethod
    def answer(self, ask: Ask) -> Sequence[Sequence[Any]]:
        """Rows in any order."""

    def stop(self) -> None:  # noqa: B027 - most have nothing to stop
        """Nothing of the engine runs afterwards."""


class Dialect:
    """How SQL is written for DuckDB, and in most of it for others."""

    quote = '"'

    def name(self, column: str) -> str:
        return ".".join(f"{self.quote}{part}{self.quote}" for part in column.split("."))

    def condition(self, condition: Condition) -> str:
        match condition:
            case Compare(column, operator, value):
                return f"{self.name(column)} {operator} {self.literal(value)}"
            case In(column, values):
                return f"{self.name(column)} IN ({', '.join(map(self.literal, values))})"
            case IsNull(column):
                return f"{self.name(column)} IS NULL"
            case IsNaN(column):
                return self.is_nan(self.name(column))
            case StartsWith(column, prefix):
                return self.starts_with(self.name(column), self.literal(prefix))
            case Not(inner):
                return f"NOT ({self.condition(inner)})"
            case And(left, right):
                return f"({self.condition(left)}) AND ({self.condition(right)})"
            case Or(left, right):
                return f"({self.condition(left)}) OR ({self.condition(right)})"
        raise ValueError(condition)

    def is_nan(self, column: str) -> str:
        return f"isnan({column})"

    def starts_with(self, column: str, prefix: str) -> str:
        return f"starts_with({column}, {prefix})"

    def literal(self, value: Any) -> str:
        match value:
            case bool() | int():
                return str(value)
            case float():
                return self.float(value)
            case Decimal():
                return f"{value:f}"
            case str():
                return self.text(value)
            case bytes():
                return self.binary(value)
            case UUID():
                return self.uuid(value)
            case datetime():
                return self.timestamp(value)
            case date():
                return f"DATE '{value}'"
            case time():
                return f"TIME '{value}'"
        raise ValueError(value)

    def float(self, value: float) -> str:
        return f"'{value!r}'::DOUBLE"

    def text(self, value: str) -> str:
        return "'" + value.replace("'", "''") + "'"

    def binary(self, value: bytes) -> str:
        return f"unhex('{value.hex()}')"

    def uuid(self, value: UUID) -> str:
        return f"'{value}'::UUID"

    def timestamp(self, value: datetime) -> str:
        kind = "TIMESTAMPTZ" if value.tzinfo else "TIMESTAMP"
        return f"{kind} '{value.isoformat(sep=' ')}'"

    def select(self, ask: Ask, source: str) -> str:
        columns = "count(*)" if ask.count else ", ".join(f"{self.name(c)} AS c{i}" for i, c in enumerate(ask.columns))
        where = f" WHERE {self.condition(ask.where)}" if ask.where else ""
        return f"SELECT {columns} FROM {source}{where}"


def rows_of(table: Any) -> list[tuple[Any, ...]]:
    """Of an Arrow table."""
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True)) if table.num_columns else []
