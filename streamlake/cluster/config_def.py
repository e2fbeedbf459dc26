"""What a configuration key is: name, type, default, rule, meaning; and lists of them that check and explain.

Values are stored and sent as Kafka does it, as strings; `parse` gives them their type. A key is stored under its one
canonical name, whichever alias it came by. Where a value comes from is a list of layers, strongest first.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum

from streamlake.core.errors import Invalid

Value = bool | int | float | str | tuple[str, ...]
Parser = Callable[[str], Value]

INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1


class ConfigType(StrEnum):
    """Kafka's config types."""

    BOOLEAN = "boolean"
    STRING = "string"
    INT = "int"
    LONG = "long"
    DOUBLE = "double"
    LIST = "list"


class ConfigSource(StrEnum):
    """Where a value comes from; Kafka's names."""

    DYNAMIC_TOPIC = "dynamic_topic_config"
    DYNAMIC_BROKER = "dynamic_broker_config"
    DYNAMIC_DEFAULT_BROKER = "dynamic_default_broker_config"
    STATIC_BROKER = "static_broker_config"
    DEFAULT = "default_config"


@dataclass(frozen=True, slots=True)
class ConfigDef:
    """One key. `parser` raises ValueError with the rule that was broken ("must be …")."""

    name: str
    type: ConfigType
    default: str
    parser: Parser
    doc: str
    broker_key: str | None = None  # the broker's config that is this topic config's default
    aliases: tuple[str, ...] = ()

    def parse(self, value: str) -> Value:
        try:
            return self.parser(value)
        except ValueError as error:
            raise Invalid(f"{self.name} = {value[:200]!r}: {error}") from None


@dataclass(frozen=True, slots=True)
class Layer:
    """Values of one source: of a topic under topic keys, of a broker under broker keys."""

    source: ConfigSource
    values: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ConfigEntry:
    """The value in force of one key, as DescribeConfigs shows it."""

    definition: ConfigDef
    value: str
    source: ConfigSource
    synonyms: tuple[tuple[str, str, ConfigSource], ...]  # (key, value, source), strongest first; ends with the default


class ConfigDefs:
    """A list of keys that belong together."""

    def __init__(self, what: str, definitions: Sequence[ConfigDef]) -> None:
        self.what = what
        self._definitions = {d.name: d for d in definitions}
        self._canonical = {name: d.name for d in definitions for name in (d.name, *d.aliases)}
        assert len(self._canonical) == sum(1 + len(d.aliases) for d in definitions), "a name is used twice"

    def __iter__(self) -> Iterator[ConfigDef]:
        return iter(self._definitions.values())

    def __getitem__(self, name: str) -> ConfigDef:
        """By name or alias. Invalid names the nearest key that exists."""
        return self._definitions[self.canonical(name)]

    def canonical(self, name: str) -> str:
        """The name under which a key is stored. Invalid if there is none such."""
        if name not in self._canonical:
            near = get_close_matches(name[:255], self._canonical, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise Invalid(f"{name[:255]!r} is no {self.what} config{hint}")
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
        definition = self[name]
        found = []
        for layer in layers:
            key = definition.name if layer.source is ConfigSource.DYNAMIC_TOPIC else definition.broker_key
            if key is not None and key in layer.values:
                found.append((key, layer.values[key], layer.source))
        found.append((definition.broker_key or definition.name, definition.default, ConfigSource.DEFAULT))
        _, value, source = found[0]
        return ConfigEntry(definition, value, source, tuple(found))

    def effective(self, layers: Sequence[Layer]) -> dict[str, str]:
        """The value in force of every key."""
        return {d.name: self.describe(d.name, layers).value for d in self}


def boolean(value: str) -> bool:
    lowered = value.strip().lower()
    if lowered not in ("true", "false"):
        raise ValueError("must be true or false")
    return lowered == "true"


def integer(low: int, high: int) -> Parser:
    def parse(value: str) -> int:
        rule = f"must be a whole number from {low} to {high}"
        try:
            number = int(value) if len(value) <= 40 else high + 1
        except ValueError:
            raise ValueError(rule) from None
        if not low <= number <= high:
            raise ValueError(rule)
        return number

    return parse


def number(low: float, high: float) -> Parser:
    def parse(value: str) -> float:
        rule = f"must be a number from {low:g} to {high:g}"
        try:
            found = float(value)
        except ValueError:
            raise ValueError(rule) from None
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


def comma_list(value: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in value.split(",") if item.strip())


def any_text(value: str) -> str:
    if len(value) > 32_767:
        raise ValueError("must not be longer than 32767 characters")
    return value
