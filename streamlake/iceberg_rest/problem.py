"""An error answer as the REST specification words it, which calls its body an ErrorModel: message, type, code.

The server answers with it too, and must start without pyiceberg: what a catalog raises is in `errors`.
"""

from collections.abc import Sequence

import msgspec

from streamlake.core.errors import Conflict, Invalid, NotFound, OutcomeUnknown, StreamLakeError

MESSAGE_CHARS_MAX = 2000

# The first that fits, for requests that are no catalog's.
_OURS: Sequence[tuple[type[StreamLakeError], int, str]] = (
    (Invalid, 400, "BadRequestException"),
    (NotFound, 404, "NotFoundException"),
    (Conflict, 409, "ConflictException"),
    (OutcomeUnknown, 504, "OutcomeUnknownException"),
    (StreamLakeError, 503, "ServiceUnavailableException"),
)


class Problem(Exception):
    """An error answer in the specification's words."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind

    def body(self) -> bytes:
        return problem_body(self.status, self.kind, str(self))


def problem_body(status: int, kind: str, message: str) -> bytes:
    return msgspec.json.encode({"error": {"message": message[:MESSAGE_CHARS_MAX], "type": kind, "code": status}})


def problem_of_ours(error: StreamLakeError) -> Problem:
    """What to answer for an error of a request that is no catalog's."""
    status, kind = next((status, kind) for type, status, kind in _OURS if isinstance(error, type))
    return Problem(status, kind, str(error))
