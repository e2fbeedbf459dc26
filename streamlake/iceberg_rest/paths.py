"""How the paths of the catalog are written."""

from urllib.parse import quote

from pyiceberg.typedef import Identifier

VERSION = "v1"
NAMESPACE_SEPARATOR = "\x1f"


def of_table(catalog: str, table: Identifier, what: str) -> str:
    """Something of a table, in the catalog of that name."""
    namespace = quote(NAMESPACE_SEPARATOR.join(table[:-1]), safe="")
    return f"{VERSION}/{catalog}/namespaces/{namespace}/tables/{quote(table[-1], safe='')}/{what}"
