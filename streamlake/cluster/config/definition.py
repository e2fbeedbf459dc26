"""Configuration keys: name, type, default, rule and meaning of each; and lists of keys that check and describe values.

As in Kafka, values are stored and sent as strings; `parse` converts them to their type. A key is stored under its one
canonical name, whichever alias was used. The sources of a value are a list of layers, strongest first.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum

from streamlake.cluster.config.kafka import Fact
from streamlake.core.errors import Invalid

Value = bool | int | float | str | tuple[str, ...]
Parser = Callable[[str], Value]

INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1
_SHOWN_CHARS = 200  # of a name or value in a message
_INTEGER = re.compile(r"\s*[+-]?[0-9]{1,40}\s*")
_NUMBER = re.compile(r"\s*[+-]?(?:[0-9]{1,400}(?:\.[0-9]{0,400})?|\.[0-9]{1,400})(?:[eE][+-]?[0-9]{1,4})?\s*")


class ConfigType(StrEnum):
    """Kafka's config types."""

    BOOLEAN = "boolean"
    STRING = "string"
    INT = "int"
    LONG = "long"
    DOUBLE = "double"
    LIST = "list"
    SHORT = "short"
    CLASS = "class"
    PASSWORD = "password"
    UNKNOWN = "unknown"  # the key is not known to this broker


class ConfigSource(StrEnum):
    """The source of a value, named as in Kafka."""

    DYNAMIC_TOPIC = "dynamic_topic_config"
    GROUP = "dynamic_group_config"
    CLIENT_METRICS = "dynamic_client_metrics_config"
    DYNAMIC_BROKER = "dynamic_broker_config"
    DYNAMIC_DEFAULT_BROKER = "dynamic_default_broker_config"
    STATIC_BROKER = "static_broker_config"
    DEFAULT = "default_config"


@dataclass(frozen=True, slots=True)
class ConfigDef:
    """One key. `parser` raises ValueError with the broken rule ("must be …")."""

    name: str
    type: ConfigType
    default: str | None
    parser: Parser
    doc: str
    broker_key: str | None = None  # the broker config that is the default of this topic config
    aliases: tuple[str, ...] = ()
    # Further broker configs in coarser units, used if `broker_key` is not set, with the factor to the unit of this one.
    coarser: tuple[tuple[str, int], ...] = ()
    dynamic: bool = True  # AlterConfigs may change it

    @property
    def sensitive(self) -> bool:
        """Its value is never shown. The value of an unknown key may be a secret."""
        return self.type in (ConfigType.PASSWORD, ConfigType.UNKNOWN)

    def parse(self, value: str) -> Value:
        try:
            return self.parser(value)
        except ValueError as error:
            shown = "" if self.sensitive else f" = {value[:_SHOWN_CHARS]!r}"
            raise Invalid(f"{self.name}{shown}: {error}") from None


@dataclass(frozen=True, slots=True)
class Layer:
    """The values of one source, of a topic under topic keys, of a broker under broker keys."""

    source: ConfigSource
    values: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ConfigEntry:
    """The value in force of one key, as DescribeConfigs shows it."""

    definition: ConfigDef
    value: str | None
    source: ConfigSource
    synonyms: tuple[tuple[str, str, ConfigSource], ...]  # (key, value, source), strongest first


