"""Names of tables: as reports have them, and as SQL writes them."""

import re
from typing import NamedTuple

DEFAULT_NAMESPACE = "default"
DATABASE = "memory"  # DuckDB's name for the database without a file
_PART = re.compile(r'"((?:[^"]|"")*)"|([^."]+)')


class Name(NamedTuple):
    namespace: str
    table: str

    @property
    def folded(self) -> tuple[str, str]:
        return self.namespace.lower(), self.table.lower()

    @property
    def quoted(self) -> str:
        return f"{quoted(self.namespace)}.{quoted(self.table)}"


def split(table: str, namespace: str) -> Name:
    """Both parts of `namespace.table`. If the namespace was changed meanwhile, the cut is at the first dot."""
    if table.startswith(namespace + "."):
        return Name(namespace, table.removeprefix(namespace + "."))
    before, _, after = table.partition(".")
    return Name(before, after)


def parsed(name: str) -> Name | None:
    """A name as DuckDB gives it: parts in quotes where they need them, up to database.namespace.table. None if it is
    in a database other than the views'."""
    parts = [inner.replace('""', '"') if inner or not plain else plain for inner, plain in _PART.findall(name)]
    if len(parts) == 3 and parts[0].lower() == DATABASE:
        parts = parts[1:]
    if len(parts) == 1:
        return Name(DEFAULT_NAMESPACE, parts[0])
    return Name(*parts) if len(parts) == 2 else None


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
