"""AlterConfigs, the older form: what is not given goes back to its default."""

import pytest
from support.wire import Client, Topic, codes, ends, newest

from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey, describe_configs
from streamlake.protocol.messages.alter_configs import (
    AlterableConfig,
    AlterConfigsRequest,
    AlterConfigsResource,
    AlterConfigsResourceResponse,
)

TOPIC, BROKER, LOGGER, GROUP = 2, 4, 8, 32
STATIC_OR_DEFAULT = (4, 5)


def alter(
    client: Client, kind: int, name: str, configs: dict[str, str | None], version: int | None = None, dry: bool = False
) -> AlterConfigsResourceResponse:
    given = tuple(AlterableConfig(k, v) for k, v in configs.items())
    request = AlterConfigsRequest((AlterConfigsResource(kind, name, given),), dry)
    (result,) = client.ask(
        ApiKey.ALTER_CONFIGS, newest(ApiKey.ALTER_CONFIGS) if version is None else version, request
    ).responses
    assert (result.resource_type, result.resource_name) == (kind, name)
    return result


def own_configs(client: Client, kind: int, name: str) -> dict[str, str]:
    """Those that were set on the resource itself."""
    request = describe_configs.DescribeConfigsRequest((describe_configs.DescribeConfigsResource(kind, name, None),))
    (result,) = client.newest(ApiKey.DESCRIBE_CONFIGS, request).results
    return {e.name: e.value for e in result.configs if e.config_source not in STATIC_OR_DEFAULT}


@pytest.mark.parametrize("version", ends(ApiKey.ALTER_CONFIGS))
def test_the_keys_given_are_all_there_are(client: Client, version: int) -> None:
    topic = client.create_topic(retention_ms="1000", retention_bytes="2000")
    result = alter(client, TOPIC, topic.name, {"retention.ms": "5", "max.message.bytes": "100"}, version)
    assert (result.error_code, result.error_message) == (0, None)
    assert own_configs(client, TOPIC, topic.name) == {"retention.ms": "5", "max.message.bytes": "100"}
    assert alter(client, TOPIC, topic.name, {}).error_code == 0
    assert own_configs(client, TOPIC, topic.name) == {}


def test_a_key_by_its_alias_replaces_the_key(client: Client) -> None:
    topic = client.create_topic(streamlake_table_commit_interval_ms="300")
    assert alter(client, TOPIC, topic.name, {"automq.table.topic.commit.interval.ms": "400"}).error_code == 0
    assert own_configs(client, TOPIC, topic.name) == {"streamlake.table.commit.interval.ms": "400"}


@pytest.mark.parametrize("name", ["0", ""])
def test_of_brokers_too(client: Client, name: str) -> None:
    assert alter(client, BROKER, name, {"log.retention.ms": "5", "num.io.threads": "2"}).error_code == 0
    assert own_configs(client, BROKER, name) == {"log.retention.ms": "5", "num.io.threads": "2"}
    assert alter(client, BROKER, name, {"log.retention.ms": "6"}).error_code == 0
    assert own_configs(client, BROKER, name) == {"log.retention.ms": "6"}
    assert alter(client, BROKER, name, {}).error_code == 0
    assert own_configs(client, BROKER, name) == {}


def test_of_groups_too(client: Client, group: str) -> None:
    assert alter(client, GROUP, group, {"share.session.timeout.ms": "46000"}).error_code == 0
    assert own_configs(client, GROUP, group) == {"share.session.timeout.ms": "46000"}
    assert alter(client, GROUP, group, {"streams.num.standby.replicas": "1"}).error_code == 0
    assert own_configs(client, GROUP, group) == {"streams.num.standby.replicas": "1"}


def test_a_resource_that_is_named_twice_is_not_changed(client: Client, topic: Topic) -> None:
    resources = tuple(
        AlterConfigsResource(TOPIC, topic.name, (AlterableConfig("retention.ms", value),)) for value in ("5", "6")
    )
    answers = client.newest(ApiKey.ALTER_CONFIGS, AlterConfigsRequest(resources, False)).responses
    assert codes(answers) == [ErrorCode.INVALID_REQUEST] * 2
    assert own_configs(client, TOPIC, topic.name) == {}


def test_a_dry_run_changes_nothing(client: Client, topic: Topic) -> None:
    assert alter(client, TOPIC, topic.name, {"retention.ms": "5"}, dry=True).error_code == 0
    assert own_configs(client, TOPIC, topic.name) == {}


@pytest.mark.parametrize("dry", [False, True])
@pytest.mark.parametrize(
    ("kind", "name", "configs", "code", "says"),
    [
        (TOPIC, "nowhere", {}, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "does not exist"),
        (TOPIC, "", {"retention.mz": "5"}, ErrorCode.INVALID_CONFIG, "did you mean retention.ms?"),
        (TOPIC, "", {"retention.ms": "-7"}, ErrorCode.INVALID_CONFIG, "from -1"),
        (BROKER, "0", {"num.io.threads": "0"}, ErrorCode.INVALID_REQUEST, "from 1"),
        (BROKER, "7", {}, ErrorCode.INVALID_REQUEST, "this is broker 0"),
        (LOGGER, "0", {}, ErrorCode.INVALID_REQUEST, "IncrementalAlterConfigs"),
    ],
)
def test_what_is_refused(
    client: Client, kind: int, name: str, configs: dict[str, str], code: ErrorCode, says: str, dry: bool
) -> None:
    if kind == TOPIC and not name:
        name = client.create_topic(retention_bytes="3").name
    result = alter(client, kind, name, configs, dry=dry)
    assert result.error_code == code
    assert says in result.error_message
    if kind == TOPIC and name != "nowhere":
        assert own_configs(client, TOPIC, name) == {"retention.bytes": "3"}, "refused as a whole"
