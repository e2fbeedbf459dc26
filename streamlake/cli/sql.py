"""`streamlake sql`: DuckDB on the tables of a running server, each a view of its newest Iceberg snapshot.

StreamLake writes the tables; DuckDB reads the Iceberg files by itself. The server's Iceberg REST catalog tells which
snapshot is the newest, and commits first what is durable in the topics of the tables that a statement names. Needs the
`sql` extra. Which views there are: sql_views.py.
"""

import importlib.util
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from streamlake.cli.addresses import DEFAULT_HTTP, Http
from streamlake.cli.console import complain, get_json, group, note, say, show
from streamlake.cli.sql_views import Name, Views, describe
from streamlake.core.errors import Invalid, NotFound, StreamLakeError, Unavailable
from streamlake.core.version import install_hint

if TYPE_CHECKING:
    import duckdb

app = group()
EXTENSIONS = ("avro", "httpfs", "iceberg")  # iceberg needs the two before it
ROWS_SHOWN = 100
WAIT_S = 120.0
POLL_S = 0.2
STUCK = ("failed", "fenced")  # no waiting helps


@app.command()
def sql(
    query: Annotated[str | None, typer.Argument(help="A query. Without it, an interactive prompt.")] = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="First wait until the tables hold what is in their topics now.")
    ] = False,
    wait_s: Annotated[float, typer.Option(help="How long --wait waits at most, in seconds.", min=0)] = WAIT_S,
    token: Annotated[
        str | None,
        typer.Option(envvar="STREAMLAKE_TOKEN", help="One of the server's [http] tokens, if it wants one."),
    ] = None,
    http: Http = DEFAULT_HTTP,
) -> None:
    """Run SQL on the tables: each is a view, NAMESPACE.NAME, and NAME alone in `default`.

    Tables that a statement names have all rows that were acknowledged before it.

    Write names with other characters than letters, digits and _ in double quotes: "shop.orders.v1".
    """
    session = _Session(connect(), http, wait_s if wait else None, token)
    if query is not None:
        session.run(query)
        return
    say("DuckDB on StreamLake's tables. End with ; and Enter, leave with Ctrl-D.")
    for text in _statements():
        try:
            session.run(text)
        except StreamLakeError as error:
            complain(str(error))


def connect() -> "duckdb.DuckDBPyConnection":
    """DuckDB with its Iceberg extension from the installed wheels: nothing is downloaded."""
    try:
        import duckdb
    except ImportError:
        raise Invalid(f"this needs DuckDB: {install_hint('sql')}") from None
    lake = duckdb.connect(config={"autoinstall_known_extensions": "false"})
    for name in EXTENSIONS:
        spec = importlib.util.find_spec(f"duckdb_extension_{name}")
        if spec is None or not spec.submodule_search_locations:
            raise Invalid(f"DuckDB's extension {name} is missing: {install_hint('sql')}")
        (path,) = Path(spec.submodule_search_locations[0]).glob(f"extensions/*/{name}.duckdb_extension")
        lake.execute(f"LOAD '{path}'")
    lake.execute("SET TimeZone = 'UTC'")
    return lake


def refresh(lake: "duckdb.DuckDBPyConnection", http: str) -> list[dict[str, Any]]:
    """Point views of all tables at the newest snapshots; the tables as the server reports them."""
    tables: list[dict[str, Any]] = get_json(http, "/v1/tables")["tables"]
    Views(tables).create(lake, None)
    return tables


