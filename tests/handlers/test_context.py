"""Where a request's topic and partition lead."""

from dataclasses import replace
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


@pytest.mark.parametrize(
    ("index", "node", "leader"),
    [
        (0, 1, Leader(1, 5)),
        (1, 1, NOBODY),  # it is not open yet
        (0, 2, Leader(2, -1)),  # it is to be closed here
        (1, 2, Leader(2, -1)),
        (1, 3, NOBODY),  # that broker does not serve
        (1, None, NOBODY),
    ],
)
def test_the_broker_leads_to_which_a_partition_is_assigned(index: int, node: int | None, leader: Leader) -> None:
    partitions = [replace(partition, node=node) for partition in TOPIC.partitions]
    assert leader_of(CTX, replace(TOPIC, partitions=tuple(partitions)), index) == leader


@pytest.mark.parametrize(
    ("leader", "code", "hint"),
    [
        (Leader(2, 7), ErrorCode.NOT_LEADER_OR_FOLLOWER, Leader(2, 7)),
        (Leader(2, 7), ErrorCode.FENCED_LEADER_EPOCH, Leader(2, 7)),
        (Leader(1, 5), ErrorCode.FENCED_LEADER_EPOCH, Leader(1, 5)),
        (Leader(1, 5), ErrorCode.NOT_LEADER_OR_FOLLOWER, NOBODY),  # we say that we do not lead it
        (NOBODY, ErrorCode.NOT_LEADER_OR_FOLLOWER, NOBODY),
        (Leader(2, 7), ErrorCode.UNKNOWN_LEADER_EPOCH, NOBODY),
        (Leader(2, 7), ErrorCode.NONE, NOBODY),
    ],
)
def test_who_asks_the_wrong_broker_is_told_the_right_one(monkeypatch, leader, code, hint) -> None:
    monkeypatch.setattr(module, "leader_of", lambda ctx, topic, index: leader)
    assert leader_hint(CTX, code, TOPIC, 0) == hint


def test_there_is_no_hint_for_a_topic_that_is_not_there() -> None:
    assert leader_hint(CTX, ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.UNKNOWN_TOPIC_ID, 0) == NOBODY
    assert leader_hint(CTX, ErrorCode.NOT_LEADER_OR_FOLLOWER, TOPIC, 3) == NOBODY, "nor for one that was made anew"


def test_the_brokers_of_hints() -> None:
    assert hinted_brokers(CTX, {2, -1, 3}) == [OTHER]
    assert hinted_brokers(CTX, {2, 1}) == [OWN, OTHER]
    assert hinted_brokers(CTX, set()) == []


def test_the_default_number_of_partitions() -> None:
    configs = SimpleNamespace(value={"num.partitions": 3}.__getitem__)
    assert default_partitions(SimpleNamespace(broker_configs=configs)) == 3
