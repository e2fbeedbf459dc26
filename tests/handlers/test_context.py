"""Where a request's topic and partition lead, and which code an error has."""

from types import SimpleNamespace
from uuid import UUID

import pytest

from streamlake.cluster.topics import PartitionInfo, TopicInfo
from streamlake.core import errors
from streamlake.handlers.context import Located, default_partitions, failure, find_partition, find_topic
from streamlake.protocol.errors import ErrorCode

TOPIC = TopicInfo("t", UUID(int=1), {}, (PartitionInfo(0, 10), PartitionInfo(1, 11)))
OPEN = SimpleNamespace(leader_epoch=5)
CTX = SimpleNamespace(
    topics=SimpleNamespace(get={"t": TOPIC}.get, by_id={TOPIC.id: TOPIC}.get),
    logs=SimpleNamespace(get=lambda topic_id, index: OPEN if (topic_id, index) == (TOPIC.id, 0) else None),
)


def test_a_topic_by_name_or_id() -> None:
    assert find_topic(CTX, "t", None) is TOPIC
    assert find_topic(CTX, "", TOPIC.id) is TOPIC
    assert find_topic(CTX, "other", None) is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert find_topic(CTX, "t", UUID(int=2)) is ErrorCode.UNKNOWN_TOPIC_ID


@pytest.mark.parametrize(
    ("index", "epoch", "code"),
    [
        (0, -1, ErrorCode.NONE),
        (0, 5, ErrorCode.NONE),
        (0, 4, ErrorCode.FENCED_LEADER_EPOCH),
        (0, 0, ErrorCode.FENCED_LEADER_EPOCH),
        (0, 6, ErrorCode.UNKNOWN_LEADER_EPOCH),
        (1, -1, ErrorCode.NOT_LEADER_OR_FOLLOWER),
        (2, -1, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        (-1, -1, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
    ],
)
def test_a_partition_and_the_clients_idea_of_its_leader(index: int, epoch: int, code: ErrorCode) -> None:
    assert find_partition(CTX, TOPIC, index, epoch) == Located(code, OPEN if code is ErrorCode.NONE else None)


def test_what_is_wrong_with_the_topic_is_told_of_its_partitions() -> None:
    assert find_partition(CTX, ErrorCode.UNKNOWN_TOPIC_ID, 0) == Located(ErrorCode.UNKNOWN_TOPIC_ID, None)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.Invalid, ErrorCode.INVALID_REQUEST),
        (errors.NotFound, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        (errors.Exists, ErrorCode.TOPIC_ALREADY_EXISTS),
        (errors.Fenced, ErrorCode.NOT_LEADER_OR_FOLLOWER),
        (errors.Closed, ErrorCode.NOT_LEADER_OR_FOLLOWER),
        (errors.Unavailable, ErrorCode.REQUEST_TIMED_OUT),
        (errors.Full, ErrorCode.REQUEST_TIMED_OUT),
        (errors.OutcomeUnknown, ErrorCode.REQUEST_TIMED_OUT),
        (errors.Conflict, ErrorCode.REQUEST_TIMED_OUT),
        (errors.Corrupt, ErrorCode.KAFKA_STORAGE_ERROR),
        (errors.StreamLakeError, ErrorCode.UNKNOWN_SERVER_ERROR),
    ],
)
def test_every_kind_of_error_has_a_code(error: type[errors.StreamLakeError], code: ErrorCode) -> None:
    assert failure(error("the reason")) == (code, "the reason")


def test_all_kinds_of_core_errors_are_in_the_test_above() -> None:
    kinds = {e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, errors.StreamLakeError)}
    (marked,) = [m for m in test_every_kind_of_error_has_a_code.pytestmark if m.name == "parametrize"]
    assert kinds == {error for error, _ in marked.args[1]}


def test_invalid_means_what_the_api_says() -> None:
    assert failure(errors.Invalid("x"), ErrorCode.INVALID_CONFIG).code is ErrorCode.INVALID_CONFIG


def test_the_default_number_of_partitions() -> None:
    configs = SimpleNamespace(value={"num.partitions": 3}.__getitem__)
    assert default_partitions(SimpleNamespace(broker_configs=configs)) == 3
