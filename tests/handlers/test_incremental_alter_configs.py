"""IncrementalAlterConfigs: set, delete, append, subtract; a resource changes as a whole or not at all."""

from typing import Any

import pytest
from support.raw_kafka import batch
from support.wire import Client, Topic, codes, ends, newest

from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey, create_topics, describe_configs
from streamlake.protocol.messages.incremental_alter_configs import (
    AlterableConfig,
    AlterConfigsResource,
    AlterConfigsResourceResponse,
    IncrementalAlterConfigsRequest,
)

TOPIC, BROKER, LOGGER, METRICS, GROUP = 2, 4, 8, 16, 32
SET, DELETE, APPEND, SUBTRACT = range(4)
PARTITION_BY = "streamlake.table.partition.by"
Change = tuple[str, int, str | None]


def alter(
    client: Client, name: str, *changes: Change, kind: int = TOPIC, version: int | None = None, dry: bool = False
) -> AlterConfigsResourceResponse:
    resource = AlterConfigsResource(kind, name, tuple(AlterableConfig(*change) for change in changes))
    version = newest(ApiKey.INCREMENTAL_ALTER_CONFIGS) if version is None else version
    request = IncrementalAlterConfigsRequest((resource,), dry)
    (result,) = client.ask(ApiKey.INCREMENTAL_ALTER_CONFIGS, version, request).responses
    return result


def value(client: Client, name: str, key: str, kind: int = TOPIC) -> str:
    resource = describe_configs.DescribeConfigsResource(kind, name, (key,))
    (result,) = client.newest(ApiKey.DESCRIBE_CONFIGS, describe_configs.DescribeConfigsRequest((resource,))).results
    (entry,) = result.configs
    return entry.value


@pytest.mark.parametrize("version", ends(ApiKey.INCREMENTAL_ALTER_CONFIGS))
def test_set_and_delete(client: Client, version: int) -> None:
    topic = client.create_topic(retention_ms="1000", retention_bytes="2000")
    changes = [("retention.ms", DELETE, None), ("max.message.bytes", SET, "100")]
    assert alter(client, topic.name, *changes, version=version).error_code == 0
    found = [value(client, topic.name, k) for k in ("retention.ms", "max.message.bytes", "retention.bytes")]
    assert found == ["604800000", "100", "2000"]


def test_a_change_is_in_force_when_it_is_answered(client: Client, topic: Topic) -> None:
    alter(client, topic.name, ("max.message.bytes", SET, "100"))
    assert client.produce(topic.name, batch([bytes(200)])).error_code == ErrorCode.MESSAGE_TOO_LARGE
    alter(client, topic.name, ("max.message.bytes", DELETE, None))
    assert client.append(topic, batch([bytes(200)])) == [0]


def test_a_default_of_the_broker_is_in_force_when_it_is_answered(client: Client, topic: Topic) -> None:
    alter(client, "0", ("message.max.bytes", SET, "100"), kind=BROKER)
    try:
        assert client.produce(topic.name, batch([bytes(200)])).error_code == ErrorCode.MESSAGE_TOO_LARGE
    finally:
        alter(client, "0", ("message.max.bytes", DELETE, None), kind=BROKER)
    assert client.append(topic, batch([bytes(200)])) == [0]


def test_append_and_subtract(client: Client, topic: Topic) -> None:
    steps = [
        ((PARTITION_BY, APPEND, "a"), "a"),
        ((PARTITION_BY, APPEND, "b,day(c)"), "a,b,day(c)"),
        ((PARTITION_BY, APPEND, "a"), "a,b,day(c)"),
        (("automq.table.topic.partition.by", SUBTRACT, "b"), "a,day(c)"),
        ((PARTITION_BY, SUBTRACT, "no-such,a,day(c)"), ""),
    ]
    for change, expected in steps:
        assert alter(client, topic.name, change).error_code == 0
        assert value(client, topic.name, PARTITION_BY) == expected


def test_append_begins_with_the_value_in_force(client: Client, topic: Topic) -> None:
    assert alter(client, topic.name, ("cleanup.policy", APPEND, "delete")).error_code == 0
    assert value(client, topic.name, "cleanup.policy") == "delete"
    assert alter(client, topic.name, ("cleanup.policy", SUBTRACT, "delete")).error_code == 0
    assert value(client, topic.name, "cleanup.policy") == "", "kept for ever"


def test_lists_of_a_broker_are_its_own(client: Client) -> None:
    """And not those of a topic that happens to have its number as a name."""
    wanted = create_topics.CreatableTopic(name="0", num_partitions=1, replication_factor=1)
    client.newest(ApiKey.CREATE_TOPICS, create_topics.CreateTopicsRequest(topics=(wanted,)))
    alter(client, "0", (PARTITION_BY, SET, "a"))
    assert alter(client, "0", ("log.cleanup.policy", APPEND, "delete"), kind=BROKER).error_code == 0
    assert value(client, "0", "log.cleanup.policy", BROKER) == "delete"
    alter(client, "0", ("log.cleanup.policy", DELETE, None), kind=BROKER)


