"""THE list of routes. To add one, write its handler, and name it in ROUTES.

Paths are matched as they were sent, still percent-encoded, so that a name may hold a slash; warehouses.py has cut off
the version and the prefix. `listed` routes are those that the answer to `config` offers to clients.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from pyiceberg.catalog import Catalog

from streamlake.iceberg_rest import commits, files, namespaces, tables, views
from streamlake.iceberg_rest.problem import Problem
from streamlake.iceberg_rest.request import Reply, Request
from streamlake.iceberg_rest.warehouses import CONFIG, no_such_path

Handler = Callable[[Catalog, Request], Reply]

NAMESPACE = "namespaces/{namespace}"
TABLE = f"{NAMESPACE}/tables/{{table}}"
TRANSACTION = "transactions/commit"
CREDENTIALS, SIGN = f"{TABLE}/credentials", f"{TABLE}/sign"


@dataclass(frozen=True, slots=True)
class Route:
    method: str
    path: str
    handle: Handler
    listed: bool = True


def config(catalog: Catalog, request: Request) -> Reply:
    """What a client asks first."""
    access = request.access
    depends = {
        TRANSACTION: commits.is_atomic(catalog),
        CREDENTIALS: access is not None and access.vends,
        SIGN: access is not None and access.signs,
    }
    offered = [route for route in ROUTES if route.listed and depends.get(route.path, True)]
    endpoints = [f"{route.method} /v1/{{prefix}}/{route.path}" for route in offered]
    overrides = {"prefix": request.catalog} if request.is_named else {}
    return Reply(content={"defaults": {}, "overrides": overrides, "endpoints": endpoints})


ROUTES = (
    Route("GET", CONFIG, config, listed=False),
    Route("GET", "namespaces", namespaces.list_namespaces),
    Route("POST", "namespaces", namespaces.create),
    Route("GET", NAMESPACE, namespaces.load),
    Route("HEAD", NAMESPACE, namespaces.exists),
    Route("DELETE", NAMESPACE, namespaces.drop),
    Route("POST", f"{NAMESPACE}/properties", namespaces.update_properties),
    Route("GET", f"{NAMESPACE}/tables", tables.list_tables),
    Route("POST", f"{NAMESPACE}/tables", tables.create),
    Route("POST", f"{NAMESPACE}/register", tables.register),
    Route("GET", TABLE, tables.load),
    Route("HEAD", TABLE, tables.exists),
    Route("POST", TABLE, commits.commit_table),
    Route("DELETE", TABLE, tables.drop),
    Route("POST", f"{TABLE}/metrics", tables.report_metrics),
    Route("GET", CREDENTIALS, files.load_credentials),
    Route("POST", SIGN, files.sign),
    Route("POST", "tables/rename", tables.rename),
    Route("POST", TRANSACTION, commits.commit_transaction),
    Route("GET", f"{NAMESPACE}/views", views.list_views, listed=False),
    Route("POST", f"{NAMESPACE}/views", views.create, listed=False),
    Route("GET", f"{NAMESPACE}/views/{{view}}", views.load, listed=False),
    Route("HEAD", f"{NAMESPACE}/views/{{view}}", views.load, listed=False),
    Route("POST", f"{NAMESPACE}/views/{{view}}", views.load, listed=False),
    Route("DELETE", f"{NAMESPACE}/views/{{view}}", views.load, listed=False),
)


def find(method: str, path: Sequence[str]) -> tuple[Route, dict[str, str]]:
    """The route of a request, and the decoded variables of its path. Raises Problem: 404, or 405 for the method."""
    there = False
    for route in ROUTES:
        parameters = _match(route.path.split("/"), path)
        if parameters is not None and route.method == method:
            return route, parameters
        there |= parameters is not None
    if there:
        raise Problem(405, "UnsupportedOperationException", f"{method} is not offered there")
    raise no_such_path()


def _match(pattern: Sequence[str], parts: Sequence[str]) -> dict[str, str] | None:
    if len(pattern) != len(parts):
        return None
    parameters = {}
    for wanted, part in zip(pattern, parts, strict=True):
        if wanted.startswith("{") and part:
            parameters[wanted.strip("{}")] = unquote(part)
        elif wanted != part:
            return None
    return parameters
