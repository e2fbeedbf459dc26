"""ClickHouse in the process (chdb), on the newest metadata file of a table. It reads files below its own directory only."""

from contextlib import chdir
from datetime import date
from typing import Any
from uuid import UUID

from chdb.session import Session
from engines.engine import Dialect, Engine, Lake, rows_of
from engines.queries import Ask
from support.lake import load_table


class ClickHouseDialect(Dialect):
    quote = "`"

    def is_nan(self, column: str) -> str:
        return f"isNaN({column})"

    def starts_with(self, column: str, prefix: str) -> str:
        return f"startsWith({column}, {prefix})"

    def float(self, value: float) -> str:
        return f"toFloat64('{value!r}')"

    def text(self, value: str) -> str:
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"

    def uuid(self, value: UUID) -> str:
        return f"toUUID('{value}')"

    def timestamp(self, value: Any) -> str:
        return f"toDateTime64('{value.replace(tzinfo=None).isoformat(sep=' ')}', 6, 'UTC')"

    def literal(self, value: Any) -> str:
        if type(value) is date:
            return f"toDate32('{value}')"
        return super().literal(value)


DIALECT = ClickHouseDialect()


class ClickHouse(Engine):
    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        self.session = Session()

    def answer(self, ask: Ask) -> list[tuple[Any, ...]]:
        table = load_table(self.lake.server, ask.topic.name)
        folder = table.location().removeprefix("file://")
        metadata = table.metadata_location.removeprefix(f"file://{folder}/")
        statement = DIALECT.select(ask, f"icebergLocal('{folder}', SETTINGS iceberg_metadata_file_path = '{metadata}')")
        if ask.batches:
            statement += f" SETTINGS iceberg_snapshot_id = {self.lake.snapshot(table, ask.batches)}"
        try:
            with chdir(self.lake.server.data_dir):
                return rows_of(self.session.query(statement, "ArrowTable"))
        except Exception:  # a session that failed spoils the answers of the next
            self.stop()
            self.session = Session()
            raise

    def stop(self) -> None:
        self.session.close()
