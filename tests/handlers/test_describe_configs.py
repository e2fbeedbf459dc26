"""DescribeConfigs: values in force, where they come from, and what they mean here."""

from typing import Any

import pytest
from support.wire import Client, ends, newest

from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey, incremental_alter_configs
from streamlake.protocol.messages.describe_configs import (
    DescribeConfigsRequest,
    DescribeConfigsResource,
    DescribeConfigsResourceResult,
    DescribeConfigsResult,
)

TOPIC, BROKER = 2, 4
DYNAMIC_TOPIC, DYNAMIC_BROKER, DYNAMIC_DEFAULT_BROKER, DEFAULT = 1, 2, 3, 5
LONG, LIST = 5, 7


def describe(
    client: Client, kind: int, name: str, *keys: str, version: int | None = None, **flags: bool
) -> DescribeConfigsResult:
    request = DescribeConfigsRequest((DescribeConfigsResource(kind, name, keys or None),), **flags)
    version = newest(ApiKey.DESCRIBE_CONFIGS) if version is None else version
    (result,) = client.ask(ApiKey.DESCRIBE_CONFIGS, version, request).results
    assert (result.resource_type, result.resource_name) == (kind, name)
    return result


def entries(result: DescribeConfigsResult) -> dict[str, DescribeConfigsResourceResult]:
    return {entry.name: entry for entry in result.configs}


def set_broker_config(client: Client, name: str, **configs: str | None) -> None:
    """Underscores are dots; None deletes."""
    changes = tuple(
        incremental_alter_configs.AlterableConfig(k.replace("_", "."), int(v is None), v) for k, v in configs.items()
    )
    resource = incremental_alter_configs.AlterConfigsResource(BROKER, name, changes)
    request = incremental_alter_configs.IncrementalAlterConfigsRequest(resources=(resource,))
    (result,) = client.newest(ApiKey.INCREMENTAL_ALTER_CONFIGS, request).responses
    assert result.error_code == 0, result


@pytest.mark.parametrize("version", ends(ApiKey.DESCRIBE_CONFIGS))
def test_all_configs_of_a_topic(client: Client, version: int) -> None:
    topic = client.create_topic(retention_ms="60000")
    result = describe(client, TOPIC, topic.name, version=version)
    found = entries(result)
    assert (result.error_code, found["retention.ms"].value, found["retention.ms"].config_source) == (
        0,
        "60000",
        DYNAMIC_TOPIC,
    )
    assert (found["cleanup.policy"].value, found["cleanup.policy"].config_source) == ("delete", DEFAULT)
    assert "streamlake.table.enable" in found
    assert not any(e.is_sensitive or e.read_only or e.synonyms for e in result.configs)
    types = (found["retention.ms"].config_type, found["cleanup.policy"].config_type)
    assert types == ((LONG, LIST) if version >= 3 else (0, 0))


def test_only_the_keys_that_are_asked_for(client: Client, topic: Any) -> None:
    found = describe(client, TOPIC, topic.name, "retention.ms", "no.such.key")
    assert [e.name for e in found.configs] == ["retention.ms"]


def test_a_key_by_its_alias(client: Client, topic: Any) -> None:
    found = describe(client, TOPIC, topic.name, "automq.table.topic.enable")
    assert [e.name for e in found.configs] == ["streamlake.table.enable"]


def test_documentation_and_synonyms_on_request(client: Client) -> None:
    topic = client.create_topic(retention_ms="60000")
    set_broker_config(client, "0", log_retention_ms="70000")
    set_broker_config(client, "", log_retention_ms="80000")
    try:
        flags = {"include_synonyms": True, "include_documentation": True}
        (entry,) = describe(client, TOPIC, topic.name, "retention.ms", **flags).configs
        assert "How long records are kept" in entry.documentation
        assert [(s.name, s.value, s.source) for s in entry.synonyms] == [
            ("retention.ms", "60000", DYNAMIC_TOPIC),
            ("log.retention.ms", "70000", DYNAMIC_BROKER),
            ("log.retention.ms", "80000", DYNAMIC_DEFAULT_BROKER),
            ("log.retention.ms", "604800000", DEFAULT),
        ]
        (plain,) = describe(client, TOPIC, topic.name, "retention.ms").configs
        assert (plain.documentation, plain.synonyms) == (None, ())
    finally:
        set_broker_config(client, "0", log_retention_ms=None)
        set_broker_config(client, "", log_retention_ms=None)


def test_this_broker(client: Client) -> None:
    found = entries(describe(client, BROKER, "0"))
    assert found["num.partitions"].value == "1"
    assert found["auto.create.topics.enable"].value == "true"
    assert found["log.retention.ms"].value == "604800000"


def test_the_defaults_of_all_brokers_are_what_was_set_for_all(client: Client) -> None:
    assert describe(client, BROKER, "").configs == ()
    set_broker_config(client, "", log_retention_bytes="9")
    try:
        (entry,) = describe(client, BROKER, "").configs
        assert (entry.name, entry.value, entry.config_source) == ("log.retention.bytes", "9", DYNAMIC_DEFAULT_BROKER)
    finally:
        set_broker_config(client, "", log_retention_bytes=None)


@pytest.mark.parametrize(
    ("kind", "name", "code"),
    [
        (TOPIC, "nowhere", ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        (BROKER, "7", ErrorCode.INVALID_REQUEST),
        (BROKER, "x", ErrorCode.INVALID_REQUEST),
        (8, "0", ErrorCode.INVALID_REQUEST),
    ],
)
def test_what_cannot_be_described(client: Client, kind: int, name: str, code: ErrorCode) -> None:
    result = describe(client, kind, name)
    assert (result.error_code, result.configs) == (code, ())
    assert result.error_message
