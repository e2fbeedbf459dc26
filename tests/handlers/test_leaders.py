"""Which broker leads a partition, as this one knows."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from support.two_brokers import OTHER, OWN, two_brokers

from streamlake.cluster.store.topic_rows import PartitionInfo, TopicInfo
from streamlake.handlers.leaders import NOBODY, Leader, hinted_brokers, leader_hint, leader_of
from streamlake.protocol.errors import ErrorCode

TOPIC = TopicInfo("t", UUID(int=1), {}, tuple(PartitionInfo(n, n, OWN.node) for n in range(3)))
OPEN = SimpleNamespace(leader_epoch=5)
VIEW: Any = SimpleNamespace(
    brokers=two_brokers(),
    handovers=SimpleNamespace(until_over=lambda topic_id, index: object() if index == 2 else None),
    logs=SimpleNamespace(get=lambda topic_id, index: OPEN if (topic_id, index) == (TOPIC.id, 0) else None),
)


def topic(node: int | None, owner: int | None, owner_epoch: int = 0) -> TopicInfo:
    """Its partitions are assigned to this node, and were opened by that life of a node, in epoch 7."""
    changed = {"node": node, "owner": owner, "owner_epoch": owner_epoch, "epoch": 7}
    return replace(TOPIC, partitions=tuple(replace(partition, **changed) for partition in TOPIC.partitions))


@pytest.mark.parametrize(
    ("index", "found", "leader"),
    [
        (0, topic(OWN.node, None), Leader(1, 5)),  # its log knows best
        (0, topic(OTHER.node, OWN.node, OWN.epoch), Leader(1, 5)),  # it serves until it is closed
        (1, topic(OWN.node, None), NOBODY),
        (2, topic(OWN.node, None), Leader(1, 7)),  # it will be open before long: requests for it wait
        (1, topic(OWN.node, OWN.node, OWN.epoch), NOBODY),  # it could not be read
        (1, topic(OWN.node, OTHER.node, OTHER.epoch), Leader(2, 7)),
        (1, topic(OTHER.node, OTHER.node, OTHER.epoch), Leader(2, 7)),
        (1, topic(OTHER.node, OWN.node, OWN.epoch), Leader(2, 7)),  # we have just closed it
        (1, topic(OTHER.node, None), Leader(2, 7)),
        (1, topic(OTHER.node, OTHER.node, OTHER.epoch - 1), Leader(2, 7)),
        (1, topic(OWN.node, OTHER.node, OTHER.epoch - 1), NOBODY),  # a life that is over
        (1, topic(OTHER.node, 3, 1), Leader(2, 7)),  # its broker does not serve any more
        (1, topic(3, None), NOBODY),
        (1, topic(None, None), NOBODY),
    ],
)
def test_the_broker_leads_that_has_a_partition_open_or_is_to_open_it(index: int, found, leader: Leader) -> None:
    assert leader_of(VIEW, found, index) == leader


FENCED, MOVED = ErrorCode.FENCED_LEADER_EPOCH, ErrorCode.NOT_LEADER_OR_FOLLOWER


@pytest.mark.parametrize(
    ("index", "found", "code", "hint"),
    [
        (1, topic(OTHER.node, OTHER.node, OTHER.epoch), MOVED, Leader(2, 7)),
        (0, topic(OWN.node, OWN.node, OWN.epoch), FENCED, Leader(1, 5)),
        (0, topic(OWN.node, OWN.node, OWN.epoch), MOVED, NOBODY),  # it was opened since
        (1, topic(OTHER.node, None), MOVED, NOBODY),  # under which epoch it will be opened nobody knows
        (1, topic(OTHER.node, OTHER.node, OTHER.epoch), ErrorCode.UNKNOWN_LEADER_EPOCH, NOBODY),
        (1, topic(OTHER.node, OTHER.node, OTHER.epoch), ErrorCode.NONE, NOBODY),
    ],
)
def test_who_asks_the_wrong_broker_is_told_the_one_that_has_it_open(index, found, code, hint) -> None:
    assert leader_hint(VIEW, code, found, index) == hint


def test_there_is_no_hint_for_a_topic_that_is_not_there() -> None:
    assert leader_hint(VIEW, ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.UNKNOWN_TOPIC_ID, 0) == NOBODY
    assert leader_hint(VIEW, ErrorCode.NOT_LEADER_OR_FOLLOWER, TOPIC, 3) == NOBODY, "nor for one that was made anew"


def test_the_brokers_of_hints() -> None:
    assert hinted_brokers(VIEW, {2, -1, 3}) == [OTHER]
    assert hinted_brokers(VIEW, {2, 1}) == [OWN, OTHER]
    assert hinted_brokers(VIEW, set()) == []
