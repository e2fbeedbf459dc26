"""What `streamlake.local()` gives: a server of one's own, and its tables through DuckDB and PyIceberg."""

import json
import shutil
import tempfile
import warnings
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from streamlake.core.errors import Closed, Invalid, NotFound, StreamLakeError, Unavailable
from streamlake.lake import progress, sql
from streamlake.lake.child_server import ChildServer
from streamlake.lake.names import split
from streamlake.lake.progress import Report

if TYPE_CHECKING:
    import duckdb
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

CONFIG_FILE = "local.toml"
# Rows within a second: a lake of one program has few tables, and somebody is waiting for them.
DEFAULTS = {"streamlake.table.commit.interval.ms": 500}
WAIT_S = 120.0

T = TypeVar("T")


class LocalLake:
    """A server process on free ports, and its tables. Stopped by `stop`, at the end of a `with`, when nothing refers to
    it any more, and when this process ends, in whatever way. For one thread at a time."""

    def __init__(self, data_dir: Path | None, kafka: Mapping[str, str | int | bool]) -> None:
        temporary = data_dir is None
        self.data_dir = data_dir.absolute() if data_dir else Path(tempfile.mkdtemp(prefix="streamlake-"))
        try:
            server = ChildServer(self.data_dir, _config_file(self.data_dir, {**DEFAULTS, **kafka}))
        except BaseException as error:
            if temporary and not isinstance(error, StreamLakeError):  # else its log says why
                shutil.rmtree(self.data_dir, ignore_errors=True)
            raise
        self._server = server
        self._end = weakref.finalize(self, _end, server, self.data_dir if temporary else None)
        self.bootstrap = server.bootstrap
        self.http_url = self.registry_url = server.http
        self.catalog_uri = f"{server.http}/iceberg"
        self._sql: sql.Session | None = None
        self._catalog: Catalog | None = None

    def sql(self, query: str) -> "duckdb.DuckDBPyRelation":
        """DuckDB's answer; tables are named as in `streamlake sql`, and have all rows that were acknowledged before
        (their commit is waited for, two seconds at most). Needs the extra `sql`.

        Invalid for a table that does not exist or has no commit yet; other mistakes are DuckDB's own errors."""

        def answer() -> "duckdb.DuckDBPyRelation":
            if self._sql is None:
                self._sql = sql.Session(self.http_url, None, lambda problem: warnings.warn(problem, stacklevel=2))
            return self._sql.run(query, self._sql.connection.sql)

        return self._asked(answer)

    def table(self, name: str) -> "Table":
        """PyIceberg's table of a topic, or another table by its name, such as `TOPIC__dlq`. NotFound, Invalid."""
        for report in self._reports():
            dead_letters = (report["dead_letter_table"] or {}).get("table")
            for table, names in ((report["table"], [report["topic"]]), (dead_letters, [])):
                if table and name in (*names, table, split(table, report["namespace"]).table):
                    return self._load(report, table)
        raise NotFound(f"no topic has a table {name}: create the topic with streamlake.table.enable=true")

    def wait_for(self, topic: str, rows: int | None = None, timeout_s: float = WAIT_S) -> None:
        """Until the table of a topic holds at least so many rows; without a number, until it holds all that is in the
        topic now, dead letters included. Invalid if waiting does not help, Unavailable after `timeout_s`."""
        found = [r for r in self._reports() if r["topic"] == topic]
        if not found:
            raise NotFound(f"{topic} is no table topic: create it with streamlake.table.enable=true")
        goal = progress.all_of_topic(found[0]) if rows is None else progress.at_least(rows)
        progress.wait(self._reports, {found[0]["topic_id"]: goal}, timeout_s, f"Log: {self._server.log_file}")

    def stop(self) -> None:
        """Stop the server, and remove a temporary directory."""
        if not self._server.is_ours:
            return
        if self._sql is not None:
            self._sql.connection.close()
        if self._catalog is not None:
            self._catalog.close()
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = "" if self._end.alive else ", stopped"
        return f"<StreamLake: bootstrap {self.bootstrap}, http_url {self.http_url}, data_dir {self.data_dir}{state}>"

    def _reports(self) -> list[Report]:
        return self._asked(lambda: sql.tables(self.http_url))

    def _asked(self, question: Callable[[], T]) -> T:
        """The answer, or why the server has ended."""
        if not self._end.alive:
            raise Closed("this server was stopped: streamlake.local() starts another")
        try:
            return question()
        except Unavailable:
            if reason := self._server.why_it_ended():
                raise Unavailable(reason) from None
            raise

    def _load(self, report: Report, table: str) -> "Table":
        from pyiceberg.exceptions import NoSuchTableError

        from streamlake.catalogs import config, kinds

        if self._catalog is None:
            self._catalog = kinds.load(config.embedded(self.data_dir, None))
        try:
            return self._catalog.load_table(tuple(split(table, report["namespace"])))
        except NoSuchTableError:
            raise Invalid(
                f"table {table} has no commit yet ({progress.describe(report)}): wait_for({report['topic']!r}) waits"
            ) from None


def _config_file(data_dir: Path, kafka: Mapping[str, str | int | bool]) -> Path:
    """JSON's strings, numbers and booleans are TOML's."""
    lines = [f"{json.dumps(key)} = {json.dumps(value, ensure_ascii=False)}" for key, value in kafka.items()]
    file = data_dir / CONFIG_FILE
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(["[kafka]", *lines, ""]))
    except OSError as error:
        raise Invalid(f"{data_dir} cannot be used as a data directory: {error.strerror}") from None
    return file


def _end(server: ChildServer, temporary: Path | None) -> None:
    if not server.is_ours:
        return
    server.stop()
    if temporary is not None:
        shutil.rmtree(temporary, ignore_errors=True)
