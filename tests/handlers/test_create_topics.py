"""CreateTopics: defaults, dry runs, assignments, and a reason for everything that is refused."""

from typing import Any

import pytest
from support.raw_kafka import batch
from support.wire import Client, Topic, ends, newest

from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey, delete_topics, metadata
from streamlake.protocol.messages.create_topics import (
    CreatableReplicaAssignment,
    CreatableTopic,
    CreatableTopicConfig,
    CreatableTopicResult,
    CreateTopicsRequest,
)

NEWEST = newest(ApiKey.CREATE_TOPICS)
OWN, DEFAULT = 1, 5


def topic(name: str, **fields: Any) -> CreatableTopic:
    configs = tuple(CreatableTopicConfig(k, v) for k, v in fields.pop("configs", {}).items())
    return CreatableTopic(**({"name": name, "num_partitions": 1, "replication_factor": 1, "configs": configs} | fields))


def create(
    client: Client, *topics: CreatableTopic, version: int = NEWEST, dry: bool = False
) -> list[CreatableTopicResult]:
    return list(client.ask(ApiKey.CREATE_TOPICS, version, CreateTopicsRequest(topics, 10_000, dry)).topics)


def partitions(client: Client, name: str) -> int | None:
    """None: there is no such topic."""
    request = metadata.MetadataRequest((metadata.MetadataRequestTopic(name=name),), allow_auto_topic_creation=False)
    (found,) = client.newest(ApiKey.METADATA, request).topics
    return None if found.error_code else len(found.partitions)


@pytest.mark.parametrize("version", ends(ApiKey.CREATE_TOPICS))
def test_a_topic_can_be_used_at_once(client: Client, version: int) -> None:
    name = f"create-{version}"
    (result,) = create(client, topic(name, num_partitions=3), version=version)
    assert (result.error_code, result.error_message) == (0, None)
    for index in range(3):
        assert client.produce(name, batch([b"v"]), index).error_code == 0


def test_the_answer_describes_what_was_made(client: Client) -> None:
    configs = {"retention.ms": "5000", "automq.table.topic.commit.interval.ms": "700"}
    (result,) = create(client, topic("described", num_partitions=2, configs=configs))
    assert (result.num_partitions, result.replication_factor) == (2, 1)
    assert result.topic_id is not None
    told = {c.name: (c.value, c.config_source) for c in result.configs}
    assert told["retention.ms"] == ("5000", OWN)
    assert told["streamlake.table.commit.interval.ms"] == ("700", OWN)
    assert told["retention.bytes"] == ("-1", DEFAULT)


def test_minus_one_means_the_brokers_defaults(client: Client) -> None:
    (result,) = create(client, topic("defaults", num_partitions=-1, replication_factor=-1))
    assert (result.error_code, result.num_partitions) == (0, 1)


def test_any_replication_factor_will_do(client: Client) -> None:
    (result,) = create(client, topic("replicated", replication_factor=3))
    assert result.error_code == 0


@pytest.mark.parametrize("dry", [False, True])
@pytest.mark.parametrize(
    ("fields", "code", "says"),
    [
        ({"num_partitions": 0}, ErrorCode.INVALID_PARTITIONS, "from 1 to 10000"),
        (
            {"configs": {"streamlake.table.enable": "true", "streamlake.table.catalog": "nowhere"}},
            ErrorCode.INVALID_CONFIG,
            "there is no catalog 'nowhere'",
        ),
        ({"num_partitions": -2}, ErrorCode.INVALID_PARTITIONS, "from 1 to 10000"),
        ({"num_partitions": 10_001}, ErrorCode.POLICY_VIOLATION, "10000 partitions at most"),
        ({"replication_factor": 0}, ErrorCode.INVALID_REPLICATION_FACTOR, "1 or more"),
        ({"replication_factor": -2}, ErrorCode.INVALID_REPLICATION_FACTOR, "1 or more"),
        ({"configs": {"retention.mss": "1"}}, ErrorCode.INVALID_CONFIG, "did you mean retention.ms?"),
        ({"configs": {"retention.ms": "long"}}, ErrorCode.INVALID_CONFIG, "whole number"),
        ({"configs": {"cleanup.policy": "compact"}}, ErrorCode.INVALID_CONFIG, "not implemented yet"),
        ({"configs": {"retention.ms": None}}, ErrorCode.INVALID_CONFIG, "needs a value"),
    ],
)
def test_what_is_refused(client: Client, fields: dict[str, Any], code: ErrorCode, says: str, dry: bool) -> None:
    (result,) = create(client, topic("refused", **fields), dry=dry)
    assert result.error_code == code
    assert says in result.error_message
    assert result.configs == (), "and not null, as in Kafka"
    assert partitions(client, "refused") is None


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "ä", "x" * 250])
def test_names_that_no_topic_may_have(client: Client, name: str) -> None:
    (result,) = create(client, topic(name))
    assert result.error_code == ErrorCode.INVALID_TOPIC_EXCEPTION
    assert result.error_message


def test_a_name_that_is_taken(client: Client) -> None:
    create(client, topic("taken.name"))
    wrong_too = {"num_partitions": 0, "replication_factor": 0, "configs": {"no.such": "key"}}
    for dry in (True, False):
        same, alike = create(client, topic("taken.name", **wrong_too), topic("taken_name"), dry=dry)
        assert same.error_code == ErrorCode.TOPIC_ALREADY_EXISTS
        assert alike.error_code == ErrorCode.INVALID_TOPIC_EXCEPTION
        assert "collides" in alike.error_message


