"""Resources of the config APIs, and how Kafka numbers what there is to say of them."""

from types import SimpleNamespace

import pytest

from streamlake.cluster.config.definition import ConfigSource, ConfigType, Layer
from streamlake.cluster.store.topic_rows import TopicInfo
from streamlake.core.errors import Invalid, NotFound
from streamlake.handlers.config_entries import (
    BROKER,
    CLIENT_METRICS,
    GROUP,
    SOURCES,
    TOPIC,
    TYPES,
    find,
    of_topic,
    repeated,
)

LAYERS = [
    Layer(ConfigSource.DYNAMIC_BROKER, {"log.retention.ms": "2"}),
    Layer(ConfigSource.DYNAMIC_DEFAULT_BROKER, {"log.retention.ms": "3"}),
    Layer(ConfigSource.STATIC_BROKER, {"log.retention.ms": "4"}),
]


class Named:
    async def own(self, kind: ConfigSource, name: str) -> dict[str, str]:
        return {"interval.ms": "500"} if (kind, name) == (ConfigSource.CLIENT_METRICS, "m") else {}


class Configs:
    def layers(self) -> list[Layer]:
        return LAYERS

    def topic_layers(self, own: dict[str, str]) -> list[Layer]:
        return [Layer(ConfigSource.DYNAMIC_TOPIC, own), *LAYERS]


CTX = SimpleNamespace(
    brokers=SimpleNamespace(node=3),
    broker_configs=Configs(),
    resource_configs=Named(),
    topics=SimpleNamespace(get={"t": TopicInfo("t", None, {"retention.ms": "1"}, ())}.get),
)


def test_kafka_has_a_number_for_everything() -> None:
    assert set(SOURCES) == set(ConfigSource)
    assert set(TYPES) == set(ConfigType)


@pytest.mark.parametrize(
    ("kind", "name", "key", "value", "own"),
    [
        (TOPIC, "t", "retention.ms", "1", {"retention.ms": "1"}),
        (BROKER, "3", "log.retention.ms", "2", {"log.retention.ms": "2"}),
        (BROKER, "", "log.retention.ms", "3", {"log.retention.ms": "3"}),
        (CLIENT_METRICS, "m", "interval.ms", "500", {"interval.ms": "500"}),
        (CLIENT_METRICS, "other", "interval.ms", "300000", {}),
        (GROUP, "g", "share.isolation.level", "read_uncommitted", {}),
    ],
)
async def test_a_resource_has_its_own_layer_first(
    kind: int, name: str, key: str, value: str, own: dict[str, str]
) -> None:
    found = await find(CTX, kind, name)
    assert (found.entry(key).value, found.own) == (value, own)
    assert {e.definition.name for e in found.entries()} == {d.name for d in found.definitions}


def test_a_topic_that_is_not_there_yet() -> None:
    assert of_topic(CTX, {}).entry("retention.ms").value == "2"


@pytest.mark.parametrize(
    ("kind", "name", "error"),
    [
        (TOPIC, "nowhere", NotFound),
        (BROKER, "4", Invalid),
        (BROKER, "t", Invalid),
        (99, "t", Invalid),
        (GROUP, "", Invalid),
    ],
)
async def test_what_is_no_resource_here(kind: int, name: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        await find(CTX, kind, name)


async def test_what_is_set_is_shown_even_if_nobody_knows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Configs, "layers", lambda _: [Layer(ConfigSource.DYNAMIC_BROKER, {"x": "1"}), *LAYERS])
    entries = {e.definition.name: e for e in (await find(CTX, BROKER, "3")).entries()}
    assert (entries["x"].definition.sensitive, entries["x"].definition.dynamic) == (True, False)
    assert "leader.replication.throttled.rate" not in entries, "listed only where it is set"


def test_resources_that_are_named_twice() -> None:
    assert repeated([(2, "a"), (2, "b"), (2, "a"), (4, "b")]) == {(2, "a")}