@pytest.mark.parametrize("dry", [False, True])
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ([("retention.mz", SET, "5")], "did you mean retention.ms?"),
        ([("retention.ms", SET, "soon")], "whole number"),
        ([("retention.bytes", SET, "5"), ("retention.ms", APPEND, "5")], "set or deleted"),
        ([("retention.bytes", SET, "5"), ("cleanup.policy", SET, "compact")], "not implemented yet"),
        ([("streamlake.table.transform.value.type", SET, "flatten")], "by_schema_id"),
    ],
)
def test_what_is_refused_changes_nothing(
    client: Client, topic: Topic, changes: list[Any], says: str, dry: bool
) -> None:
    result = alter(client, topic.name, *changes, dry=dry)
    assert result.error_code == ErrorCode.INVALID_CONFIG
    assert says in result.error_message
    assert value(client, topic.name, "retention.bytes") == "-1"


def test_a_dry_run_changes_nothing(client: Client, topic: Topic) -> None:
    assert alter(client, topic.name, ("retention.ms", SET, "5"), dry=True).error_code == 0
    assert value(client, topic.name, "retention.ms") == "604800000"


def test_what_no_broker_knows_is_kept_and_not_shown(client: Client) -> None:
    """Kafka's way: it may be a secret of a plugin. A value that is too long is refused."""
    assert alter(client, "0", ("some.plugin.key", SET, "secret"), kind=BROKER).error_code == 0
    resource = describe_configs.DescribeConfigsResource(BROKER, "0", ("some.plugin.key",))
    request = describe_configs.DescribeConfigsRequest((resource,), include_synonyms=True)
    (entry,) = client.newest(ApiKey.DESCRIBE_CONFIGS, request).results[0].configs
    assert (entry.value, entry.read_only, entry.is_sensitive, entry.config_source) == (None, True, True, 2)
    assert [(s.name, s.value, s.source) for s in entry.synonyms] == [("some.plugin.key", None, 2)]
    assert alter(client, "0", ("some.plugin.key", SET, "x\0"), kind=BROKER).error_code == 42
    assert alter(client, "0", ("a\0b", DELETE, None), kind=BROKER).error_code == ErrorCode.INVALID_REQUEST
    assert alter(client, "0", ("some.plugin.key", DELETE, None), kind=BROKER).error_code == 0
    assert client.newest(ApiKey.DESCRIBE_CONFIGS, request).results[0].configs == ()


def test_a_secret_is_in_no_message(client: Client) -> None:
    refused = alter(client, "0", ("ssl.key.password", SET, "hunter2"), kind=BROKER)
    assert refused.error_code == ErrorCode.INVALID_REQUEST
    assert "hunter2" not in refused.error_message


@pytest.mark.parametrize(
    ("kind", "key", "text"), [(GROUP, "consumer.session.timeout.ms", "46000"), (METRICS, "interval.ms", "500")]
)
def test_configs_of_a_group_and_of_client_metrics(client: Client, group: str, kind: int, key: str, text: str) -> None:
    default = value(client, group, key, kind)
    assert alter(client, group, (key, SET, text), kind=kind, dry=True).error_code == 0
    assert value(client, group, key, kind) == default
    assert alter(client, group, (key, SET, text), kind=kind).error_code == 0
    assert value(client, group, key, kind) == text
    assert value(client, group + "-other", key, kind) == default
    assert alter(client, group, (key, DELETE, None), kind=kind).error_code == 0
    assert value(client, group, key, kind) == default
    assert alter(client, "a\0b", (key, SET, text), kind=kind).error_code == ErrorCode.INVALID_CONFIG


def test_a_resource_that_is_named_twice_is_not_changed(client: Client, topic: Topic) -> None:
    resources = tuple(
        AlterConfigsResource(TOPIC, topic.name, (AlterableConfig("retention.ms", SET, text),)) for text in ("5", "6")
    )
    answers = client.newest(ApiKey.INCREMENTAL_ALTER_CONFIGS, IncrementalAlterConfigsRequest(resources)).responses
    assert codes(answers) == [ErrorCode.INVALID_REQUEST] * 2
    assert value(client, topic.name, "retention.ms") == "604800000"


def test_the_level_that_is_in_force_can_be_set(client: Client) -> None:
    level = value(client, "0", "root", kind=LOGGER)
    assert level == "INFO"
    assert alter(client, "0", ("root", SET, level), kind=LOGGER).error_code == 0