def test_a_name_is_free_again_when_its_topic_is_gone(client: Client) -> None:
    create(client, topic("leaving.name"))
    client.newest(
        ApiKey.DELETE_TOPICS,
        delete_topics.DeleteTopicsRequest(topics=(delete_topics.DeleteTopicState("leaving.name"),)),
    )
    assert create(client, topic("leaving_name"))[0].error_code == 0


@pytest.mark.parametrize("dry", [False, True])
@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("__consumer_offsets", ErrorCode.TOPIC_ALREADY_EXISTS),
        ("__transaction_state", ErrorCode.TOPIC_ALREADY_EXISTS),
        ("__cluster_metadata", ErrorCode.INVALID_REQUEST),
    ],
)
def test_names_that_kafka_keeps_for_itself(client: Client, name: str, code: ErrorCode, dry: bool) -> None:
    (result,) = create(client, topic(name), dry=dry)
    assert result.error_code == code
    assert name in result.error_message
    assert partitions(client, name) is None


def test_the_partitions_of_a_request_are_limited_together(client: Client) -> None:
    results = create(client, topic("large-one", num_partitions=6000), topic("large-two", num_partitions=6000), dry=True)
    assert [r.error_code for r in results] == [ErrorCode.POLICY_VIOLATION] * 2
    (result,) = create(client, topic("large-one", num_partitions=6000), dry=True)
    assert result.error_code == 0


def test_one_refused_topic_does_not_spoil_another(client: Client) -> None:
    results = create(client, topic("good-one"), topic("bad one"), topic("good-two"))
    assert [r.error_code for r in results] == [0, ErrorCode.INVALID_TOPIC_EXCEPTION, 0]
    assert partitions(client, "good-two") == 1


def test_a_name_twice_in_one_request(client: Client) -> None:
    results = create(client, topic("twice"), topic("once"), topic("twice"))
    assert {r.name: r.error_code for r in results} == {"twice": ErrorCode.INVALID_REQUEST, "once": 0}
    assert len(results) == 2
    assert partitions(client, "twice") is None


def test_a_dry_run_makes_nothing(client: Client) -> None:
    (result,) = create(client, topic("dry", num_partitions=4), dry=True)
    assert (result.error_code, result.num_partitions, result.topic_id) == (0, 4, None)
    assert partitions(client, "dry") is None
    (again,) = create(client, topic("dry", num_partitions=4))
    (exists,) = create(client, topic("dry"), dry=True)
    assert (again.error_code, exists.error_code) == (0, ErrorCode.TOPIC_ALREADY_EXISTS)


def assigned(*indexes: int, brokers: tuple[int, ...] = (0,)) -> dict[str, Any]:
    assignments = tuple(CreatableReplicaAssignment(i, brokers) for i in indexes)
    return {"num_partitions": -1, "replication_factor": -1, "assignments": assignments}


def test_a_manual_assignment(client: Client) -> None:
    (result,) = create(client, topic("assigned", **assigned(1, 0, 2)))
    assert (result.error_code, partitions(client, "assigned")) == (0, 3)


@pytest.mark.parametrize("dry", [False, True])
@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"indexes": (0, 2)}, ErrorCode.INVALID_REPLICA_ASSIGNMENT),
        ({"indexes": (0, 0)}, ErrorCode.INVALID_REPLICA_ASSIGNMENT),
        ({"indexes": (1,)}, ErrorCode.INVALID_REPLICA_ASSIGNMENT),
        ({"indexes": (-1, 0)}, ErrorCode.INVALID_REPLICA_ASSIGNMENT),
        ({"brokers": ()}, ErrorCode.INVALID_REPLICA_ASSIGNMENT),
        ({"brokers": (99,)}, ErrorCode.INVALID_REPLICA_ASSIGNMENT),
        ({"brokers": (-1,)}, ErrorCode.INVALID_REPLICA_ASSIGNMENT),
        ({"brokers": (0, 99)}, ErrorCode.INVALID_REPLICA_ASSIGNMENT),
        ({"brokers": (0, 0)}, ErrorCode.INVALID_REPLICA_ASSIGNMENT),
        ({"num_partitions": 1}, ErrorCode.INVALID_REQUEST),
        ({"replication_factor": 1}, ErrorCode.INVALID_REQUEST),
        ({"replication_factor": 0}, ErrorCode.INVALID_REQUEST),
    ],
)
def test_assignments_that_cannot_be(client: Client, changes: dict[str, Any], code: ErrorCode, dry: bool) -> None:
    given = dict(changes)
    fields = assigned(*given.pop("indexes", (0,)), brokers=given.pop("brokers", (0,))) | given
    (result,) = create(client, topic("misassigned", **fields), dry=dry)
    assert result.error_code == code
    assert result.error_message
    assert partitions(client, "misassigned") is None


def test_a_table_topic_sets_its_configs(client: Client, topic: Topic) -> None:
    """The worker is not running here: the topic itself must not notice."""
    table = client.create_topic(streamlake_table_enable="true")
    assert client.append(table, batch([b"v"])) == [0]
