"""Error answers, and what those of our own errors are."""

import json

import pytest

from streamlake.core.errors import Conflict, Full, Invalid, NotFound, OutcomeUnknown, StreamLakeError, Unavailable
from streamlake.iceberg_rest.problem import MESSAGE_CHARS_MAX, problem_body, problem_of_ours


def test_messages_have_a_limit() -> None:
    body = json.loads(problem_body(400, "BadRequestException", "x" * 10 * MESSAGE_CHARS_MAX))
    assert len(body["error"]["message"]) == MESSAGE_CHARS_MAX


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Invalid("no"), 400),
        (NotFound("no"), 404),
        (Conflict("no"), 409),
        (OutcomeUnknown("?"), 504),
        (Unavailable("later"), 503),
        (Full("later"), 503),
    ],
)
def test_statuses_of_our_errors(error: StreamLakeError, status: int) -> None:
    problem = problem_of_ours(error)
    assert (problem.status, str(problem)) == (status, str(error))
    assert json.loads(problem.body())["error"] == {"message": str(error), "type": problem.kind, "code": status}
