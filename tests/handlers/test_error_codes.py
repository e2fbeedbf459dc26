"""Every kind of error has a code that makes clients do the right thing, in each family of APIs."""

import pytest

from streamlake.coordinator.classic.api import GroupError
from streamlake.core import errors
from streamlake.handlers import error_codes
from streamlake.handlers.error_codes import (
    COMMON,
    CONFIG,
    FETCH,
    LOG,
    PARTITION_COUNT,
    REPLICA_ASSIGNMENT,
    RESERVATION,
    TOPIC_NAME,
    Codes,
    failure,
    group_code,
)
from streamlake.log import errors as log_errors
from streamlake.protocol.errors import ErrorCode

KINDS = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, errors.StreamLakeError)]
ALL_BUT_INVALID = [kind for kind in KINDS if kind is not errors.Invalid]
CODES = {
    errors.Invalid: ErrorCode.INVALID_REQUEST,
    errors.NotFound: ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
    errors.Exists: ErrorCode.TOPIC_ALREADY_EXISTS,
    errors.Fenced: ErrorCode.NOT_LEADER_OR_FOLLOWER,
    errors.Closed: ErrorCode.NOT_LEADER_OR_FOLLOWER,
    errors.Unavailable: ErrorCode.REQUEST_TIMED_OUT,
    errors.Full: ErrorCode.REQUEST_TIMED_OUT,
    errors.OutcomeUnknown: ErrorCode.REQUEST_TIMED_OUT,
    errors.Conflict: ErrorCode.REQUEST_TIMED_OUT,
    errors.Corrupt: ErrorCode.KAFKA_STORAGE_ERROR,
    errors.StreamLakeError: ErrorCode.UNKNOWN_SERVER_ERROR,
}
LOG_CODES = {
    "CorruptBatch": ErrorCode.CORRUPT_MESSAGE,
    "InvalidProducerEpoch": ErrorCode.INVALID_PRODUCER_EPOCH,
    "InvalidRecord": ErrorCode.INVALID_RECORD,
    "InvalidTimestamp": ErrorCode.INVALID_TIMESTAMP,
    "InvalidTransactionState": ErrorCode.INVALID_TXN_STATE,
    "NotVerified": ErrorCode.NOT_ENOUGH_REPLICAS,
    "CoordinatorFenced": ErrorCode.TRANSACTION_COORDINATOR_FENCED,
    "OffsetOutOfRange": ErrorCode.OFFSET_OUT_OF_RANGE,
    "OutOfOrderSequence": ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
    "RecordTooLarge": ErrorCode.MESSAGE_TOO_LARGE,
    "UnsupportedFormat": ErrorCode.UNSUPPORTED_FOR_MESSAGE_FORMAT,
}
FAMILIES = {
    "COMMON": ErrorCode.INVALID_REQUEST,
    "TOPIC_NAME": ErrorCode.INVALID_TOPIC_EXCEPTION,
    "PARTITION_COUNT": ErrorCode.INVALID_PARTITIONS,
    "REPLICA_ASSIGNMENT": ErrorCode.INVALID_REPLICA_ASSIGNMENT,
    "CONFIG": ErrorCode.INVALID_CONFIG,
    "LOG": ErrorCode.INVALID_RECORD,
    "RESERVATION": ErrorCode.MESSAGE_TOO_LARGE,
    "FETCH": ErrorCode.INVALID_RECORD,
}


def log_error(name: str) -> errors.StreamLakeError:
    kind = getattr(log_errors, name)
    return kind(1, 2, 3) if name == "OffsetOutOfRange" else kind("the reason")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_error_has_a_code(kind: type[errors.StreamLakeError]) -> None:
    assert failure(kind("the reason")) == (CODES[kind], "the reason")


@pytest.mark.parametrize("codes", [TOPIC_NAME, PARTITION_COUNT, REPLICA_ASSIGNMENT, CONFIG, LOG, RESERVATION])
@pytest.mark.parametrize("kind", ALL_BUT_INVALID)
def test_all_but_invalid_mean_the_same_to_those_who_change_something(
    kind: type[errors.StreamLakeError], codes: Codes
) -> None:
    assert failure(kind("x"), codes) == failure(kind("x"), COMMON)


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_invalid_depends_on_the_api(name: str) -> None:
    assert failure(errors.Invalid("x"), getattr(error_codes, name)).code is FAMILIES[name]


@pytest.mark.parametrize("name", log_errors.__all__)
def test_errors_of_the_log(name: str) -> None:
    error = log_error(name)
    assert failure(error, LOG) == failure(error, FETCH) == (LOG_CODES[name], str(error))
    assert failure(error).code in (ErrorCode.INVALID_REQUEST, ErrorCode.KAFKA_STORAGE_ERROR)


@pytest.mark.parametrize("kind", ALL_BUT_INVALID)
def test_consumers_try_again_what_may_pass(kind: type[errors.StreamLakeError]) -> None:
    passes = CODES[kind] is ErrorCode.REQUEST_TIMED_OUT
    assert failure(kind("x"), FETCH).code is (ErrorCode.REPLICA_NOT_AVAILABLE if passes else CODES[kind])


def test_a_subclass_has_the_code_of_its_kind() -> None:
    class TornPage(errors.Corrupt):
        pass

    assert failure(TornPage("x"), LOG).code is ErrorCode.KAFKA_STORAGE_ERROR


def test_errors_of_the_coordinator_have_the_names_of_the_codes() -> None:
    assert {group_code(error).name for error in GroupError} == {error.name for error in GroupError}
    assert group_code(GroupError.NONE) is ErrorCode.NONE
