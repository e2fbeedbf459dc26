"""Configurations as Kafka's config APIs see them: resources, what was set on them, how sources and types are numbered.

A resource is a topic, this broker, or, with an empty name, all brokers.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from streamlake.cluster.config_def import ConfigDefs, ConfigEntry, ConfigSource, ConfigType, Layer
from streamlake.cluster.configs import BROKER_CONFIGS
from streamlake.cluster.topic_configs import TOPIC_CONFIGS
from streamlake.core.errors import Invalid, NotFound
from streamlake.handlers.context import Context

TOPIC, BROKER = 2, 4  # Kafka's ConfigResource types
SOURCES = {
    ConfigSource.DYNAMIC_TOPIC: 1,
    ConfigSource.DYNAMIC_BROKER: 2,
    ConfigSource.DYNAMIC_DEFAULT_BROKER: 3,
    ConfigSource.STATIC_BROKER: 4,
    ConfigSource.DEFAULT: 5,
}
TYPES = {
    ConfigType.BOOLEAN: 1,
    ConfigType.STRING: 2,
    ConfigType.INT: 3,
    ConfigType.LONG: 5,
    ConfigType.DOUBLE: 6,
    ConfigType.LIST: 7,
}


class Resource(NamedTuple):
    """The keys that a resource can have, and the layers that give them values, its own first."""

    definitions: ConfigDefs
    layers: Sequence[Layer]

    @property
    def own(self) -> Mapping[str, str]:
        """What was set on this resource itself."""
        return self.layers[0].values

    def entry(self, name: str) -> ConfigEntry:
        return self.definitions.describe(name, self.layers)

    def entries(self) -> list[ConfigEntry]:
        """Every key with its value in force."""
        return [self.entry(definition.name) for definition in self.definitions]


def find(ctx: Context, kind: int, name: str) -> Resource:
    """NotFound: no such topic. Invalid: another broker, or something that has no configs here."""
    if kind == TOPIC:
        topic = ctx.topics.get(name)
        if topic is None:
            raise NotFound(f"topic {name} does not exist")
        return of_topic(ctx, topic.configs)
    if kind != BROKER:
        raise Invalid(f"resource type {kind} has no configs here: topics are {TOPIC}, brokers {BROKER}")
    layers = ctx.broker_configs.layers()
    if name == "":
        return Resource(BROKER_CONFIGS, layers[1:])  # without what was set for this broker alone
    if name != str(ctx.node.node_id):
        raise Invalid(f"this is broker {ctx.node.node_id}, not {name}")
    return Resource(BROKER_CONFIGS, layers)


def of_topic(ctx: Context, own: Mapping[str, str]) -> Resource:
    """A topic with these configs of its own, whether it exists or not."""
    return Resource(TOPIC_CONFIGS, ctx.broker_configs.topic_layers(own))
