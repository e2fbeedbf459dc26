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


@pytest.mark.parametrize("version", ends(ApiKey.CREATE_PARTITIONS))
@pytest.mark.parametrize(
    "wrong", [[(0,)], [(0,)] * 3, [(0,), (7,)], [(0,), (-1,)], [(0,), (0, 0)], [(0,), (0, 1)], [(0,), ()]]
)
def test_assignments_name_this_broker_for_each_new_partition(
    client: Client, topic: Topic, wrong: list[tuple[int, ...]], version: int
) -> None:
    def code(assignments: list[tuple[int, ...]], dry: bool = False) -> int:
        rows = tuple(map(CreatePartitionsAssignment, assignments))
        return grow(client, topic.name, 3, version, dry, assignments=rows).error_code

    for dry in (True, False):
        assert code(wrong, dry) == ErrorCode.INVALID_REPLICA_ASSIGNMENT
    assert code([(0,), (0,)]) == 0


def test_a_topic_twice_in_one_request_is_refused_once(client: Client, topic: Topic) -> None:
    other = client.create_topic()
    wanted = tuple(CreatePartitionsTopic(name, 2, None) for name in (topic.name, other.name, topic.name))
    results = client.newest(ApiKey.CREATE_PARTITIONS, CreatePartitionsRequest(wanted, 10_000)).results
    assert {r.name: r.error_code for r in results} == {topic.name: ErrorCode.INVALID_REQUEST, other.name: 0}
    assert len(results) == 2
    assert client.produce(topic.name, batch([b"v"]), 1).error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def test_a_dry_run_makes_nothing(client: Client, topic: Topic) -> None:
    assert grow(client, topic.name, 5, dry=True).error_code == 0
    assert client.produce(topic.name, batch([b"v"]), 1).error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
