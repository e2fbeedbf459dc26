"""DuckDB on the tables of a running server: each is a view of its newest Iceberg snapshot (views.py).

StreamLake writes the tables; DuckDB reads the Iceberg files by itself. Needs the extra `sql`.
"""

import importlib.util
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from streamlake.core.errors import Invalid, NotFound, StreamLakeError, Unavailable
from streamlake.core.version import install_hint
from streamlake.lake import progress
from streamlake.lake.endpoint import Endpoint
from streamlake.lake.http import get_json
from streamlake.lake.names import DATABASE, DEFAULT_NAMESPACE, quoted
from streamlake.lake.progress import Report
from streamlake.lake.statements import tables_named
from streamlake.lake.views import Table, Views

if TYPE_CHECKING:
    import duckdb

EXTENSIONS = ("avro", "httpfs", "iceberg")  # iceberg needs the two before it
FIRST_COMMIT_S = 5.0
_WORD = re.compile(r"[\w-]+")

T = TypeVar("T")


class Wait(NamedTuple):
    """For all that topics hold when a statement comes. `heard` is told for which tables, if any."""

    timeout_s: float
    heard: Callable[[list[Report]], None]


class Session:
    """DuckDB's `connection`, and the tables of the server at `http` in it: those of topics, and all others of its
    catalogs. For one thread at a time.

    `warn` is called with a problem in words. `writable`: catalogs that a statement names are attached for writing."""

    def __init__(
        self,
        http: str,
        token: str | None,
        warn: Callable[[str], None],
        wait: Wait | None = None,
        writable: bool = False,
    ) -> None:
        self.connection = connect()
        self._http = http
        self._warn = warn
        self._wait = wait
        self._writable = writable
        self._endpoint = Endpoint(http, token, warn)

    def run(self, query: str, execute: Callable[[str], T]) -> T:
        """What `execute` makes of one statement, once the tables that it names are there, with all rows that were
        acknowledged before.

        Invalid for a table that does not exist or has no commit yet; other mistakes are DuckDB's own errors."""
        import duckdb

        views = self._prepare(query)
        try:
            return execute(query)
        except (duckdb.CatalogException, duckdb.BinderException) as error:
            raise Invalid(views.explain(str(error), query)) from None

    def tables(self) -> list[Table]:
        """All that there are now, by name."""
        return Views(*_reported(self._http)).listed(self._endpoint)

    def _prepare(self, query: str) -> Views:
        names = tables_named(self.connection, query)
        reports, catalogs = _reported(self._http)
        reports = self._waited(Views(reports).named(names), reports, names)
        views = Views(reports, catalogs)
        self._endpoint.try_again()
        if names != []:
            views.refresh(names, self._endpoint)
            views.require(names or ())
        for problem in views.create(self.connection, names):
            self._warn(problem)
        words = {word.lower() for word in _WORD.findall(query)}
        for catalog in catalogs:
            if catalog.lower() in words:
                self._endpoint.attach(self.connection, catalog, self._writable)
        return views

    def _waited(self, named: list[Report], reports: list[Report], names: list[str] | None) -> list[Report]:
        """All tables, once those that a statement names hold what they shall."""
        if self._wait is not None:
            goals = {report["topic_id"]: progress.all_of_topic(report) for report in named}
            advice = "Give a longer --wait-s; `streamlake table status TOPIC` shows more"
            return progress.wait(self._read, goals, self._wait.timeout_s, advice, self._wait.heard)
        # The first rows of a topic are committed at once, but a load does not make a table.
        coming = [r["topic_id"] for r in named if names and r["lag"] and r["metadata_location"] is None]
        if not coming:
            return reports
        try:
            return progress.wait(self._read, dict.fromkeys(coming, progress.A_COMMIT), FIRST_COMMIT_S)
        except StreamLakeError:
            return reports  # and the statement hears of it if it needs the table

    def _read(self) -> list[Report]:
        return tables(self._http)


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
    lake.execute("SET python_enable_replacements = false")  # a name of no table must not find a variable of ours
    lake.execute(f"CREATE SCHEMA {DATABASE}.{quoted(DEFAULT_NAMESPACE)}")
    lake.execute(f"SET schema = '{DATABASE}.{DEFAULT_NAMESPACE}'")
    return lake


def tables(http: str) -> list[Report]:
    """All tables as the server reports them. What get_json raises."""
    return _reported(http)[0]


def _reported(http: str) -> tuple[list[Report], Sequence[str]]:
    """Tables of topics, and the names of the catalogs."""
    try:
        answer = get_json(http, "/v1/tables")
        return answer["tables"], answer.get("catalogs", ())
    except (NotFound, LookupError, TypeError, AttributeError):
        raise Unavailable(f"what answers at {http} is no StreamLake server: give --http its address") from None


def refresh(lake: "duckdb.DuckDBPyConnection", http: str) -> list[Report]:
    """Point views of all tables at the newest snapshots; the tables as the server reports them."""
    reports = tables(http)
    Views(reports).create(lake, None)
    return reports
