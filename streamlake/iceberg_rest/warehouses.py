"""Which of the server's catalogs a request is for.

A client names a catalog by `warehouse` when it asks for `config`, and is told a prefix: all its paths are below
`v1/PREFIX` from then on. The prefix is StreamLake's name of the catalog. Without one a request is for the default
catalog. A client that names the default gets a prefix too, so that it keeps its catalog when the default changes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote

from streamlake.catalogs.named import REST_WORDS, NamedCatalogs
from streamlake.iceberg_rest.errors import bad_request
from streamlake.iceberg_rest.paths import VERSION
from streamlake.iceberg_rest.problem import Problem
from streamlake.table.task.control import CatalogCall

QUERY_FIELDS_MAX = 20
CONFIG = "config"


@dataclass(frozen=True, slots=True)
class Target:
    """`path`: the parts of the path after the version and the prefix, still percent-encoded. `is_named`: the client
    has named the catalog."""

    catalog: str
    path: tuple[str, ...]
    query: Mapping[str, str]
    is_named: bool


class Warehouses:
    def __init__(self, catalogs: NamedCatalogs) -> None:
        self._default = catalogs.default
        # What PyIceberg calls the default catalog is a name too: engines ask for a name where we need none.
        self._names = {catalogs[""].name: catalogs.default, **{name: name for name in catalogs.by_name}}

    def target(self, call: CatalogCall) -> Target:
        """Raises Problem: no such warehouse, no such path, a query that cannot be read."""
        try:
            query = dict(parse_qsl(call.query, keep_blank_values=True, max_num_fields=QUERY_FIELDS_MAX))
        except ValueError as error:
            raise bad_request(f"the query cannot be read: {error}") from None
        version, *path = call.path.strip("/").split("/")
        if version != VERSION or not path:
            raise no_such_path()
        if path == [CONFIG]:
            warehouse = query.get("warehouse", "")
            return Target(self._named(warehouse) if warehouse else self._default, (CONFIG,), query, bool(warehouse))
        if path[0] in REST_WORDS:
            return Target(self._default, tuple(path), query, False)
        return Target(self._named(unquote(path[0])), tuple(path[1:]), query, True)

    def _named(self, warehouse: str) -> str:
        if warehouse not in self._names:
            known = " or ".join(map(repr, self._names))
            text = f"there is no warehouse {warehouse[:100]!r} here: leave it out, or use {known}"
            raise Problem(404, "NoSuchWarehouseException", text)
        return self._names[warehouse]


def no_such_path() -> Problem:
    return Problem(404, "NoSuchEndpointException", "there is no such path in this Iceberg REST catalog")
