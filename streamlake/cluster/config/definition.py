"""What a configuration key is: name, type, default, rule, meaning; and lists of them that check and explain.

Values are stored and sent as Kafka does it, as strings; `parse` gives them their type. A key is stored under its one
canonical name, whichever alias it came by. Where a value comes from is a list of layers, strongest first.
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
    UNKNOWN = "unknown"  # of a key that this broker does not know


class ConfigSource(StrEnum):
    """Where a value comes from; Kafka's names."""

    DYNAMIC_TOPIC = "dynamic_topic_config"
    GROUP = "dynamic_group_config"
    CLIENT_METRICS = "dynamic_client_metrics_config"
    DYNAMIC_BROKER = "dynamic_broker_config"
    DYNAMIC_DEFAULT_BROKER = "dynamic_default_broker_config"
    STATIC_BROKER = "static_broker_config"
    DEFAULT = "default_config"


@dataclass(frozen=True, slots=True)
class ConfigDef:
    """One key. `parser` raises ValueError with the rule that was broken ("must be …")."""

    name: str
    type: ConfigType
    default: str | None
    parser: Parser
    doc: str
    broker_key: str | None = None  # the broker's config that is this topic config's default
    aliases: tuple[str, ...] = ()
    # More broker's configs, in coarser units, which count if `broker_key` is not set, and how many of ours they are.
    coarser: tuple[tuple[str, int], ...] = ()
    dynamic: bool = True  # AlterConfigs may change it

    @property
    def sensitive(self) -> bool:
        """Its value is shown to nobody. What we do not know may be a secret."""
        return self.type in (ConfigType.PASSWORD, ConfigType.UNKNOWN)

    def parse(self, value: str) -> Value:
        try:
            return self.parser(value)
        except ValueError as error:
            shown = "" if self.sensitive else f" = {value[:_SHOWN_CHARS]!r}"
            raise Invalid(f"{self.name}{shown}: {error}") from None


@dataclass(frozen=True, slots=True)
class Layer:
    """Values of one source: of a topic under topic keys, of a broker under broker keys."""

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
    """A list of keys that belong together."""

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
        """By name or alias. Invalid names the nearest key that exists."""
        return self._definitions[self.canonical(name)]

    def canonical(self, name: str) -> str:
        """The name under which a key is stored. Invalid if there is none such."""
        if name not in self._canonical:
            near = get_close_matches(name[:255], self._canonical, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise Invalid(f"{name[:255]!r} is not a {self.what} config{hint}")
        return self._canonical[name]

    def check(self, values: Mapping[str, str]) -> dict[str, str]:
        """The values under canonical names, each checked by its rule. Invalid also if a key and its alias differ."""
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
    # As Kafka has it: the default of a broker's key; with several keys none has one, or not in these units.
    if definition.default is not None and definition.broker_key is not None and not definition.coarser:
        found.append((definition.broker_key, definition.default, ConfigSource.DEFAULT))
    values.append(definition.default)
    source = found[0][2] if found else ConfigSource.DEFAULT
    return ConfigEntry(definition, values[0], source, tuple(found))


def _in_ours(value: str, units: int) -> str:
    """In our units, if `value` is in one that is so many of ours; whatever is negative means no limit."""
    return value if units == 1 else str(max(int(value) * units, -1))


def _keys(definition: ConfigDef, source: ConfigSource) -> tuple[tuple[str, int], ...]:
    """Under which keys a layer of this source would say it, strongest first."""
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
    """A config of Kafka's. `parser` refuses more than Kafka does."""
    rule = parser or _rule(fact)
    return ConfigDef(fact.name, ConfigType(fact.type), fact.default, rule, doc, broker_key, (), coarser, dynamic)


def _rule(fact: Fact) -> Parser:
    """What Kafka takes as a value."""
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


def one_of(*choices: str, not_yet: Sequence[str] = ()) -> Parser:
    """One of `choices`; those of `not_yet` are Kafka's or AutoMQ's, and refused with words of their own."""

    def parse(value: str) -> str:
        if value in not_yet:
            raise ValueError(f"is not implemented yet; use {' or '.join(choices)}")
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
    """Items without the space around them."""
    return tuple(item.strip() for item in value.split(",") if item.strip())


def any_text(value: str) -> str:
    if len(value) > 32_767 or "\0" in value:
        raise ValueError("must not be longer than 32767 characters, nor hold a NUL")
    return value
