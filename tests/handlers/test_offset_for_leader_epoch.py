"""OffsetForLeaderEpoch: where an epoch ended."""

import pytest
from support.raw_kafka import batch
from support.wire import Client, Topic, ends, newest

from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.offset_for_leader_epoch import (
    EpochEndOffset,
    OffsetForLeaderEpochRequest,
    OffsetForLeaderPartition,
    OffsetForLeaderTopic,
)


def ask(
    client: Client, topic: str, epoch: int, version: int | None = None, current: int = -1, index: int = 0
) -> EpochEndOffset:
    asked = OffsetForLeaderTopic(topic, (OffsetForLeaderPartition(index, current, epoch),))
    version = newest(ApiKey.OFFSET_FOR_LEADER_EPOCH) if version is None else version
    (found,) = client.ask(ApiKey.OFFSET_FOR_LEADER_EPOCH, version, OffsetForLeaderEpochRequest(-1, (asked,))).topics
    (answer,) = found.partitions
    assert (found.topic, answer.partition) == (topic, index)
    return answer


@pytest.mark.parametrize("version", ends(ApiKey.OFFSET_FOR_LEADER_EPOCH))
def test_the_current_epoch_ends_at_the_high_watermark(client: Client, topic: Topic, version: int) -> None:
    client.append(topic, batch([b"v"] * 4))
    found = ask(client, topic.name, 0, version)
    assert (found.error_code, found.leader_epoch, found.end_offset) == (0, 0, 4)


def test_epochs_that_never_were(client: Client, topic: Topic) -> None:
    for epoch in (1, 99, -1):
        found = ask(client, topic.name, epoch)
        assert (found.error_code, found.leader_epoch, found.end_offset) == (0, -1, -1)


def test_what_is_refused(client: Client, topic: Topic) -> None:
    assert ask(client, topic.name, 0, current=0).error_code == 0
    assert ask(client, topic.name, 0, current=1).error_code == ErrorCode.UNKNOWN_LEADER_EPOCH
    assert ask(client, topic.name, 0, index=1).error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert ask(client, "nowhere", 0).error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
