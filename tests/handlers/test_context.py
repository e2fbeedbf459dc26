"""Where a request's topic and partition lead."""

from types import SimpleNamespace
from uuid import UUID

import pytest
from support.two_brokers import OTHER, OWN, two_brokers

from streamlake.cluster.topics import PartitionInfo, TopicInfo
from streamlake.handlers import context as module
from streamlake.handlers.context import (
    NOBODY,
    Leader,
    Located,
    default_partitions,
    find_partition,
    find_topic,
    hinted_brokers,
    leader_hint,
    leader_of,
)
from streamlake.protocol.errors import ErrorCode

TOPIC = TopicInfo(
    "t", UUID(int=1), {}, tuple(PartitionInfo(at, 10 + at, node) for at, node in enumerate((1, 1, 2, 3, None)))
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
        (5, -1, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        (-1, -1, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
    ],
)
def test_a_partition_and_the_clients_idea_of_its_leader(index: int, epoch: int, code: ErrorCode) -> None:
    assert find_partition(CTX, TOPIC, index, epoch) == Located(code, OPEN if code is ErrorCode.NONE else None)


def test_what_is_wrong_with_the_topic_is_told_of_its_partitions() -> None:
    assert find_partition(CTX, ErrorCode.UNKNOWN_TOPIC_ID, 0) == Located(ErrorCode.UNKNOWN_TOPIC_ID, None)


def test_a_partition_is_led_by_the_broker_that_it_is_assigned_to() -> None:
    assert leader_of(CTX, TOPIC, 0) == Leader(1, 5)
    assert leader_of(CTX, TOPIC, 1) == Leader(1, -1), "not open yet"
    assert leader_of(CTX, TOPIC, 2) == Leader(2, -1), "its epoch is not known here"
    assert leader_of(CTX, TOPIC, 3) == NOBODY, "that broker does not serve"
    assert leader_of(CTX, TOPIC, 4) == NOBODY


@pytest.mark.parametrize(
    ("leader", "code", "hint"),
    [
        (Leader(2, 7), ErrorCode.NOT_LEADER_OR_FOLLOWER, Leader(2, 7)),
        (Leader(2, 7), ErrorCode.FENCED_LEADER_EPOCH, Leader(2, 7)),
        (Leader(1, 5), ErrorCode.FENCED_LEADER_EPOCH, Leader(1, 5)),
        (Leader(1, 5), ErrorCode.NOT_LEADER_OR_FOLLOWER, NOBODY),  # we say that we do not lead it
        (Leader(2, -1), ErrorCode.NOT_LEADER_OR_FOLLOWER, NOBODY),  # it does not lead it yet
        (Leader(3, 7), ErrorCode.NOT_LEADER_OR_FOLLOWER, NOBODY),  # it does not serve
        (Leader(2, 7), ErrorCode.UNKNOWN_LEADER_EPOCH, NOBODY),
        (Leader(2, 7), ErrorCode.NONE, NOBODY),
    ],
)
def test_who_asks_the_wrong_broker_is_told_the_right_one(monkeypatch, leader, code, hint) -> None:
    monkeypatch.setattr(module, "leader_of", lambda ctx, topic, index: leader)
    assert leader_hint(CTX, code, TOPIC, 0) == hint


def test_there_is_no_hint_for_a_topic_that_is_not_there() -> None:
    assert leader_hint(CTX, ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.UNKNOWN_TOPIC_ID, 0) == NOBODY
    assert leader_hint(CTX, ErrorCode.NOT_LEADER_OR_FOLLOWER, TOPIC, len(TOPIC.partitions)) == NOBODY, "made anew"


def test_the_brokers_of_hints() -> None:
    assert hinted_brokers(CTX, {2, -1, 3}) == [OTHER]
    assert hinted_brokers(CTX, {2, 1}) == [OWN, OTHER]
    assert hinted_brokers(CTX, set()) == []


def test_the_default_number_of_partitions() -> None:
    configs = SimpleNamespace(value={"num.partitions": 3}.__getitem__)
    assert default_partitions(SimpleNamespace(broker_configs=configs)) == 3
