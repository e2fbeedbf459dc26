"""Namespaces: list, create, load, change, drop."""

from typing import Any

from pydantic import BaseModel
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.rest import ListNamespaceResponse, NamespaceResponse, UpdateNamespacePropertiesResponse
from pyiceberg.catalog.sql import IcebergNamespaceProperties, SqlCatalog
from pyiceberg.exceptions import NamespaceAlreadyExistsError, NamespaceNotEmptyError, NoSuchNamespaceError
from pyiceberg.typedef import Identifier
from sqlalchemy.exc import IntegrityError

from streamlake.iceberg_rest.errors import bad_request
from streamlake.iceberg_rest.paths import NAMESPACE_SEPARATOR
from streamlake.iceberg_rest.request import NO_CONTENT, Reply, Request, page

# pyiceberg's SQL catalog knows a namespace by its properties, and gives one without any this: it is not the client's.
MARKER = IcebergNamespaceProperties.NAMESPACE_MINIMAL_PROPERTIES


class CreateNamespaceRequest(BaseModel):
    namespace: tuple[str, ...]
    properties: dict[str, str] = {}


class UpdateNamespacePropertiesRequest(BaseModel):
    removals: list[str] | None = None
    updates: dict[str, str] | None = None


def list_namespaces(catalog: Catalog, request: Request) -> Reply:
    parent = request.query.get("parent", "")
    inside: Identifier = tuple(parent.split(NAMESPACE_SEPARATOR)) if parent else ()
    if inside:
        require(catalog, inside)
    found, token = page(sorted(catalog.list_namespaces(inside)), request)
    return Reply(content=ListNamespaceResponse(namespaces=list(found), **_next(token)))


def create(catalog: Catalog, request: Request) -> Reply:
    body = request.model(CreateNamespaceRequest)
    check_levels(body.namespace)
    marker = MARKER if isinstance(catalog, SqlCatalog) else {}
    try:
        catalog.create_namespace(body.namespace, {**marker, **body.properties})
    except (NamespaceAlreadyExistsError, IntegrityError):  # the SQL catalog looks, and then inserts: one was faster
        raise NamespaceAlreadyExistsError(f"Namespace already exists: {'.'.join(body.namespace)}") from None
    return Reply(content=NamespaceResponse(namespace=body.namespace, properties=body.properties))


def load(catalog: Catalog, request: Request) -> Reply:
    require(catalog, request.namespace)
    properties = dict(catalog.load_namespace_properties(request.namespace))
    if isinstance(catalog, SqlCatalog):
        properties = {key: value for key, value in properties.items() if key not in MARKER}
    return Reply(content=NamespaceResponse(namespace=request.namespace, properties=properties))


def exists(catalog: Catalog, request: Request) -> Reply:
    require(catalog, request.namespace)
    return NO_CONTENT


def update_properties(catalog: Catalog, request: Request) -> Reply:
    body = request.model(UpdateNamespacePropertiesRequest)
    removals, updates = set(body.removals or ()), body.updates or {}
    if isinstance(catalog, SqlCatalog) and (removals | set(updates)) & set(MARKER):
        raise bad_request(f"the catalog keeps the property {', '.join(MARKER)} for itself")
    if both := removals & set(updates):
        raise bad_request(f"removals and updates both name {', '.join(sorted(both))}")
    require(catalog, request.namespace)
    done = catalog.update_namespace_properties(request.namespace, removals, updates)
    return Reply(
        content=UpdateNamespacePropertiesResponse(
            removed=sorted(done.removed), updated=sorted(done.updated), missing=sorted(done.missing)
        )
    )


def drop(catalog: Catalog, request: Request) -> Reply:
    namespace = request.namespace
    require(catalog, namespace)
    if inner := catalog.list_namespaces(namespace):
        raise NamespaceNotEmptyError(f"Namespace {'.'.join(namespace)} is not empty: it holds {'.'.join(inner[0])}")
    catalog.drop_namespace(namespace)
    return NO_CONTENT


def require(catalog: Catalog, namespace: Identifier) -> None:
    """Raises NoSuchNamespaceError in Iceberg's words, which Java's users know; pyiceberg has several of its own."""
    if not catalog.namespace_exists(namespace):
        raise NoSuchNamespaceError(f"Namespace does not exist: {'.'.join(namespace)}")


def check_levels(namespace: Identifier) -> None:
    """The levels of a namespace are joined with dots wherever a catalog keeps them as text."""
    if not namespace or any(not level.strip() or level != level.strip() or "." in level for level in namespace):
        raise bad_request("each level of a namespace must be text without dots and without blanks around it")


def _next(token: str | None) -> dict[str, Any]:
    return {"next-page-token": token} if token else {}
