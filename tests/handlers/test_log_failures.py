"""Every error of the log has a code that makes clients do the right thing."""

import pytest

from streamlake.core import errors as core
from streamlake.handlers.log_failures import log_failure
from streamlake.log import errors
from streamlake.protocol.errors import ErrorCode

CODES = {
    "CorruptBatch": ErrorCode.CORRUPT_MESSAGE,
    "InvalidProducerEpoch": ErrorCode.INVALID_PRODUCER_EPOCH,
    "InvalidRecord": ErrorCode.INVALID_RECORD,
    "InvalidTimestamp": ErrorCode.INVALID_TIMESTAMP,
    "OffsetOutOfRange": ErrorCode.OFFSET_OUT_OF_RANGE,
    "OutOfOrderSequence": ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
    "RecordTooLarge": ErrorCode.MESSAGE_TOO_LARGE,
    "UnsupportedFormat": ErrorCode.UNSUPPORTED_FOR_MESSAGE_FORMAT,
}


@pytest.mark.parametrize("name", errors.__all__)
def test_errors_of_the_log(name: str) -> None:
    kind = getattr(errors, name)
    error = kind(1, 2, 3) if name == "OffsetOutOfRange" else kind("the reason")
    assert log_failure(error) == (CODES[name], str(error))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (core.Fenced("x"), ErrorCode.NOT_LEADER_OR_FOLLOWER),
        (core.Closed("x"), ErrorCode.NOT_LEADER_OR_FOLLOWER),
        (core.Corrupt("x"), ErrorCode.KAFKA_STORAGE_ERROR),
        (core.Invalid("x"), ErrorCode.INVALID_RECORD),
    ],
)
def test_other_errors(error: core.StreamLakeError, code: ErrorCode) -> None:
    assert log_failure(error).code is code
