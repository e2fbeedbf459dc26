"""Configurations as Kafka's config APIs see them: resources, what is set on them, and how they change.

A resource is a topic, this broker or, with an empty name, all brokers; a group or a client metrics subscription, by
name, whether it is there or not; or the loggers of this broker. A request that makes no sense is INVALID_REQUEST, a
config that a topic or group cannot have INVALID_CONFIG, and one that a broker cannot have INVALID_REQUEST again:
Kafka's answers, and tests/support/config_cases.py lists them.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import structlog

from streamlake.cluster.broker_configs import BROKER_CONFIGS, check_alter, definition_of
from streamlake.cluster.config.definition import (
    ConfigDef,
    ConfigDefs,
    ConfigEntry,
    ConfigSource,
    ConfigType,
    Layer,
    describe,
)
from streamlake.cluster.config.topic import TOPIC_CONFIGS
from streamlake.cluster.store.resource_configs import DEFINITIONS
from streamlake.cluster.topics import check_name
from streamlake.core.errors import Invalid, NotFound, StreamLakeError
from streamlake.handlers.context import Context
from streamlake.handlers.error_codes import COMMON, CONFIG, Failure, failure
from streamlake.protocol.errors import ErrorCode

# Kafka's ConfigResource types.
TOPIC, BROKER, LOGGER, CLIENT_METRICS, GROUP = 2, 4, 8, 16, 32
NAMED = {CLIENT_METRICS: ConfigSource.CLIENT_METRICS, GROUP: ConfigSource.GROUP}
SOURCES = {
    ConfigSource.DYNAMIC_TOPIC: 1,
    ConfigSource.DYNAMIC_BROKER: 2,
    ConfigSource.DYNAMIC_DEFAULT_BROKER: 3,
    ConfigSource.STATIC_BROKER: 4,
    ConfigSource.DEFAULT: 5,
    ConfigSource.CLIENT_METRICS: 7,
    ConfigSource.GROUP: 8,
}
TYPES = {
    ConfigType.UNKNOWN: 0,
    ConfigType.BOOLEAN: 1,
    ConfigType.STRING: 2,
    ConfigType.INT: 3,
    ConfigType.SHORT: 4,
    ConfigType.LONG: 5,
    ConfigType.DOUBLE: 6,
    ConfigType.LIST: 7,
    ConfigType.CLASS: 8,
    ConfigType.PASSWORD: 9,
}
ROOT_LOGGER = "root"  # the one there is: all of this process logs at one level
LOG_LEVELS = {0: "TRACE", 10: "DEBUG", 20: "INFO", 30: "WARN", 40: "ERROR", 50: "FATAL"}  # Kafka's words for Python's


class Refused(Invalid):
    """Invalid, with a code of its own, whatever Invalid means for the resource at hand."""

    def __init__(self, message: str, code: ErrorCode = ErrorCode.INVALID_REQUEST) -> None:
        super().__init__(message)
        self.code = code


class Resource(NamedTuple):
    """The keys that a resource can have, and the layers that give them values, its own first."""

    definitions: ConfigDefs
    layers: Sequence[Layer]

    @property
    def own(self) -> Mapping[str, str]:
        """What was set on this resource itself."""
        return self.layers[0].values

    def definition(self, name: str) -> ConfigDef:
        return definition_of(name) if self.definitions is BROKER_CONFIGS else self.definitions[name]

    def entry(self, name: str) -> ConfigEntry:
        return describe(self.definition(name), self.layers)

    def entries(self, names: Collection[str] = ()) -> list[ConfigEntry]:
        """Every key, or those of these names, with its value in force; also what is set and no broker knows."""
        found = {definition.name: definition for definition in self.definitions}
        if self.definitions is BROKER_CONFIGS:
            found |= {key: definition_of(key) for layer in self.layers for key in layer.values if key not in found}
        return [
            describe(definition, self.layers)
            for definition in found.values()
            if not names or definition.name in names or any(alias in names for alias in definition.aliases)
        ]


async def find(ctx: Context, kind: int, name: str) -> Resource:
    """NotFound: no such topic. Refused: another broker, a wrong name, or something that has no configs."""
    layers = ctx.broker_configs.layers()
    if kind == TOPIC:
        try:
            check_name(name)
        except Invalid as error:
            raise Refused(str(error), ErrorCode.INVALID_TOPIC_EXCEPTION) from None
        topic = ctx.topics.get(name)
        if topic is None:
            raise NotFound(f"topic {name} does not exist")
        return of_topic(ctx, topic.configs)
    if kind == BROKER:
        if name == "":
            return Resource(BROKER_CONFIGS, layers[1:])  # without what was set for this broker alone
        check_this_broker(ctx, name)
        return Resource(BROKER_CONFIGS, layers)
    if kind in NAMED:
        if name == "":
            raise Refused("a group or a client metrics subscription has a name: there are no defaults for all of them")
        own = await ctx.resource_configs.own(NAMED[kind], name)
        return Resource(DEFINITIONS[NAMED[kind]], [Layer(NAMED[kind], own), *layers])
    raise Refused(
        f"resource type {kind} has no configs: a topic is {TOPIC}, a broker {BROKER}, a broker's loggers {LOGGER}, "
        f"client metrics {CLIENT_METRICS}, a group {GROUP}"
    )


def of_topic(ctx: Context, own: Mapping[str, str]) -> Resource:
    """A topic with these configs of its own, whether it exists or not."""
    return Resource(TOPIC_CONFIGS, ctx.broker_configs.topic_layers(own))


def check_this_broker(ctx: Context, name: str) -> None:
    try:
        node = int(name) if len(name) <= 20 else None
    except ValueError:
        node = None
    if node != ctx.brokers.node:
        raise Refused(f"this is broker {ctx.brokers.node}, not {name[:100]!r}: ask that one")


def log_level() -> str:
    """Of this process, in Kafka's words."""
    return LOG_LEVELS[structlog.get_logger().get_effective_level()]


async def apply(ctx: Context, kind: int, name: str, change: Mapping[str, str | None], validate_only: bool) -> None:
    """Change keys of a resource that `find` has found; None deletes a key."""
    given = {key: value for key, value in change.items() if value is not None}
    removed = [key for key, value in change.items() if value is None]
    if kind == TOPIC:
        if validate_only:
            ctx.topics.check_alter_configs(name, given, removed)
        else:
            await ctx.topics.alter_configs(name, given, removed)
    elif kind == BROKER:
        if validate_only:
            check_alter(given)
        else:
            await ctx.broker_configs.alter(ctx.brokers.node if name else None, given, removed)
    elif validate_only:
        DEFINITIONS[NAMED[kind]].check(given)
    else:
        await ctx.resource_configs.alter(NAMED[kind], name, given, removed)


def repeated(resources: Iterable[tuple[int, str]]) -> frozenset[tuple[int, str]]:
    """The resources that stand more than once in a request."""
    return frozenset(resource for resource, count in Counter(resources).items() if count > 1)


def check_named(kind: int, name: str, twice: Collection[tuple[int, str]]) -> None:
    """Refused: what no request may change. Which of two changes of one resource is meant to win, nobody knows."""
    if (kind, name) in twice:
        raise Refused(f"{name!r} appears more than once in this request: put its configs together")
    if kind == TOPIC and name == "":
        raise Refused("a topic has a name: defaults of all topics are configs of the broker")


def refusal(error: StreamLakeError, kind: int) -> Failure:
    """The code and words of what went wrong with a change."""
    if isinstance(error, Refused):
        return Failure(error.code, str(error))
    return failure(error, COMMON if kind == BROKER else CONFIG)
