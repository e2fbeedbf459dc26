"""Which DuckDB views stand for the tables, and what is said of a table that has none.

A view is namespace.table in a DuckDB schema of the namespace's name, and `default` is the schema that is searched. Both
parts may hold dots. DuckDB does not tell Orders from orders: of tables that differ only in case, a statement gets the
one that it names exactly.
"""

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from streamlake.core.errors import Invalid
from streamlake.lake.progress import describe

if TYPE_CHECKING:
    import duckdb

DEFAULT_NAMESPACE = "default"
DATABASE = "memory"  # DuckDB's name for the database without a file
KNOWN_SHOWN = 20
_PART = re.compile(r'"((?:[^"]|"")*)"|([^."]+)')


class Name(NamedTuple):
    namespace: str
    table: str

    @property
    def folded(self) -> tuple[str, str]:
        return self.namespace.lower(), self.table.lower()

    @property
    def quoted(self) -> str:
        return f"{_quoted(self.namespace)}.{_quoted(self.table)}"


class _Table(NamedTuple):
    name: Name
    location: str | None  # of its newest metadata; None before its first commit
    report: dict[str, Any]  # as /v1/tables has it


class Views:
    def __init__(self, reports: Sequence[dict[str, Any]]) -> None:
        """`reports` as /v1/tables has them."""
        self._tables: list[_Table] = []
        for report in reports:
            for table in (report, report.get("dead_letter_table")):
                if table and "." in table["table"]:  # a table whose configs are refused has no name yet
                    name = split(table["table"], report["namespace"])
                    self._tables.append(_Table(name, table.get("metadata_location"), report))

    def named(self, names: Sequence[str] | None) -> list[str]:
        """Topic ids of the tables that a statement names; all if that is not known."""
        tables = self._tables if names is None else [t for name in names for t in self._meant(name)]
        return list(dict.fromkeys(t.report["topic_id"] for t in tables))

    def refresh(self, names: Sequence[str], newest: Callable[[dict[str, Any], Name], str | None]) -> None:
        """`newest` gives the location of a table's metadata, by its report and name, for those that a statement names;
        None keeps the known."""
        meant = {table.name for name in names for table in self._meant(name)}
        self._tables = [
            table._replace(location=newest(table.report, table.name) or table.location)
            if table.name in meant
            else table
            for table in self._tables
        ]

    def require(self, names: Sequence[str]) -> None:
        """Invalid if a statement names a table that is known but has no commit yet."""
        for meant in map(self._meant, names):
            if meant and not any(t.location for t in meant):
                report = meant[0].report
                raise Invalid(
                    f"table {report['table']} has no commit yet ({describe(report)}). Try again soon, or wait for it "
                    f"(--wait; in Python `wait_for`); `streamlake table status {report['topic']}` shows more"
                )

    def create(self, lake: "duckdb.DuckDBPyConnection", names: Sequence[str] | None) -> list[str]:
        """Views of the tables that a statement names, or of all, at their newest snapshots.

        Of all tables, one that cannot be read does not keep the others from being queried: the problems in words."""
        import duckdb

        lake.execute(f'CREATE SCHEMA IF NOT EXISTS {DATABASE}."{DEFAULT_NAMESPACE}"')
        lake.execute(f"SET schema = '{DATABASE}.{DEFAULT_NAMESPACE}'")
        if names is not None:
            for table in self._chosen(names):
                _create(lake, table)
            return []
        problems = []
        for table in {t.name.folded: t for t in reversed(self._tables) if t.location}.values():
            try:
                _create(lake, table)
            except duckdb.Error as error:
                problems.append(f"table {table.report['table']} cannot be read: {error}")
        return problems

    def explain(self, error: str, query: str) -> str:
        """DuckDB's words on a query that names no table, and what may have been meant."""
        folded = query.lower()
        for name in (t.name for t in self._tables):
            if "." in name.table and name.table.lower() in folded and _quoted(name.table).lower() not in folded:
                return f"{error}\nA name with dots stands in double quotes: {_quoted(name.table)}"
        if "Table with name" not in error:
            return error
        known = sorted(t.name.quoted for t in self._tables if t.location)
        more = f" and {len(known) - KNOWN_SHOWN} more" if len(known) > KNOWN_SHOWN else ""
        there = ", ".join(known[:KNOWN_SHOWN]) + more or "none; `streamlake table list` shows how far the tables are"
        return re.sub(r'\nDid you mean "[^\n]*', "", error) + f"\nTables with a commit: {there}"

    def _chosen(self, names: Sequence[str]) -> list[_Table]:
        chosen: dict[tuple[str, str], _Table] = {}
        for name in names:
            there = [t for t in self._meant(name) if t.location]
            exact = [t for t in there if t.name == _parsed(name)]
            if not there:
                continue
            if len(exact) > 1:
                catalogs = " and ".join(sorted(t.report["catalog"] for t in exact))
                raise Invalid(
                    f"{exact[0].name.quoted} is a table in each of the catalogs {catalogs}, and a view can stand for "
                    "one only: give one of them another streamlake.table.name"
                )
            table = (exact or there)[0]
            if (len(there) > 1 and not exact) or chosen.setdefault(table.name.folded, table) is not table:
                raise Invalid(
                    f"{' and '.join(sorted(t.name.quoted for t in there))} differ only in case, which DuckDB does not "
                    "tell apart: write one of them exactly, and each in a query of its own"
                )
        return list(chosen.values())

    def _meant(self, name: str) -> list[_Table]:
        """The tables that a name in a statement may stand for: more than one if they differ only in case."""
        parsed = _parsed(name)
        found = [t for t in self._tables if parsed and t.name.folded == parsed.folded]
        return [t for t in found if t.name == parsed] or found


def split(table: str, namespace: str) -> Name:
    """Both parts of `namespace.table`. If the namespace was changed meanwhile, the cut is at the first dot."""
    if table.startswith(namespace + "."):
        return Name(namespace, table.removeprefix(namespace + "."))
    before, _, after = table.partition(".")
    return Name(before, after)


def _parsed(name: str) -> Name | None:
    """A name as DuckDB gives it: parts in quotes where they need them, up to database.namespace.table."""
    parts = [quoted.replace('""', '"') if quoted or not plain else plain for quoted, plain in _PART.findall(name)]
    if len(parts) == 3 and parts[0].lower() == DATABASE:
        parts = parts[1:]
    if len(parts) == 1:
        return Name(DEFAULT_NAMESPACE, parts[0])
    return Name(*parts) if len(parts) == 2 else None


def _create(lake: "duckdb.DuckDBPyConnection", table: _Table) -> None:
    location = str(table.location).removeprefix("file://").replace("'", "''")
    lake.execute(f"CREATE SCHEMA IF NOT EXISTS {DATABASE}.{_quoted(table.name.namespace)}")
    lake.execute(f"CREATE OR REPLACE VIEW {DATABASE}.{table.name.quoted} AS SELECT * FROM iceberg_scan('{location}')")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
