import aiokafka.errors
from kio.schema.errors import ErrorCode as KioErrorCode

from streamlake.protocol.errors import ErrorCode


def test_codes_are_kafkas() -> None:
    assert {e.name: int(e) for e in ErrorCode} == {e.name.upper(): int(e) for e in KioErrorCode}
    assert {e for e in ErrorCode if e.retriable} == {ErrorCode(int(e)) for e in KioErrorCode if e.retriable}


# Codes that aiokafka calls by another, older name.
OLD_NAMES = {-1, 0, 6, 10, 13, 17, 39}


def test_a_client_that_shares_no_source_with_kio_agrees() -> None:
    errors = [e for e in vars(aiokafka.errors).values() if isinstance(getattr(e, "errno", None), int)]
    theirs = {e.errno: e.message for e in errors if e.errno not in OLD_NAMES}
    shared = {e for e in ErrorCode if e in theirs}
    assert len(shared) > 60
    assert all(e.name == theirs[e] for e in shared)


def test_a_code_is_a_number_with_words() -> None:
    assert ErrorCode(3) is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert ErrorCode.UNKNOWN_TOPIC_OR_PARTITION == 3 and ErrorCode.UNKNOWN_TOPIC_OR_PARTITION.retriable
    assert ErrorCode.NONE.message == "none" and not ErrorCode.NONE.retriable
    assert ErrorCode.OFFSET_OUT_OF_RANGE.message == "offset out of range"
