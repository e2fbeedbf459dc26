"""The log's errors as Kafka's codes."""

from streamlake.core import errors
from streamlake.handlers.context import Failure, failure
from streamlake.log import errors as log_errors
from streamlake.protocol.errors import ErrorCode

CODES: dict[type[errors.StreamLakeError], ErrorCode] = {
    log_errors.OffsetOutOfRange: ErrorCode.OFFSET_OUT_OF_RANGE,
    log_errors.OutOfOrderSequence: ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
    log_errors.InvalidProducerEpoch: ErrorCode.INVALID_PRODUCER_EPOCH,
    log_errors.RecordTooLarge: ErrorCode.MESSAGE_TOO_LARGE,
    log_errors.CorruptBatch: ErrorCode.CORRUPT_MESSAGE,
    log_errors.InvalidRecord: ErrorCode.INVALID_RECORD,
    log_errors.UnsupportedFormat: ErrorCode.UNSUPPORTED_FOR_MESSAGE_FORMAT,
    log_errors.InvalidTimestamp: ErrorCode.INVALID_TIMESTAMP,
}


def log_failure(error: errors.StreamLakeError) -> Failure:
    """The code for an error of log/errors.py or core/errors.py."""
    code = CODES.get(type(error))
    if code is not None:
        return Failure(code, str(error))
    return failure(error, invalid=ErrorCode.INVALID_RECORD)
