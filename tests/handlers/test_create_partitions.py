"""CreatePartitions: topics only grow."""

from typing import Any

import pytest
from support.raw_kafka import batch
from support.wire import Client, Topic, ends, newest

from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.create_partitions import (
    CreatePartitionsAssignment,
    CreatePartitionsRequest,
    CreatePartitionsTopic,
    CreatePartitionsTopicResult,
)

NEWEST = newest(ApiKey.CREATE_PARTITIONS)


def grow(
    client: Client, name: str, count: int, version: int = NEWEST, dry: bool = False, **fields: Any
) -> CreatePartitionsTopicResult:
    wanted = CreatePartitionsTopic(**({"name": name, "count": count, "assignments": None} | fields))
    answer = client.ask(ApiKey.CREATE_PARTITIONS, version, CreatePartitionsRequest((wanted,), 10_000, dry))
    (result,) = answer.results
    assert result.name == name
    return result


@pytest.mark.parametrize("version", ends(ApiKey.CREATE_PARTITIONS))
def test_new_partitions_can_be_used_at_once(client: Client, topic: Topic, version: int) -> None:
    client.append(topic, batch([b"v"]))
    assert grow(client, topic.name, 3, version).error_code == 0
    assert client.append(topic, batch([b"v"]), partition=2) == [0]
    assert client.append(topic, batch([b"v"]), partition=0) == [1]


@pytest.mark.parametrize("dry", [False, True])
def test_what_is_refused(client: Client, dry: bool) -> None:
    topic = client.create_topic(partitions=2)
    for count in (2, 1, 0, -1, 10_001):
        refused = grow(client, topic.name, count, dry=dry)
        assert refused.error_code == ErrorCode.INVALID_PARTITIONS, count
        assert refused.error_message
    assert grow(client, "nowhere", 2, dry=dry).error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert client.produce(topic.name, batch([b"v"]), 2).error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def test_assignments_are_counted(client: Client, topic: Topic) -> None:
    one = (CreatePartitionsAssignment((7,)),)
    assert grow(client, topic.name, 3, assignments=one).error_code == ErrorCode.INVALID_REPLICA_ASSIGNMENT
    assert grow(client, topic.name, 3, assignments=one * 2).error_code == 0


def test_a_dry_run_makes_nothing(client: Client, topic: Topic) -> None:
    assert grow(client, topic.name, 5, dry=True).error_code == 0
    assert client.produce(topic.name, batch([b"v"]), 1).error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
