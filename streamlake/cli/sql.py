"""`streamlake sql`: DuckDB on the tables of a running server, each a view of its newest Iceberg snapshot.

StreamLake writes the tables; DuckDB reads the Iceberg files by itself. Needs the `sql` extra.
"""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamlake.cli.console import DEFAULT_HTTP, Http, err, fail, get_json, out, show
from streamlake.core.errors import Invalid, StreamLakeError

if TYPE_CHECKING:
    import duckdb

EXTENSIONS = ("avro", "httpfs", "iceberg")  # iceberg needs the two before it
ROWS_SHOWN = 100


def sql(
    query: Annotated[str | None, typer.Argument(help="A query. Without it, an interactive prompt.")] = None,
    http: Http = DEFAULT_HTTP,
) -> None:
    """Run SQL on the tables: each table topic is a view, NAMESPACE.NAME (and NAME alone in `default`)."""
    lake = connect()
    if query is not None:
        try:
            _run(lake, http, query)
        except duckdb_error() as error:
            fail(str(error))
        return
    out.print("DuckDB on StreamLake's tables. End with ; and Enter, leave with Ctrl-D.")
    for text in _statements():
        try:
            _run(lake, http, text)
        except (duckdb_error(), StreamLakeError) as error:
            err.print(f"[red]{error}[/]")


def duckdb_error() -> type[Exception]:
    import duckdb

    return duckdb.Error


def connect() -> "duckdb.DuckDBPyConnection":
    """DuckDB with its Iceberg extension from the installed wheels: nothing is downloaded."""
    try:
        import duckdb
    except ImportError:
        raise Invalid("this needs DuckDB: pip install 'streamlake[sql]'") from None
    lake = duckdb.connect(config={"autoinstall_known_extensions": "false"})
    for name in EXTENSIONS:
        spec = importlib.util.find_spec(f"duckdb_extension_{name}")
        if spec is None or not spec.submodule_search_locations:
            raise Invalid(f"DuckDB's extension {name} is missing: pip install 'streamlake[sql]'")
        (path,) = Path(spec.submodule_search_locations[0]).glob(f"extensions/*/{name}.duckdb_extension")
        lake.execute(f"LOAD '{path}'")
    lake.execute("SET TimeZone = 'UTC'")
    return lake


def refresh(lake: "duckdb.DuckDBPyConnection", http: str) -> list[dict[str, Any]]:
    """Point the views at the newest snapshots; the tables as the server reports them."""
    tables: list[dict[str, Any]] = get_json(http, "/v1/tables")["tables"]
    for table in tables:
        for found in (table, table.get("dead_letter_table")):
            if not found or not found.get("metadata_location"):
                continue
            location = found["metadata_location"].removeprefix("file://").replace("'", "''")
            namespace, name = (part.replace('"', '""') for part in found["table"].rsplit(".", 1))
            lake.execute(f'CREATE SCHEMA IF NOT EXISTS "{namespace}"')
            views = [f'"{namespace}"."{name}"'] + ([f'main."{name}"'] if namespace == "default" else [])
            for view in views:
                lake.execute(f"CREATE OR REPLACE VIEW {view} AS SELECT * FROM iceberg_scan('{location}')")
    return tables


def _run(lake: "duckdb.DuckDBPyConnection", http: str, query: str) -> None:
    refresh(lake, http)
    result = lake.execute(query)
    if result.description is None:
        return
    columns = [c[0] for c in result.description]
    rows = result.fetchmany(ROWS_SHOWN + 1)
    numbers = tuple(c for i, c in enumerate(columns) if rows and isinstance(rows[0][i], int | float))
    show("", columns, [list(row) for row in rows[:ROWS_SHOWN]], numbers)
    if len(rows) > ROWS_SHOWN:
        out.print(f"[dim]… the first {ROWS_SHOWN} rows: add LIMIT, or aggregate[/]")


def _statements() -> Any:
    text = ""
    while True:
        try:
            line = input("streamlake> " if not text else "        ... ")
        except EOFError:
            out.print()
            return
        text += line + "\n"
        if line.rstrip().endswith(";"):
            yield text
            text = ""
