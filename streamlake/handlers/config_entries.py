"""A configuration as Kafka's config APIs number it: sources, types, and which entries a resource has."""

from collections.abc import Mapping

from streamlake.cluster.config_def import ConfigEntry, ConfigSource, ConfigType
from streamlake.cluster.topic_configs import TOPIC_CONFIGS
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


def of_topic(ctx: Context, given: Mapping[str, str]) -> list[ConfigEntry]:
    """Every topic config with its value in force; `given` are the topic's own."""
    layers = ctx.broker_configs.topic_layers(given)
    return [TOPIC_CONFIGS.describe(definition.name, layers) for definition in TOPIC_CONFIGS]
