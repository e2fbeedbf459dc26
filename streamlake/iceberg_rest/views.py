"""Views: there are none. Engines ask for them all the same, and go on when the answer is the specification's 404."""

from pyiceberg.catalog import Catalog
from pyiceberg.catalog.rest import ListViewsResponse
from pyiceberg.exceptions import NoSuchViewError

from streamlake.iceberg_rest import namespaces
from streamlake.iceberg_rest.problem import Problem
from streamlake.iceberg_rest.request import Reply, Request


def list_views(catalog: Catalog, request: Request) -> Reply:
    namespaces.require(catalog, request.namespace)
    return Reply(content=ListViewsResponse(identifiers=[]))


def load(catalog: Catalog, request: Request) -> Reply:
    view = ".".join((*request.namespace, request.parameters["view"]))
    raise NoSuchViewError(f"View does not exist: {view}")


def create(catalog: Catalog, request: Request) -> Reply:
    raise Problem(406, "UnsupportedOperationException", "this catalog keeps no views")
