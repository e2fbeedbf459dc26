"""Which DuckDB views stand for the tables, and what is said of a table that has none.

A view is namespace.table in a DuckDB schema of the namespace's name, and `default` is the schema that is searched. Both
parts may hold dots. DuckDB does not tell Orders from orders: of tables that differ only in case, a statement gets the
one that it names exactly. (Of a catalog that is attached, a statement that names both gets the rows of one twice.)
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from streamlake.core.errors import Invalid
from streamlake.lake.names import DATABASE, Name, parsed, quoted, split
from streamlake.lake.progress import Report, describe

if TYPE_CHECKING:
    import duckdb

    from streamlake.lake.endpoint import Endpoint

KNOWN_SHOWN = 20
OTHERS_MAX = 200  # tables of no topic that a statement gets which does not say what it names: each is loaded


class Table(NamedTuple):
    name: Name
    catalog: str
    location: str | None  # of its newest metadata; None before its first commit
    report: Report | None  # of the topic that feeds it, or whose dead letters it has; None of a table of no topic


class Views:
    def __init__(self, reports: Sequence[Report], catalogs: Sequence[str] = ()) -> None:
        """`reports` and `catalogs` as /v1/tables has them: the default catalog first."""
        self._catalogs = catalogs
        self._tables: list[Table] = []
        for report in reports:
            for table in (report, report.get("dead_letter_table")):
                if table and "." in table["table"]:  # a table whose configs are refused has no name yet
                    name = split(table["table"], report["namespace"])
                    self._tables.append(Table(name, report["catalog"], table.get("metadata_location"), report))

    def listed(self, endpoint: "Endpoint") -> list[Table]:
        """All tables by name; where the metadata are only of those that topics feed."""
        known = {table.name for table in self._tables}
        others = [
            Table(name, catalog, None, None)
            for catalog in self._catalogs
            for name in endpoint.tables(catalog)
            if name not in known
        ]
        return sorted([*self._tables, *others], key=lambda table: table.name)

    def named(self, names: Sequence[str] | None) -> list[Report]:
        """Reports of the tables that a statement names; all if that is not known."""
        tables = self._tables if names is None else [t for name in names for t in self._meant(name)]
        return list({t.report["topic_id"]: t.report for t in tables if t.report is not None}.values())

    def refresh(self, names: Sequence[str] | None, endpoint: "Endpoint") -> None:
        """Of the tables that a statement names the newest metadata. Those that are of no topic are looked for."""
        if names is None:
            self._find_others(endpoint)
            return
        wanted = {table.name for name in names for table in self._meant(name)}
        self._tables = [
            t._replace(location=endpoint.newest(t.catalog, t.name) or t.location) if t.name in wanted else t
            for t in self._tables
        ]
        for name in map(parsed, names):
            if name is not None and not self._meant(name.quoted):
                self._look_for(name, self._catalogs, endpoint)

    def _find_others(self, endpoint: "Endpoint") -> None:
        others = [table for table in self.listed(endpoint) if table.report is None]
        for table in others[:OTHERS_MAX]:
            self._look_for(table.name, [table.catalog], endpoint)

    def _look_for(self, name: Name, catalogs: Sequence[str], endpoint: "Endpoint") -> None:
        for catalog in catalogs:
            if location := endpoint.newest(catalog, name):
                self._tables.append(Table(name, catalog, location, None))
                return

    def require(self, names: Sequence[str]) -> None:
        """Invalid if a statement names a table that is known but has no commit yet."""
        for meant in map(self._meant, names):
            if meant and not any(t.location for t in meant) and (report := meant[0].report):
                raise Invalid(
                    f"table {report['table']} has no commit yet ({describe(report)}). Try again soon, or wait for it "
                    f"(--wait; in Python `wait_for`); `streamlake table status {report['topic']}` shows more"
                )

    def create(self, lake: "duckdb.DuckDBPyConnection", names: Sequence[str] | None) -> list[str]:
        """Views of the tables that a statement names, or of all, at their newest snapshots.

        Of all tables, one that cannot be read does not keep the others from being queried: the problems in words."""
        if names is not None:
            return [problem for table in self._chosen(names) if (problem := _create(lake, table))]
        import duckdb

        problems: list[str] = []
        for table in {t.name.folded: t for t in reversed(self._tables) if t.location}.values():
            try:
                problems += filter(None, [_create(lake, table)])
            except duckdb.Error as error:
                problems.append(f"table {'.'.join(table.name)} cannot be read: {error}")
        return problems

    def explain(self, error: str, query: str) -> str:
        """DuckDB's words on a query that names no table, and what may have been meant."""
        folded = query.lower()
        for name in (t.name for t in self._tables):
            if "." in name.table and name.table.lower() in folded and quoted(name.table).lower() not in folded:
                return f"{error}\nA name with dots stands in double quotes: {quoted(name.table)}"
        if "does not support time travel" in error:
            catalog = quoted(self._catalogs[0]) if self._catalogs else "CATALOG"
            return f"{error}\nOlder snapshots are in the catalog itself: {catalog}.NAMESPACE.NAME AT (…)"
        if "Table with name" not in error:
            return error
        known = sorted({t.name.quoted for t in self._tables if t.location})
        more = f" and {len(known) - KNOWN_SHOWN} more" if len(known) > KNOWN_SHOWN else ""
        there = ", ".join(known[:KNOWN_SHOWN]) + more or "none; `streamlake table list` shows how far the tables are"
        error = re.sub(r'\nDid you mean "[^\n]*', "", error)
        return (
            f"{error}\nA topic is a table if its config streamlake.table.enable is true. Tables with a commit: {there}"
        )

    def _chosen(self, names: Sequence[str]) -> list[Table]:
        chosen: dict[tuple[str, str], Table] = {}
        for name in names:
            there = [t for t in self._meant(name) if t.location]
            exact = [t for t in there if t.name == parsed(name)]
            if not there:
                continue
            if len(exact) > 1:
                catalogs = sorted(t.catalog for t in exact)
                raise Invalid(
                    f"{exact[0].name.quoted} is a table in each of the catalogs {' and '.join(catalogs)}: write the "
                    f"catalog before it, as in {quoted(catalogs[0])}.{exact[0].name.quoted}"
                )
            table = (exact or there)[0]
            if (len(there) > 1 and not exact) or chosen.setdefault(table.name.folded, table) is not table:
                raise Invalid(
                    f"{' and '.join(sorted(t.name.quoted for t in there))} differ only in case, which DuckDB does not "
                    "tell apart: write one of them exactly, and each in a query of its own"
                )
        return list(chosen.values())

    def _meant(self, name: str) -> list[Table]:
        """The tables that a name in a statement may stand for: more than one if they differ only in case."""
        written = parsed(name)
        found = [t for t in self._tables if written and t.name.folded == written.folded]
        return [t for t in found if t.name == written] or found


def _create(lake: "duckdb.DuckDBPyConnection", table: Table) -> str | None:
    """What keeps the view from being made, if the session has a table of that name: it stays."""
    import duckdb

    location = str(table.location).removeprefix("file://").replace("'", "''")
    lake.execute(f"CREATE SCHEMA IF NOT EXISTS {DATABASE}.{quoted(table.name.namespace)}")
    view = f"{DATABASE}.{table.name.quoted}"
    try:
        lake.execute(f"CREATE OR REPLACE VIEW {view} AS SELECT * FROM iceberg_scan('{location}')")
    except duckdb.CatalogException as error:
        if "Existing object" not in str(error):
            raise
        there = f"{quoted(table.catalog)}.{table.name.quoted}"
        return f"{table.name.quoted} is a table of this session; that of the lake is {there}"
    return None
