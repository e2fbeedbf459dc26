import pytest

from streamlake.cluster.config.definition import ConfigSource
from streamlake.cluster.store import resource_configs
from streamlake.cluster.store.resource_configs import CLIENT_METRICS_CONFIGS, GROUP_CONFIGS, ResourceConfigs
from streamlake.core.errors import Fenced, Invalid

GROUP, METRICS = ConfigSource.GROUP, ConfigSource.CLIENT_METRICS


async def test_set_and_removed_by_name_and_kind(cluster) -> None:
    configs = ResourceConfigs(cluster.database, cluster.identity)
    assert await configs.own(GROUP, "g") == {}
    await configs.alter(GROUP, "g", {"share.isolation.level": "read_committed", "streams.num.standby.replicas": "1"})
    await configs.alter(METRICS, "g", {"interval.ms": "500"})
    await configs.alter(GROUP, "g", {"streams.num.standby.replicas": "2"}, ["share.isolation.level", "nonsense"])
    assert await configs.own(GROUP, "g") == {"streams.num.standby.replicas": "2"}
    assert await configs.own(METRICS, "g") == {"interval.ms": "500"}
    assert await configs.own(GROUP, "other") == {}
    await configs.alter(GROUP, "f", {"share.isolation.level": "read_committed", "streams.num.standby.replicas": "1"})
    assert (await configs.names(GROUP), await configs.names(METRICS)) == (["f", "g"], ["g"])
    await configs.alter(METRICS, "g", {}, ["interval.ms"])
    assert await configs.names(METRICS) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("nonsense", "1"),
        ("consumer.session.timeout.ms", "44999"),
        ("consumer.session.timeout.ms", "60001"),
        ("share.delivery.count.limit", "11"),
        ("share.auto.offset.reset", "by_duration:P"),
        ("share.auto.offset.reset", "by_duration:PT"),
        ("share.auto.offset.reset", "by_duration:P1DT"),
    ],
)
async def test_wrong_values_change_nothing(cluster, key: str, value: str) -> None:
    configs = ResourceConfigs(cluster.database, cluster.identity)
    with pytest.raises(Invalid):
        await configs.alter(GROUP, "g", {"share.isolation.level": "read_committed", key: value})
    assert await configs.own(GROUP, "g") == {}


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 1025, "ü" * 513])
async def test_wrong_names(cluster, name: str) -> None:
    with pytest.raises(Invalid, match="1 to 1024 bytes"):
        await ResourceConfigs(cluster.database, cluster.identity).own(GROUP, name)


def test_every_default_is_valid_and_every_config_explained() -> None:
    for definition in (*GROUP_CONFIGS, *CLIENT_METRICS_CONFIGS):
        assert definition.default is not None
        definition.parse(definition.default)
        assert definition.doc.startswith("Accepted and without effect: ")


@pytest.mark.parametrize("value", ["latest", "earliest", "by_duration:P1D", "by_duration:PT1H2.5S"])
def test_offset_resets(value: str) -> None:
    assert GROUP_CONFIGS["share.auto.offset.reset"].parse(value) == value


async def test_there_is_room_for_so_many(cluster, monkeypatch) -> None:
    monkeypatch.setattr(resource_configs, "ROWS_MAX", 2)
    configs = ResourceConfigs(cluster.database, cluster.identity)
    await configs.alter(METRICS, "a", {"interval.ms": "500"})
    await configs.alter(METRICS, "b", {"interval.ms": "500"})
    with pytest.raises(Invalid, match="at most 2 configs"):
        await configs.alter(METRICS, "c", {"interval.ms": "500"})
    assert await configs.own(METRICS, "c") == {}
    await configs.alter(GROUP, "c", {"share.isolation.level": "read_committed"})


async def test_a_zombie_changes_nothing(cluster) -> None:
    configs = ResourceConfigs(cluster.database, cluster.identity)
    await cluster.register()
    with pytest.raises(Fenced):
        await configs.alter(GROUP, "g", {"share.isolation.level": "read_committed"})
