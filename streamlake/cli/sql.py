"""`streamlake sql`: SQL on the tables of a running server, one query or a prompt. How DuckDB sees them: lake/sql.py."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from streamlake.cli.addresses import DEFAULT_HTTP, Http
from streamlake.cli.console import complain, group, note, say, show
from streamlake.core.errors import Invalid, StreamLakeError
from streamlake.lake import progress
from streamlake.lake import sql as lake
from streamlake.lake.newest import NewestMetadata
from streamlake.lake.progress import Report
from streamlake.lake.views import Views

if TYPE_CHECKING:
    import duckdb

app = group()
ROWS_SHOWN = 100
WAIT_S = 120.0


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

    Tables that a statement names have all rows that were acknowledged before it: their commit is waited for, two
    seconds at most.

    Write names with other characters than letters, digits and _ in double quotes: "shop.orders.v1".
    """
    session = _Session(lake.connect(), http, wait_s if wait else None, token)
    if query is not None:
        session.run(query)
        return
    say("DuckDB on StreamLake's tables. End with ; and Enter, leave with Ctrl-D.")
    for text in _statements():
        try:
            session.run(text)
        except StreamLakeError as error:
            complain(str(error))


class _Session:
    def __init__(
        self, connection: "duckdb.DuckDBPyConnection", http: str, wait_s: float | None, token: str | None
    ) -> None:
        self._duckdb = connection
        self._http = http
        self._wait_s = wait_s
        self._newest = NewestMetadata(f"{http}/iceberg", token, lambda problem: note(("warning: ", "yellow"), problem))

    def run(self, query: str) -> None:
        """Run the statements one by one, and show the rows of each. Invalid tells DuckDB's own errors."""
        import duckdb

        try:
            for statement in self._duckdb.extract_statements(query):
                self._run(statement.query)
        except duckdb.Error as error:
            raise Invalid(str(error)) from None

    def _run(self, query: str) -> None:
        names = lake.tables_named(self._duckdb, query)
        tables = lake.tables(self._http)
        if self._wait_s is not None:
            tables = self._waited(names, tables, self._wait_s)
        views = Views(tables)
        if names is not None:
            views.refresh(names, self._newest)
            views.require(names)
        for problem in views.create(self._duckdb, names):
            note(("warning: ", "yellow"), problem)
        import duckdb

        try:
            result = self._duckdb.execute(query)
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

    def _waited(self, names: list[str] | None, tables: list[Report], wait_s: float) -> list[Report]:
        """The tables once those that are named hold all that was in their topics when the wait began."""
        named = Views(tables).named(names)
        goals = {t["topic_id"]: progress.all_of_topic(t) for t in tables if t["topic_id"] in named}
        return progress.wait(
            lambda: lake.tables(self._http),
            goals,
            wait_s,
            advice="Give a longer --wait-s; `streamlake table status TOPIC` shows more",
            waiting=lambda behind: note((f"waiting for {', '.join(t['table'] for t in behind)} …", "dim")),
        )


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
