"""Resources of the config APIs, and how Kafka numbers what there is to say of them."""

from types import SimpleNamespace

import pytest

from streamlake.cluster.config_def import ConfigSource, ConfigType, Layer
from streamlake.cluster.topics import TopicInfo
from streamlake.core.errors import Invalid, NotFound
from streamlake.handlers.config_entries import BROKER, SOURCES, TOPIC, TYPES, find, of_topic

LAYERS = [
    Layer(ConfigSource.DYNAMIC_BROKER, {"log.retention.ms": "2"}),
    Layer(ConfigSource.DYNAMIC_DEFAULT_BROKER, {"log.retention.ms": "3"}),
    Layer(ConfigSource.STATIC_BROKER, {"log.retention.ms": "4"}),
]


class Configs:
    def layers(self) -> list[Layer]:
        return LAYERS

    def topic_layers(self, own: dict[str, str]) -> list[Layer]:
        return [Layer(ConfigSource.DYNAMIC_TOPIC, own), *LAYERS]


CTX = SimpleNamespace(
    node=SimpleNamespace(node_id=3),
    broker_configs=Configs(),
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
    ],
)
def test_a_resource_has_its_own_layer_first(kind: int, name: str, key: str, value: str, own: dict[str, str]) -> None:
    found = find(CTX, kind, name)
    assert (found.entry(key).value, found.own) == (value, own)
    assert {e.definition.name for e in found.entries()} == {d.name for d in found.definitions}


def test_a_topic_that_is_not_there_yet() -> None:
    assert of_topic(CTX, {}).entry("retention.ms").value == "2"


@pytest.mark.parametrize(
    ("kind", "name", "error"),
    [(TOPIC, "nowhere", NotFound), (BROKER, "4", Invalid), (BROKER, "t", Invalid), (16, "t", Invalid)],
)
def test_what_is_no_resource_here(kind: int, name: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        find(CTX, kind, name)