class ConfigDefs:
    """The keys of one kind of resource."""

    def __init__(self, what: str, definitions: Sequence[ConfigDef]) -> None:
        self.what = what
        self._definitions = {d.name: d for d in definitions}
        self._canonical = {name: d.name for d in definitions for name in (d.name, *d.aliases)}
        assert len(self._canonical) == sum(1 + len(d.aliases) for d in definitions), "a name is used twice"

    def __iter__(self) -> Iterator[ConfigDef]:
        return iter(self._definitions.values())

    def __contains__(self, name: str) -> bool:
        return name in self._canonical

    def __getitem__(self, name: str) -> ConfigDef:
        """The key with this name or alias. Invalid suggests the nearest one that exists."""
        return self._definitions[self.canonical(name)]

    def canonical(self, name: str) -> str:
        """The name under which a key is stored. Invalid if the key does not exist."""
        if name not in self._canonical:
            near = get_close_matches(name[:255], self._canonical, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise Invalid(f"{name[:255]!r} is not a {self.what} config{hint}")
        return self._canonical[name]

    def check(self, values: Mapping[str, str]) -> dict[str, str]:
        """The values under canonical names, each checked. Invalid also if a key and its alias have different values."""
        checked: dict[str, str] = {}
        for name, value in values.items():
            definition = self[name]
            definition.parse(value)
            if checked.setdefault(definition.name, value) != value:
                raise Invalid(f"{definition.name} is given twice, as {checked[definition.name]!r} and as {value!r}")
        return checked

    def describe(self, name: str, layers: Sequence[Layer]) -> ConfigEntry:
        """The value in force, and all values that it hides."""
        return describe(self[name], layers)

    def effective(self, layers: Sequence[Layer]) -> dict[str, str]:
        """The value in force of every key that has one."""
        values = {d.name: self.describe(d.name, layers).value for d in self}
        return {name: value for name, value in values.items() if value is not None}


def describe(definition: ConfigDef, layers: Sequence[Layer]) -> ConfigEntry:
    """The value in force, and all values that it hides."""
    found: list[tuple[str, str, ConfigSource]] = []
    values: list[str | None] = []
    for layer in layers:
        for key, units in _keys(definition, layer.source):
            if key in layer.values:
                found.append((key, layer.values[key], layer.source))
                values.append(_in_ours(layer.values[key], units))
    # As in Kafka, the default is listed under the broker key; if there are several keys, none has this default.
    if definition.default is not None and definition.broker_key is not None and not definition.coarser:
        found.append((definition.broker_key, definition.default, ConfigSource.DEFAULT))
    values.append(definition.default)
    source = found[0][2] if found else ConfigSource.DEFAULT
    return ConfigEntry(definition, values[0], source, tuple(found))


def _in_ours(value: str, units: int) -> str:
    """`value`, in a unit that is so many of ours, in our unit. A negative value means no limit."""
    return value if units == 1 else str(max(int(value) * units, -1))


def _keys(definition: ConfigDef, source: ConfigSource) -> tuple[tuple[str, int], ...]:
    """The keys under which a layer of this source may have the value, strongest first."""
    if source in (ConfigSource.DYNAMIC_TOPIC, ConfigSource.GROUP, ConfigSource.CLIENT_METRICS):
        return ((definition.name, 1),)
    return () if definition.broker_key is None else ((definition.broker_key, 1), *definition.coarser)


def from_fact(
    fact: Fact,
    doc: str,
    parser: Parser | None = None,
    broker_key: str | None = None,
    coarser: tuple[tuple[str, int], ...] = (),
    dynamic: bool = True,
) -> ConfigDef:
    """A config of Kafka. `parser`, if given, replaces Kafka's own rule: it accepts fewer values."""
    rule = parser or _rule(fact)
    return ConfigDef(fact.name, ConfigType(fact.type), fact.default, rule, doc, broker_key, (), coarser, dynamic)


def _rule(fact: Fact) -> Parser:
    """Kafka's rule for the value."""
    bounds = {"short": 2**15 - 1, "int": INT32_MAX, "long": INT64_MAX}
    match fact.type:
        case "boolean":
            return boolean
        case "double":
            low, high = (-math.inf if fact.low is None else fact.low), (math.inf if fact.high is None else fact.high)
            return number(low, high)
        case "short" | "int" | "long":
            top = bounds[fact.type]
            least = -top - 1 if fact.low is None else int(fact.low)
            most = top if fact.high is None else int(fact.high)
            return integer(least, most, None if fact.also is None else int(fact.also))
        case "list" if fact.choices:
            return list_of(*fact.choices)
        case _:
            return one_of(*fact.choices) if fact.choices else any_text


def boolean(value: str) -> bool:
    lowered = value.strip().lower()
    if lowered not in ("true", "false"):
        raise ValueError("must be true or false")
    return lowered == "true"


def integer(low: int, high: int, also: int | None = None) -> Parser:
    rule = f"must be a whole number from {low} to {high}" + (f", or {also}" if also is not None else "")

    def parse(value: str) -> int:
        if not _INTEGER.fullmatch(value):
            raise ValueError(rule)
        number = int(value)
        if not low <= number <= high and number != also:
            raise ValueError(rule)
        return number

    return parse


def number(low: float, high: float) -> Parser:
    rule = f"must be a number from {low:g} to {high:g}"

    def parse(value: str) -> float:
        found = float(value) if _NUMBER.fullmatch(value) else math.nan
        if not low <= found <= high:
            raise ValueError(rule)
        return found

    return parse


def one_of(*choices: str) -> Parser:

    def parse(value: str) -> str:
        if value not in choices:
            raise ValueError(f"must be {' or '.join(choices)}")
        return value

    return parse


def list_of(*choices: str) -> Parser:
    def parse(value: str) -> tuple[str, ...]:
        items = comma_list(value)
        if wrong := [item for item in items if item not in choices]:
            raise ValueError(f"has {wrong[0]!r}; each item must be {' or '.join(choices)}")
        return items

    return parse


def comma_list(value: str) -> tuple[str, ...]:
    """The items of a list that is separated by commas, without surrounding space."""
    return tuple(item.strip() for item in value.split(",") if item.strip())


def any_text(value: str) -> str:
    if len(value) > 32_767 or "\0" in value:
        raise ValueError("must not be longer than 32767 characters, nor hold a NUL")
    return value
