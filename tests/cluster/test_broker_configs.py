import asyncio
from collections.abc import Mapping

import pytest

from streamlake.cluster.broker_configs import BROKER_CONFIGS, ROWS_MAX, BrokerConfigs
from streamlake.cluster.config.definition import ConfigSource
from streamlake.cluster.config.topic import TOPIC_CONFIGS
from streamlake.core.errors import Fenced, Invalid, OutcomeUnknown


async def configs_of(cluster, static=None, identity=None) -> BrokerConfigs:
    configs = BrokerConfigs(cluster.database, identity or cluster.identity, static or {})
    await configs.refresh()
    return configs


def test_every_default_of_a_topic_config_is_a_broker_config() -> None:
    names = {d.name for d in BROKER_CONFIGS}
    assert {d.broker_key for d in TOPIC_CONFIGS if d.broker_key} <= names
    assert {"num.partitions", "auto.create.topics.enable", "log.retention.ms", "streamlake.table.namespace"} <= names
    for definition in BROKER_CONFIGS:
        if definition.default is not None:
            definition.parse(definition.default)
    assert BROKER_CONFIGS.canonical("automq.table.topic.namespace") == "streamlake.table.namespace"


def of_all_brokers(configs: BrokerConfigs) -> Mapping[str, str]:
    """What was set for all brokers."""
    return next(layer.values for layer in configs.layers() if layer.source is ConfigSource.DYNAMIC_DEFAULT_BROKER)


async def test_the_nearest_value_wins(cluster) -> None:
    configs = await configs_of(cluster, {"log.retention.ms": "1", "num.partitions": "3"})
    assert configs.value("log.retention.ms") == 1
    assert configs.value("num.partitions") == 3
    assert configs.value("auto.create.topics.enable") is True
    await configs.alter(None, {"log.retention.ms": "2"})
    assert configs.value("log.retention.ms") == 2
    await configs.alter(cluster.identity.node, {"log.retention.ms": "3"})
    assert configs.value("log.retention.ms") == 3
    await configs.alter(5, {"log.retention.ms": "4"})
    assert configs.value("log.retention.ms") == 3
    assert of_all_brokers(configs) == {"log.retention.ms": "2"}

    entry = TOPIC_CONFIGS.describe("retention.ms", configs.topic_layers({"retention.ms": "9"}))
    assert [(value, source) for _, value, source in entry.synonyms] == [
        ("9", ConfigSource.DYNAMIC_TOPIC),
        ("3", ConfigSource.DYNAMIC_BROKER),
        ("2", ConfigSource.DYNAMIC_DEFAULT_BROKER),
        ("1", ConfigSource.STATIC_BROKER),
    ]

    await configs.alter(cluster.identity.node, {}, ["log.retention.ms"])
    await configs.alter(None, {"num.io.threads": "7"}, ["log.retention.ms"])
    assert configs.value("log.retention.ms") == 1
    assert configs.value("num.io.threads") == 7
    again = await configs_of(cluster)
    assert of_all_brokers(again) == {"num.io.threads": "7"}


async def test_wrong_values_change_nothing(cluster) -> None:
    with pytest.raises(Invalid, match=r"log\.retention\.ms = 'soon'"):
        BrokerConfigs(cluster.database, cluster.identity, {"log.retention.ms": "soon"})
    configs = await configs_of(cluster)
    before = await cluster.dump()
    for values, remove in (({"num.io.threads": "0"}, []), ({"num.partitions": "1"}, []), ({}, [""])):
        with pytest.raises(Invalid):
            await configs.alter(None, values, remove)
    assert await cluster.dump() == before


async def test_a_zombie_changes_nothing(cluster) -> None:
    configs = await configs_of(cluster)
    await cluster.register()
    before = await cluster.dump()
    with pytest.raises(Fenced):
        await configs.alter(None, {"num.io.threads": "2"})
    assert await cluster.dump() == before


async def test_each_change_counts_a_revision_and_is_told(cluster) -> None:
    configs = await configs_of(cluster)
    heard = []
    configs.listeners.append(heard.append)
    await configs.alter(None, {"num.io.threads": "2", "log.retention.ms": "1"})
    await configs.alter(None, {"num.io.threads": "2"})
    await configs.alter(None, {}, ["log.retention.ms"])
    assert heard == [frozenset({"num.io.threads", "log.retention.ms"}), frozenset({"log.retention.ms"})]
    topics = await cluster.topics()
    assert topics.revision == 3


async def test_the_image_follows_even_if_the_caller_left(cluster) -> None:
    configs = await configs_of(cluster)
    altering = asyncio.ensure_future(configs.alter(None, {"num.io.threads": "2"}))
    await asyncio.sleep(0)
    altering.cancel()
    await asyncio.gather(altering, return_exceptions=True)
    await configs.alter(None, {"log.retention.ms": "1"})
    assert configs.value("num.io.threads") == 2


async def test_a_lost_answer_is_read_back(cluster, monkeypatch) -> None:
    configs = await configs_of(cluster)
    real = cluster.database.write

    def applied_then_unknown(fn, *fences):
        answer = asyncio.get_running_loop().create_future()
        real(fn, *fences).add_done_callback(lambda _: answer.set_exception(OutcomeUnknown("lost")))
        return answer

    monkeypatch.setattr(cluster.database, "write", applied_then_unknown)
    with pytest.raises(OutcomeUnknown):
        await configs.alter(None, {"num.io.threads": "2"})
    assert configs.value("num.io.threads") == 2


async def test_other_sections_of_the_file_say_what_is_in_force(cluster) -> None:
    configs = BrokerConfigs(cluster.database, cluster.identity, {}, {"node.id": "7"})
    assert configs.value("node.id") == "7"
    with pytest.raises(Invalid, match=r"set server\.node_id in the configuration file"):
        await configs.alter(None, {"node.id": "8"})
    with pytest.raises(Invalid, match=r"kafka\.node\.id is not used: set server\.node_id"):
        BrokerConfigs(cluster.database, cluster.identity, {"node.id": "8"})
    with pytest.raises(Invalid, match=r"kafka\.process\.roles is not used: leave it out"):
        BrokerConfigs(cluster.database, cluster.identity, {"process.roles": "broker"})


@pytest.mark.parametrize(
    "configs",
    [{"authorizer.class.name": "A"}, {"ssl.client.auth": "required"}, {"create.topic.policy.class.name": "P"}],
)
async def test_nobody_shall_believe_that_something_is_on(cluster, configs: dict[str, str]) -> None:
    with pytest.raises(Invalid, match="leave it out"):
        BrokerConfigs(cluster.database, cluster.identity, configs)


async def test_there_is_room_for_so_many(cluster) -> None:
    configs = await configs_of(cluster)
    await configs.alter(None, {f"key-{n}": "v" for n in range(ROWS_MAX)})
    before = await cluster.dump()
    with pytest.raises(Invalid, match="at most 1000 configs"):
        await configs.alter(None, {"one-more": "v"})
    assert await cluster.dump() == before
    await configs.alter(None, {"one-more": "v"}, ["key-1"])
    assert of_all_brokers(configs)["one-more"] == "v"
