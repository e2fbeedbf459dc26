"""From errors to answers: clients decide by the status whether a commit may be sent again."""

import json

import pytest
import requests
from pyiceberg import exceptions as iceberg
from pyiceberg.catalog.rest import CreateTableRequest
from sqlalchemy.exc import OperationalError

from streamlake.core.errors import Conflict, Invalid, Unavailable
from streamlake.iceberg_rest.errors import problem_of
from streamlake.iceberg_rest.problem import Problem

SECRET = "postgresql://user:hidden@host"


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (iceberg.NoSuchTableError("t"), 404, "NoSuchTableException"),
        (iceberg.NoSuchIcebergTableError("t"), 404, "NoSuchTableException"),
        (iceberg.CommitFailedException("no"), 409, "CommitFailedException"),
        (iceberg.CommitStateUnknownException("?"), 500, "CommitStateUnknownException"),
        (iceberg.ServiceUnavailableError("later"), 503, "ServiceUnavailableException"),
        (Unavailable("later"), 503, "ServiceUnavailableException"),
        (Invalid("no"), 400, "BadRequestException"),
        (ValueError("no"), 400, "BadRequestException"),
        (FileNotFoundError("Cannot open file, does not exist: /a/b.json"), 404, "NotFoundException"),
        (NotImplementedError(), 406, "UnsupportedOperationException"),
        (Problem(418, "Teapot", "short"), 418, "Teapot"),
        (KeyError("bug"), 500, "InternalServerError"),
    ],
)
def test_known_errors(error: Exception, status: int, kind: str) -> None:
    problem = problem_of(error, "POST", "p")
    assert (problem.status, problem.kind) == (status, kind)
    assert json.loads(problem.body())["error"] == {"message": str(problem), "type": kind, "code": status}
    assert str(problem)


@pytest.mark.parametrize(
    "error",
    [
        OSError(SECRET),
        requests.ConnectionError(SECRET),
        OperationalError("SELECT", {}, Exception(SECRET)),
        Conflict(SECRET),
        iceberg.UnauthorizedError(SECRET),
    ],
)
def test_without_an_answer_of_the_catalog_behind_a_write_may_have_happened(error: Exception) -> None:
    read, write = problem_of(error, "GET", "p"), problem_of(error, "POST", "p")
    assert (read.status, read.kind) == (503, "ServiceUnavailableException")
    assert (write.status, write.kind) == (504, "CommitStateUnknownException")
    assert "hidden" not in str(read) + str(write), "words of drivers stay in the log"


def test_what_a_model_does_not_take_is_named_but_not_shown() -> None:
    with pytest.raises(ValueError) as refused:
        CreateTableRequest.model_validate({"name": SECRET, "schema": {"type": SECRET}})
    problem = problem_of(refused.value, "POST", "p")
    assert problem.status == 400 and "schema" in str(problem) and "hidden" not in str(problem)
