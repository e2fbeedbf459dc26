"""How `streamlake sql` shows the rows of a statement: a table for people, CSV or JSON for programs."""

import csv
import json
import sys
import time
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from streamlake.cli.console import as_table, note, out, visible
from streamlake.cli.interruptible import interruptible
from streamlake.cli.pager import page
from streamlake.lake.statements import query_trees

if TYPE_CHECKING:
    import duckdb

    from streamlake.lake.sql import Session

ROWS_SHOWN = 1000  # in a table, whose columns are as wide as the widest of its rows
BATCH_ROWS = 1000
INTERRUPTED = "Query interrupted"  # what DuckDB makes of a Ctrl-C that it finds in the main thread


class Format(StrEnum):
    TEXT = "text"
    CSV = "csv"
    JSON = "json"


# Values as DuckDB writes them: exact, also where Python has no such value (infinite dates, nanoseconds).
VALUES = {Format.CSV: "COLUMNS(*)::VARCHAR", Format.JSON: "to_json(COLUMNS(*))"}


class Rows(NamedTuple):
    columns: list[str]
    first: list[tuple[Any, ...]]
    fetch: Callable[[], list[tuple[Any, ...]]]  # the next; empty at the end
    encoded: bool  # the values are text in the format that is wanted

    def batches(self) -> Iterator[list[tuple[Any, ...]]]:
        batch = self.first
        while batch:
            yield batch
            batch = self.fetch()


def run(session: "Session", statement: str, format: Format) -> None:
    """Run one statement, and write its rows to stdout. Ctrl-C ends DuckDB's work on it."""
    started_s = time.perf_counter()
    interrupt = session.connection.interrupt

    def execute(text: str) -> Rows | None:
        return interruptible(lambda: _execute(session.connection, text, format), interrupt)

    try:
        rows = session.run(statement, execute)
    except RuntimeError as error:
        if str(error) != INTERRUPTED:
            raise
        raise KeyboardInterrupt from None  # DuckDB looked for what the statement names
    if rows is None:
        return
    if format is Format.TEXT:
        _show(rows, started_s)
        return
    fetch = rows.fetch
    rows = rows._replace(fetch=lambda: interruptible(fetch, interrupt))
    (_write_csv if format is Format.CSV else _write_json)(rows)
    sys.stdout.flush()


def _execute(connection: "duckdb.DuckDBPyConnection", statement: str, format: Format) -> Rows | None:
    """None for a statement that has no rows."""
    encoded = format in VALUES and query_trees(connection, statement) is not None
    if encoded:
        statement = f"SELECT {VALUES[format]} FROM ({statement}\n)"
    result = connection.execute(statement)
    if result is None or result.description is None:
        return None
    columns = [column[0] for column in result.description]
    size = ROWS_SHOWN + 1 if format is Format.TEXT else BATCH_ROWS
    return Rows(columns, result.fetchmany(size), lambda: result.fetchmany(BATCH_ROWS), encoded)


def _show(rows: Rows, started_s: float) -> None:
    took_s = time.perf_counter() - started_s
    shown = rows.first[:ROWS_SHOWN]
    numbers = tuple(c for i, c in enumerate(rows.columns) if shown and isinstance(shown[0][i], int | float))
    table = as_table("", rows.columns, [list(row) for row in shown], numbers)
    if not (out.is_terminal and page(table)):
        out.print(table)
    if len(rows.first) > ROWS_SHOWN:
        note((f"… the first {ROWS_SHOWN:,} rows: add LIMIT, aggregate, or write all of them with -o csv", "dim"))
    elif out.is_terminal:
        note((f"{len(shown):,} row{'s' * (len(shown) != 1)} in {took_s:.2f} s", "dim"))


def _write_csv(rows: Rows) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(map(_shown, rows.columns))
    for batch in rows.batches():
        writer.writerows([None if value is None else _shown(str(value)) for value in row] for row in batch)


def _write_json(rows: Rows) -> None:
    """One array, with an object in each line."""
    names, before = [json.dumps(column, ensure_ascii=False) for column in rows.columns], "[\n"
    for batch in rows.batches():
        for row in batch:
            values = map(_json, row) if rows.encoded else (json.dumps(value, default=str) for value in row)
            fields = ", ".join(f"{name}: {value}" for name, value in zip(names, values, strict=True))
            sys.stdout.write(f"{before}{{{_shown(fields)}}}")
            before = ",\n"
    sys.stdout.write("[]\n" if before == "[\n" else "\n]\n")


def _json(encoded: str | None) -> str:
    """What DuckDB encoded, with text for numbers that JSON does not have."""
    if encoded is None:
        return "null"
    if "NaN" in encoded or "Infinity" in encoded:
        return json.dumps(json.loads(encoded, parse_constant=str), ensure_ascii=False)
    return encoded


def _shown(text: str) -> str:
    """A program gets what there is; a terminal obeys no data."""
    return visible(text) if out.is_terminal else text
