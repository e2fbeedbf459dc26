"""Errors as Kafka's codes: one table from the kind of error to the code, for each family of APIs.

The kinds are those of core/errors.py and their subclasses; the nearest kind in the table decides. A handler names the
family of the step that may fail.
"""

from collections.abc import Mapping
from typing import NamedTuple

from streamlake.coordinator.classic.api import GroupError
from streamlake.coordinator.transaction import TxnError
from streamlake.core import errors
from streamlake.log import errors as log_errors
from streamlake.protocol.errors import ErrorCode

Codes = Mapping[type[errors.StreamLakeError], ErrorCode]

COMMON: Codes = {
    errors.Invalid: ErrorCode.INVALID_REQUEST,
    errors.NotFound: ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
    errors.Exists: ErrorCode.TOPIC_ALREADY_EXISTS,
    errors.Fenced: ErrorCode.NOT_LEADER_OR_FOLLOWER,
    errors.Closed: ErrorCode.NOT_LEADER_OR_FOLLOWER,
    # Clients look what came of the request, or try again.
    errors.Unavailable: ErrorCode.REQUEST_TIMED_OUT,
    errors.Full: ErrorCode.REQUEST_TIMED_OUT,
    errors.OutcomeUnknown: ErrorCode.REQUEST_TIMED_OUT,
    errors.Conflict: ErrorCode.REQUEST_TIMED_OUT,
    errors.Corrupt: ErrorCode.KAFKA_STORAGE_ERROR,
    errors.StreamLakeError: ErrorCode.UNKNOWN_SERVER_ERROR,
}

# Changes of topics and configs, by the part of the request that is checked.
TOPIC_NAME: Codes = {**COMMON, errors.Invalid: ErrorCode.INVALID_TOPIC_EXCEPTION}
PARTITION_COUNT: Codes = {**COMMON, errors.Invalid: ErrorCode.INVALID_PARTITIONS}
REPLICA_ASSIGNMENT: Codes = {**COMMON, errors.Invalid: ErrorCode.INVALID_REPLICA_ASSIGNMENT}
CONFIG: Codes = {**COMMON, errors.Invalid: ErrorCode.INVALID_CONFIG}

# Records that are written or deleted.
LOG: Codes = {
    **COMMON,
    errors.Invalid: ErrorCode.INVALID_RECORD,
    log_errors.OffsetOutOfRange: ErrorCode.OFFSET_OUT_OF_RANGE,
    log_errors.OutOfOrderSequence: ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
    log_errors.InvalidProducerEpoch: ErrorCode.INVALID_PRODUCER_EPOCH,
    log_errors.InvalidTransactionState: ErrorCode.INVALID_TXN_STATE,
    log_errors.NotVerified: ErrorCode.NOT_ENOUGH_REPLICAS,  # clients send the batch again
    log_errors.CoordinatorFenced: ErrorCode.TRANSACTION_COORDINATOR_FENCED,
    log_errors.RecordTooLarge: ErrorCode.MESSAGE_TOO_LARGE,
    log_errors.CorruptBatch: ErrorCode.CORRUPT_MESSAGE,
    log_errors.InvalidRecord: ErrorCode.INVALID_RECORD,
    log_errors.UnsupportedFormat: ErrorCode.UNSUPPORTED_FOR_MESSAGE_FORMAT,
    log_errors.InvalidTimestamp: ErrorCode.INVALID_TIMESTAMP,
}
# Memory and WAL capacity for the records of a request: Invalid means that they can never fit.
RESERVATION: Codes = {**LOG, errors.Invalid: ErrorCode.MESSAGE_TOO_LARGE}
# Consumers try again for a few codes only. For others, REQUEST_TIMED_OUT among them, librdkafka's report an error to
# their users, and the Java client's throw an exception that nobody expects.
FETCH: Codes = {
    kind: ErrorCode.REPLICA_NOT_AVAILABLE if code == ErrorCode.REQUEST_TIMED_OUT else code for kind, code in LOG.items()
}

# The coordinator's errors have the names of Kafka's codes.
GROUP = {error: ErrorCode[error.name] for error in GroupError}
TXN = {error: ErrorCode[error.name] for error in TxnError}


class Failure(NamedTuple):
    code: ErrorCode
    message: str


def failure(error: errors.StreamLakeError, codes: Codes = COMMON) -> Failure:
    """The code and message of an error; `codes` is the family of the step that raised it."""
    return Failure(next(codes[kind] for kind in type(error).__mro__ if kind in codes), str(error))


def group_code(error: GroupError) -> ErrorCode:
    return GROUP[error]


def txn_code(error: TxnError, knows_fenced: bool = True) -> ErrorCode:
    """Versions of before KIP-588 do not know PRODUCER_FENCED."""
    if error is TxnError.PRODUCER_FENCED and not knows_fenced:
        return ErrorCode.INVALID_PRODUCER_EPOCH
    return TXN[error]
