"""The server's Iceberg REST endpoint, asked for its catalogs: which tables they have, and where their metadata is.

What it loads is committed first, so that a table has all rows that were acknowledged before."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from streamlake.core.errors import NotFound, StreamLakeError
from streamlake.lake.http import get_json
from streamlake.lake.names import Name, quoted

if TYPE_CHECKING:
    import duckdb

LEVELS_JOINED_BY = "\x1f"  # in a path, as the Iceberg REST specification has it
NAMESPACES_MAX = 1000


class Endpoint:
    """Of the server at `http`, with one of its tokens if it wants one. Catalogs have StreamLake's names. `warn` is
    called with a problem in words: once for each catalog, until `try_again`."""

    def __init__(self, http: str, token: str | None, warn: Callable[[str], None]) -> None:
        self._iceberg = f"{http}/iceberg"
        self._token = token
        self._warn = warn
        self._routes: dict[str, str | None] = {}  # catalogs, by the URL that their routes begin with
        self._failed: set[str] = set()

    def try_again(self) -> None:
        """What failed may work by now: a prompt outlives a server that is started again."""
        self._failed.clear()

    def newest(self, catalog: str, name: Name) -> str | None:
        """Where the newest metadata of a table is; None if there is no such table, or the endpoint does not tell."""
        path = f"/namespaces/{_levels(name.namespace)}/tables/{quote(name.table, safe='')}?snapshots=refs"
        answer = self._get(catalog, path)
        return None if answer is None else str(answer["metadata-location"])

    def tables(self, catalog: str) -> list[Name]:
        """Those of topics, and all others."""
        return [
            Name(".".join(entry["namespace"]), entry["name"])
            for namespace in self._namespaces(catalog)
            for entry in (self._get(catalog, f"/namespaces/{_levels(namespace)}/tables") or {}).get("identifiers", ())
        ]

    def attach(self, lake: "duckdb.DuckDBPyConnection", catalog: str, writable: bool) -> None:
        """As a database of the catalog's name, for tables with all three parts of their names."""
        import duckdb

        token = f"TOKEN {_text(self._token)}" if self._token else "AUTHORIZATION_TYPE 'none'"
        options = f"TYPE iceberg, ENDPOINT {_text(self._iceberg)}, {token}" + (", READ_ONLY" * (not writable))
        try:
            if self._route(catalog) is not None:
                lake.execute(f"ATTACH IF NOT EXISTS {_text(catalog)} AS {quoted(catalog)} ({options})")
        except (StreamLakeError, duckdb.Error) as error:
            self._warn(f"the catalog {catalog} cannot be attached: {error}")

    def _namespaces(self, catalog: str) -> Iterable[str]:
        waiting, found = [""], 0
        while waiting and found < NAMESPACES_MAX:
            parent = waiting.pop()
            below = (self._get(catalog, f"/namespaces?parent={_levels(parent)}") or {}).get("namespaces", ())
            names = [".".join(levels) for levels in below]
            yield from names
            waiting += names
            found += len(names)

    def _get(self, catalog: str, path: str) -> Any:
        """None for what is not there, and of a catalog that does not answer, which is told once."""
        if catalog in self._failed:
            return None
        try:
            route = self._route(catalog)
            return None if route is None else get_json(route, path, self._token)
        except NotFound:
            return None
        except StreamLakeError as error:
            self._failed.add(catalog)
            self._warn(f"rows that are not committed yet are missing, and tables that are not of topics: {error}")
            return None

    def _route(self, catalog: str) -> str | None:
        """None of a catalog that the endpoint does not serve, and if the server does not offer the endpoint."""
        if catalog not in self._routes:
            try:
                config = get_json(self._iceberg, f"/v1/config?warehouse={quote(catalog, safe='')}", self._token)
                prefix = {**config["defaults"], **config["overrides"]}.get("prefix")
                self._routes[catalog] = f"{self._iceberg}/v1" + (f"/{quote(prefix, safe='')}" if prefix else "")
            except NotFound:
                self._routes[catalog] = None
        return self._routes[catalog]


def _levels(namespace: str) -> str:
    return quote(namespace.replace(".", LEVELS_JOINED_BY), safe="")


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
