"""DescribeConfigs: values in force, where they come from, and what they mean here."""

from typing import Any

import pytest
from support.server import Server
from support.wire import Client, ends, newest

from streamlake.cluster.config.kafka import BROKER as BROKER_FACTS
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey, incremental_alter_configs
from streamlake.protocol.messages.describe_configs import (
    DescribeConfigsRequest,
    DescribeConfigsResource,
    DescribeConfigsResourceResult,
    DescribeConfigsResult,
)

TOPIC, BROKER, LOGGER = 2, 4, 8
DYNAMIC_TOPIC, DYNAMIC_BROKER, DYNAMIC_DEFAULT_BROKER, STATIC_BROKER, DEFAULT = 1, 2, 3, 4, 5
LONG, LIST, PASSWORD = 5, 7, 9


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
        ]
        (entry,) = describe(client, TOPIC, topic.name, "max.message.bytes", **flags).configs
        assert [(s.name, s.value, s.source) for s in entry.synonyms] == [("message.max.bytes", "1048588", DEFAULT)]
        (plain,) = describe(client, TOPIC, topic.name, "retention.ms").configs
        assert (plain.documentation, plain.synonyms) == (None, ())
    finally:
        set_broker_config(client, "0", log_retention_ms=None)
        set_broker_config(client, "", log_retention_ms=None)


def test_this_broker(client: Client, server: Server) -> None:
    found = entries(describe(client, BROKER, "0"))
    assert found["num.partitions"].value == "1"
    assert found["auto.create.topics.enable"].value == "true"
    # As Kafka says it: without a value in milliseconds the hours count.
    assert (found["log.retention.ms"].value, found["log.retention.hours"].value) == (None, "168")
    real = {key: found[key] for key in ("node.id", "broker.id", "listeners", "advertised.listeners", "log.dirs")}
    assert [e.value for e in real.values()] == [
        "0", "0", f"PLAINTEXT://127.0.0.1:{server.port}", f"PLAINTEXT://127.0.0.1:{server.port}", str(server.data_dir),
    ]  # fmt: skip
    assert all(e.read_only and e.config_source == STATIC_BROKER for e in real.values())
    assert found["group.initial.rebalance.delay.ms"].value == "0"  # as the test's server is configured
    assert found["log.retention.check.interval.ms"].value == "30000"
    assert (found["num.io.threads"].read_only, found["num.partitions"].read_only) == (False, True)
    secret = found["ssl.keystore.password"]
    assert (secret.value, secret.is_sensitive, secret.config_type) == (None, True, PASSWORD)


def test_every_config_of_a_broker_of_kafka_is_there_and_explained(client: Client) -> None:
    found = entries(describe(client, BROKER, "0", include_documentation=True))
    assert {fact.name for fact in BROKER_FACTS} <= found.keys()
    for fact in BROKER_FACTS:
        entry = found[fact.name]
        assert entry.documentation.endswith("."), fact.name
        without = entry.documentation.startswith(("Accepted and without effect: ", "Only the default is accepted: "))
        if without:
            assert entry.value == fact.default or entry.is_sensitive, fact.name


def test_the_loggers_of_this_broker(client: Client) -> None:
    (entry,) = describe(client, LOGGER, "0", include_documentation=True).configs
    assert (entry.name, entry.value, entry.config_source, entry.read_only) == ("root", "INFO", 6, True)
    assert "logging.level" in entry.documentation
    assert describe(client, LOGGER, "0", "another").configs == ()


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
        (99, "0", ErrorCode.INVALID_REQUEST),
    ],
)
def test_what_cannot_be_described(client: Client, kind: int, name: str, code: ErrorCode) -> None:
    result = describe(client, kind, name)
    assert (result.error_code, result.configs) == (code, ())
    assert result.error_message
