"""AlterPartitionReassignments: one broker for each partition, and a clear error for all else. (Moves between brokers:
tests/clients/test_cluster_tools.py.)"""

from typing import Any

import pytest
from support.raw_kafka import batch
from support.wire import Client, Topic, ends, newest

from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.alter_partition_reassignments import (
    AlterPartitionReassignmentsRequest,
    ReassignablePartition,
    ReassignableTopic,
)

NEWEST = newest(ApiKey.ALTER_PARTITION_REASSIGNMENTS)
OWN = 0


def reassign(client: Client, name: str, replicas: dict[int, tuple[int, ...] | None], version: int = NEWEST) -> Any:
    """The results, by partition."""
    partitions = tuple(ReassignablePartition(index, brokers) for index, brokers in replicas.items())
    request = AlterPartitionReassignmentsRequest(topics=(ReassignableTopic(name, partitions),))
    answer = client.ask(ApiKey.ALTER_PARTITION_REASSIGNMENTS, version, request)
    assert answer.error_code == 0
    (topic,) = answer.responses
    assert topic.name == name
    return {p.partition_index: p for p in topic.partitions}


@pytest.mark.parametrize("version", ends(ApiKey.ALTER_PARTITION_REASSIGNMENTS))
def test_a_partition_stays_where_it_is(client: Client, topic: Topic, version: int) -> None:
    result = reassign(client, topic.name, {0: (OWN,)}, version)[0]
    assert (result.error_code, result.error_message) == (0, None)
    assert client.append(topic, batch([b"v"])) == [0]


@pytest.mark.parametrize(
    ("replicas", "says"),
    [
        ((), "name one broker, not 0"),
        ((OWN, 1), "has one replica here"),
        ((OWN, OWN), "name one broker, not 2"),
        ((7,), "broker 7 is not there"),
        ((-1,), "broker -1 is not there"),
    ],
)
def test_what_is_no_assignment(client: Client, topic: Topic, replicas: tuple[int, ...], says: str) -> None:
    refused = reassign(client, topic.name, {0: replicas})[0]
    assert refused.error_code == ErrorCode.INVALID_REPLICA_ASSIGNMENT
    assert says in refused.error_message


def test_one_that_is_refused_keeps_no_others_back(client: Client) -> None:
    topic = client.create_topic(partitions=3)
    results = reassign(client, topic.name, {0: (OWN,), 1: (7,), 2: (OWN, 7), 9: (OWN,), -1: None})
    assert {index: result.error_code for index, result in results.items()} == {
        0: ErrorCode.NONE,
        1: ErrorCode.INVALID_REPLICA_ASSIGNMENT,
        2: ErrorCode.INVALID_REPLICA_ASSIGNMENT,
        9: ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        -1: ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
    }
    assert reassign(client, "nowhere", {0: (OWN,)})[0].error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def test_there_is_nothing_to_cancel(client: Client, topic: Topic) -> None:
    assert reassign(client, topic.name, {0: None})[0].error_code == ErrorCode.NO_REASSIGNMENT_IN_PROGRESS


def test_nothing_is_asked(client: Client) -> None:
    answer = client.newest(ApiKey.ALTER_PARTITION_REASSIGNMENTS, AlterPartitionReassignmentsRequest())
    assert (answer.error_code, answer.responses) == (0, ())