class _Session:
    def __init__(self, lake: "duckdb.DuckDBPyConnection", http: str, wait_s: float | None, token: str | None) -> None:
        self._lake = lake
        self._http = http
        self._wait_s = wait_s
        self._token = token
        self._catalog_answers = True

    def run(self, query: str) -> None:
        """Run the statements one by one, and show the rows of each. Invalid tells DuckDB's own errors."""
        import duckdb

        try:
            for statement in self._lake.extract_statements(query):
                self._run(statement.query)
        except duckdb.Error as error:
            raise Invalid(str(error)) from None

    def _run(self, query: str) -> None:
        names = self._names(query)
        tables = get_json(self._http, "/v1/tables")["tables"]
        if self._wait_s is not None:
            tables = self._waited(names, tables, self._wait_s)
        views = Views(tables)
        if names is not None:
            views.refresh(names, self._newest)
            views.require(names)
        views.create(self._lake, names)
        import duckdb

        try:
            result = self._lake.execute(query)
        except (duckdb.CatalogException, duckdb.BinderException) as error:
            raise Invalid(views.explain(str(error), query)) from None
        if result.description is None:
            return
        columns = [c[0] for c in result.description]
        rows = result.fetchmany(ROWS_SHOWN + 1)
        numbers = tuple(c for i, c in enumerate(columns) if rows and isinstance(rows[0][i], int | float))
        show("", columns, [list(row) for row in rows[:ROWS_SHOWN]], numbers)
        if len(rows) > ROWS_SHOWN:
            note((f"… the first {ROWS_SHOWN} rows: add LIMIT, or aggregate", "dim"))

    def _newest(self, name: Name) -> str | None:
        """Where the metadata of a table is after its topic's rows were committed; None if the catalog does not tell."""
        if not self._catalog_answers:
            return None
        namespace, table = quote(name.namespace, safe=""), quote(name.table, safe="")
        path = f"/iceberg/v1/namespaces/{namespace}/tables/{table}?snapshots=refs"
        try:
            return str(get_json(self._http, path, self._token)["metadata-location"])
        except NotFound:  # no commit yet, or a server without the catalog
            return None
        except StreamLakeError as error:
            self._catalog_answers = False
            note(("warning: ", "yellow"), f"rows that are not committed yet are missing: {error}")
            return None

    def _names(self, query: str) -> list[str] | None:
        """The tables that a statement names, as it writes them; None if DuckDB cannot tell, or it names none."""
        import duckdb

        try:
            return sorted(self._lake.get_table_names(query, qualified=True)) or None
        except duckdb.Error:
            return None

    def _waited(self, names: list[str] | None, tables: list[dict[str, Any]], wait_s: float) -> list[dict[str, Any]]:
        """The tables once those that are named hold all that was in their topics when the wait began."""
        wanted = {t["topic_id"]: {p["partition"]: p["log_end"] for p in t["partitions"]} for t in tables}
        named = Views(tables).named(names)
        told, deadline = False, time.perf_counter() + wait_s
        while True:
            there = {t["topic_id"]: t for t in tables}
            behind = [there[id] for id in named if id in there and not _holds(there[id], wanted[id])]
            if not behind:
                return tables
            stuck = [t for t in behind if t["state"] in STUCK]
            if stuck:
                raise Invalid(f"table {stuck[0]['table']} is {stuck[0]['state']}: {stuck[0]['message']}")
            if time.perf_counter() > deadline:
                raise Unavailable(
                    f"after {wait_s:g} s table {behind[0]['table']} does not yet hold all of its topic: "
                    f"{describe(behind[0])}. Give a longer --wait-s; see `streamlake table status {behind[0]['topic']}`"
                )
            if not told:
                note((f"waiting for {', '.join(t['table'] for t in behind)} …", "dim"))
                told = True
            time.sleep(POLL_S)  # noqa: TID251 - a person waits here, not an event loop
            tables = get_json(self._http, "/v1/tables")["tables"]


def _holds(table: dict[str, Any], ends: dict[int, int]) -> bool:
    done = {p["partition"]: max(p["in_table"] or 0, p["log_start"]) for p in table["partitions"]}
    return all(done.get(partition, end) >= end for partition, end in ends.items())


def _statements() -> Iterator[str]:
    text = ""
    while True:
        try:
            line = input("streamlake> " if not text else "        ... ")
        except EOFError:
            say()
            return
        text += line + "\n"
        if line.rstrip().endswith(";"):
            yield text
            text = ""
