"""DuckDB on the tables of a running server: each is a view of its newest Iceberg snapshot (views.py).

StreamLake writes the tables; DuckDB reads the Iceberg files by itself. Needs the extra `sql`.
"""

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamlake.core.errors import Invalid
from streamlake.core.version import install_hint
from streamlake.lake.http import get_json
from streamlake.lake.progress import Report
from streamlake.lake.views import Views

if TYPE_CHECKING:
    import duckdb

EXTENSIONS = ("avro", "httpfs", "iceberg")  # iceberg needs the two before it


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
    return lake


def tables(http: str) -> list[Report]:
    """All tables as the server reports them. What get_json raises."""
    reports: list[Report] = get_json(http, "/v1/tables")["tables"]
    return reports


def tables_named(lake: "duckdb.DuckDBPyConnection", query: str) -> list[str] | None:
    """The tables that a statement names, as it writes them; None if DuckDB cannot tell, or it names none."""
    import duckdb

    answer = lake.execute("SELECT json_serialize_sql(?)", [query]).fetchone()
    parsed = json.loads(answer[0]) if answer else {"error": True}
    if not parsed["error"]:
        return sorted(_names_in(parsed["statements"])) or None
    # No SELECT, which alone DuckDB gives as JSON. In a database of its own: of a view that is there already DuckDB
    # gives what lies behind it, and not its name. Names with a namespace are an error there.
    with duckdb.connect() as empty:
        try:
            return sorted(empty.get_table_names(query, qualified=True)) or None
        except duckdb.Error:
            return None


def _names_in(tree: Any) -> set[str]:
    """Of the tables in a statement as DuckDB's JSON has it, all parts in quotes."""
    if isinstance(tree, list):
        return set().union(*map(_names_in, tree))
    if not isinstance(tree, dict):
        return set()
    found = set().union(*map(_names_in, tree.values()))
    if tree.get("type") == "BASE_TABLE":
        parts = (tree["catalog_name"], tree["schema_name"], tree["table_name"])
        found.add(".".join('"' + part.replace('"', '""') + '"' for part in parts if part))
    return found


def refresh(lake: "duckdb.DuckDBPyConnection", http: str) -> list[Report]:
    """Point views of all tables at the newest snapshots; the tables as the server reports them."""
    reports = tables(http)
    Views(reports).create(lake, None)
    return reports
