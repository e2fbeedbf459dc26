"""Where a request's topic and partition lead."""

from types import SimpleNamespace
from uuid import UUID

import pytest
from support.two_brokers import OTHER, OWN, two_brokers

from streamlake.cluster.store.topic_rows import PartitionInfo, TopicInfo
from streamlake.handlers.context import Located, default_partitions, find_partition, find_topic
from streamlake.protocol.errors import ErrorCode

TOPIC = TopicInfo(
    "t", UUID(int=1), {}, (*(PartitionInfo(n, n, OWN.node) for n in range(2)), PartitionInfo(2, 12, OTHER.node))
)
OPEN = SimpleNamespace(leader_epoch=5)
CTX = SimpleNamespace(
    brokers=two_brokers(),
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
        (2, -1, ErrorCode.NOT_LEADER_OR_FOLLOWER),
        (3, -1, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        (-1, -1, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
    ],
)
def test_a_partition_and_the_clients_idea_of_its_leader(index: int, epoch: int, code: ErrorCode) -> None:
    assert find_partition(CTX, TOPIC, index, epoch) == Located(code, OPEN if code is ErrorCode.NONE else None)


def test_what_is_wrong_with_the_topic_is_told_of_its_partitions() -> None:
    assert find_partition(CTX, ErrorCode.UNKNOWN_TOPIC_ID, 0) == Located(ErrorCode.UNKNOWN_TOPIC_ID, None)


def test_the_default_number_of_partitions() -> None:
    configs = SimpleNamespace(value={"num.partitions": 3}.__getitem__)
    assert default_partitions(SimpleNamespace(broker_configs=configs)) == 3
