"""The files of a table, for clients that ask for access to them: fresh keys, and signatures. s3/ knows how."""

from pyiceberg.catalog import Catalog
from pyiceberg.catalog.rest import LoadCredentialsResponse

from streamlake.iceberg_rest.problem import Problem
from streamlake.iceberg_rest.request import NO_STORE, Reply, Request
from streamlake.iceberg_rest.s3.access import VENDED
from streamlake.iceberg_rest.s3.signing import SignRequest

PRIVATE = "private"  # Java's client then uses a signature for the same request again, for half a minute


def load_credentials(catalog: Catalog, request: Request) -> Reply:
    """Keys like those that the table came with, for a client that has used them for a while."""
    if request.access is None or not request.access.vends:
        raise Problem(
            406, "UnsupportedOperationException", "this server gives no credentials: see http.vend_credentials"
        )
    location = catalog.load_table(request.table).metadata.location
    grant = request.access.grant({VENDED}, request.table, location)
    return Reply(content=LoadCredentialsResponse(storage_credentials=grant.credentials), cache=NO_STORE)  # type: ignore[call-arg]


def sign(catalog: Catalog, request: Request) -> Reply:
    if request.access is None or not request.access.signs:
        raise Problem(406, "UnsupportedOperationException", "this server signs no requests: see http.sign_requests")
    asked = request.model(SignRequest)
    headers = request.access.signer.sign(request.access.place(request.table), asked)
    cache = PRIVATE if asked.method in ("GET", "HEAD") else NO_STORE
    return Reply(content={"uri": asked.uri, "headers": headers}, cache=cache)
