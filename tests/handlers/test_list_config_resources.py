"""ListConfigResources: what can have configs, by type."""

import pytest
from support.wire import Client, Topic

from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey, incremental_alter_configs
from streamlake.protocol.messages.list_config_resources import ListConfigResourcesRequest, ListConfigResourcesResponse

TOPIC, BROKER, LOGGER, METRICS, GROUP = 2, 4, 8, 16, 32


def listed(client: Client, version: int, *types: int) -> ListConfigResourcesResponse:
    return client.ask(ApiKey.LIST_CONFIG_RESOURCES, version, ListConfigResourcesRequest(types))


def names(client: Client, version: int, *types: int) -> set[tuple[int, str]]:
    answer = listed(client, version, *types)
    assert answer.error_code == 0
    return {(r.resource_type, r.resource_name) for r in answer.config_resources}


@pytest.fixture
def configured(client: Client, group: str) -> str:
    """The name of a group and of a client metrics subscription with a config."""
    for kind, key, value in ((GROUP, "share.session.timeout.ms", "46000"), (METRICS, "interval.ms", "500")):
        change = incremental_alter_configs.AlterableConfig(key, 0, value)
        resource = incremental_alter_configs.AlterConfigsResource(kind, group, (change,))
        request = incremental_alter_configs.IncrementalAlterConfigsRequest((resource,))
        assert client.newest(ApiKey.INCREMENTAL_ALTER_CONFIGS, request).responses[0].error_code == 0
    return group


def test_each_type_and_all(client: Client, topic: Topic, configured: str) -> None:
    expected = {(TOPIC, topic.name), (BROKER, "0"), (LOGGER, "0"), (METRICS, configured), (GROUP, configured)}
    assert expected <= names(client, 1)
    for kind, name in expected:
        of_type = names(client, 1, kind)
        assert (kind, name) in of_type
        assert {found for found, _ in of_type} == {kind}
    assert names(client, 1, METRICS, GROUP) == names(client, 1, METRICS) | names(client, 1, GROUP)


def test_the_first_version_lists_client_metrics_only(client: Client, configured: str) -> None:
    assert {name for _, name in names(client, 0)} == {name for _, name in names(client, 1, METRICS)}
    assert configured in {name for _, name in names(client, 0)}


@pytest.mark.parametrize("types", [(99,), (0,), (METRICS, 99)])
def test_types_that_have_no_configs(client: Client, types: tuple[int, ...]) -> None:
    answer = listed(client, 1, *types)
    assert (answer.error_code, answer.config_resources) == (ErrorCode.UNSUPPORTED_VERSION, ())
