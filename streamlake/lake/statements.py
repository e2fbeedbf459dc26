"""Statements of SQL as DuckDB reads them: where each ends, and which tables it names."""

import json
import re
from typing import TYPE_CHECKING, Any

from streamlake.lake.names import quoted

if TYPE_CHECKING:
    import duckdb

ASKING = ("SHOW_REF", "TABLE_FUNCTION")  # SHOW TABLES, FROM duckdb_views(): they name none, and mean all


TRIED_MAX = 10  # words that a query inside a statement may begin with
_QUERY = re.compile(rb"(select|with|from)\b", re.IGNORECASE)


def split(text: str) -> tuple[list[str], str]:
    """The statements that end with a semicolon, and what comes after the last of them."""
    from duckdb import token_type, tokenize

    data, statements, start = text.encode(), [], 0  # DuckDB counts bytes
    for at, kind in tokenize(text):
        if kind == token_type.operator and data[at : at + 1] == b";":
            statements.append(data[start:at].decode().strip())
            start = at + 1
    return [statement for statement in statements if statement], data[start:].decode().strip()


def query_trees(lake: "duckdb.DuckDBPyConnection", statement: str) -> Any | None:
    """A query as DuckDB's JSON has it; None for a statement that is no query, or no SQL."""
    answer = lake.execute("SELECT json_serialize_sql(?)", [statement]).fetchone()
    parsed = json.loads(answer[0]) if answer else {"error": True}
    return None if parsed["error"] else parsed["statements"] or None  # a comment alone is no statement


def _query_inside(lake: "duckdb.DuckDBPyConnection", statement: str) -> Any | None:
    """Of INSERT INTO … SELECT, CREATE … AS FROM, DELETE FROM: the query at its end."""
    from duckdb import token_type, tokenize

    data = statement.encode()
    words = [at for at, kind in tokenize(statement) if kind == token_type.keyword and _QUERY.match(data, at)]
    found = (query_trees(lake, data[at:].decode()) for at in words[:TRIED_MAX])
    return next(filter(None, found), None)


def tables_named(lake: "duckdb.DuckDBPyConnection", query: str) -> list[str] | None:
    """The tables that a statement names, as it writes them; None if DuckDB cannot tell, or it asks what there is."""
    import duckdb

    if (trees := query_trees(lake, query) or _query_inside(lake, query)) is not None:
        names = sorted(_names_in(trees))
        asks = any(name.startswith('"information_schema"') for name in names)
        asks |= not names and not _types_in(trees).isdisjoint(ASKING)
        return None if asks else names
    # No SELECT, which alone DuckDB gives as JSON.
    if all(statement.type in _without_tables() for statement in lake.extract_statements(query)):
        return []
    # In a database of its own: of a view that is there already DuckDB
    # gives what lies behind it, and not its name. Names with a namespace are an error there.
    with duckdb.connect() as empty:
        try:
            return sorted(empty.get_table_names(query, qualified=True)) or None
        except duckdb.Error:
            return None


def _without_tables() -> set[Any]:
    from duckdb import StatementType as kind

    return {kind.SET, kind.VARIABLE_SET, kind.TRANSACTION, kind.LOAD, kind.ATTACH, kind.DETACH}


def _names_in(tree: Any) -> set[str]:
    """Of the tables in a statement as DuckDB's JSON has it, all parts in quotes."""
    if isinstance(tree, list):
        return set().union(*map(_names_in, tree))
    if not isinstance(tree, dict):
        return set()
    found = set().union(*map(_names_in, tree.values()))
    if tree.get("type") == "BASE_TABLE":
        parts = (tree["catalog_name"], tree["schema_name"], tree["table_name"])
        found.add(".".join(quoted(part) for part in parts if part))
    return found


def _types_in(tree: Any) -> set[str]:
    """Of all nodes in a statement as DuckDB's JSON has it."""
    if isinstance(tree, list):
        return set().union(*map(_types_in, tree))
    if not isinstance(tree, dict):
        return set()
    return set().union({str(tree.get("type"))}, *map(_types_in, tree.values()))
