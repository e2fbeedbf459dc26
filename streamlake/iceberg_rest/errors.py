"""What is answered for an error that a catalog raised: THE table to HTTP status and Iceberg's exception names.

Clients choose what they raise by the status, and whether they send a commit again: 409 means that nothing of it landed,
500, 502 and 504 that nobody knows, 503 that it may be sent again later.
"""

from collections.abc import Sequence

import requests
import structlog
from pydantic import ValidationError as ModelError
from pyiceberg import exceptions as iceberg
from sqlalchemy.exc import SQLAlchemyError

from streamlake.core.errors import Invalid, StreamLakeError, Unavailable
from streamlake.iceberg_rest.problem import Problem

log = structlog.get_logger(__name__)

READS = ("GET", "HEAD")


def bad_request(message: str) -> Problem:
    return Problem(400, "BadRequestException", message)


# The first that fits. What a catalog says of names and commits is meant for the client, so its words go along.
_KNOWN: Sequence[tuple[type[Exception], int, str]] = (
    (iceberg.NoSuchTableError, 404, "NoSuchTableException"),
    (iceberg.NoSuchNamespaceError, 404, "NoSuchNamespaceException"),
    (iceberg.NoSuchViewError, 404, "NoSuchViewException"),
    (iceberg.TableAlreadyExistsError, 409, "AlreadyExistsException"),
    (iceberg.NamespaceAlreadyExistsError, 409, "AlreadyExistsException"),
    (iceberg.ViewAlreadyExistsError, 409, "AlreadyExistsException"),
    (iceberg.NamespaceNotEmptyError, 409, "NamespaceNotEmptyException"),
    (iceberg.CommitFailedException, 409, "CommitFailedException"),
    (iceberg.CommitStateUnknownException, 500, "CommitStateUnknownException"),
    (iceberg.TooManyRequestsError, 503, "ServiceUnavailableException"),
    (iceberg.ServiceUnavailableError, 503, "ServiceUnavailableException"),
    (iceberg.ForbiddenError, 403, "ForbiddenException"),
    (iceberg.BadRequestError, 400, "BadRequestException"),
    (NotImplementedError, 406, "UnsupportedOperationException"),
    (Unavailable, 503, "ServiceUnavailableException"),
    (Invalid, 400, "BadRequestException"),
    (ValueError, 400, "BadRequestException"),
)
_UNREACHABLE = (OSError, requests.RequestException, SQLAlchemyError, StreamLakeError, iceberg.RESTError)


def problem_of(error: Exception, method: str, path: str) -> Problem:
    """What to answer for an error that a catalog raised."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, ModelError):  # a ValueError too, whose own words show the input
        return bad_request(f"the body is not what this request takes: {describe_model_error(error)}")
    if isinstance(
        error, FileNotFoundError
    ):  # a table whose metadata file is gone; these are the words of Iceberg's Java
        lost = str(error).rpartition(" ")[2]
        return Problem(404, "NotFoundException", f"Failed to open input stream for file: {lost}")
    for kind, status, name in _KNOWN:
        if isinstance(error, kind):
            return Problem(status, name, " ".join(str(error).split()) or name)
    # Nobody knows what words of a driver or a library hold: they go into the log only.
    log.warning("a catalog request failed", method=method, path=path, exc_info=error)
    if not isinstance(error, _UNREACHABLE):
        return Problem(500, "InternalServerError", "the request failed: the server's log says why")
    if method in READS:
        return Problem(503, "ServiceUnavailableException", "the catalog behind this server cannot be reached now")
    # It may have reached the catalog behind us: only 500, 502 and 504 tell a client not to send a commit again.
    return Problem(
        504, "CommitStateUnknownException", "the catalog behind this server did not answer: it may have happened"
    )


def describe_model_error(error: ModelError) -> str:
    """Where and what, without the input itself."""
    found = [
        f"{'.'.join(str(part) for part in e['loc']) or 'body'}: {e['msg']}"
        for e in error.errors(include_url=False, include_input=False, include_context=False)
    ]
    return "; ".join(found[:3])
