"""The coordinator's errors as Kafka's codes: they have the same names."""

from streamlake.coordinator.classic.api import GroupError
from streamlake.protocol.errors import ErrorCode

CODES = {error: ErrorCode[error.name] for error in GroupError}


def code_of(error: GroupError) -> ErrorCode:
    return CODES[error]
