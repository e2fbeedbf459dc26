"""`streamlake.table.*`: how a topic becomes an Iceberg table.

Every `automq.table.topic.*` key of AutoMQ is an alias of the key with the same ending, and the deprecated
`schema.type` is translated, so that existing scripts work. Values that are not implemented are refused, never ignored.
`TableSettings.from_configs` gives the typed form that the table worker uses.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from streamlake.cluster.config.columns import BYTES, CHANGE_COLUMNS, LAYOUTS, NESTED, NUMBER, STREAMLAKE, TEXT, TIME
from streamlake.cluster.config.definition import (
    INT32_MAX,
    ConfigDef,
    ConfigType,
    Parser,
    Value,
    boolean,
    integer,
    one_of,
)
from streamlake.cluster.config.formats import CONVERT_TYPES, ConvertType
from streamlake.core.errors import Invalid

PREFIX = "streamlake.table."
AUTOMQ_PREFIX = "automq.table.topic."
AUTOMQ_SCHEMA_TYPE = AUTOMQ_PREFIX + "schema.type"

_COLUMN = r"[\w\-]+(?:\.[\w\-]+)*"
_PARTITION_ITEM = re.compile(
    rf"(?:(?P<function>[A-Za-z]+)\s*\(\s*)?(?P<column>{_COLUMN})\s*(?:,\s*(?P<number>[0-9]+)\s*)?\)?"
)
_PARTITION_FIELDS_MAX = 32
_PARTITION_BY_CHARS_MAX = 4_096
_TIMES = ("year", "month", "day", "hour")
_PLAIN_TRANSFORMS = ("identity", *_TIMES)
_NUMBERED_TRANSFORMS = ("bucket", "truncate")

# The transforms of a column by its kind.
_TRANSFORMS: Mapping[str, tuple[str, ...]] = {
    NUMBER: ("identity", *_NUMBERED_TRANSFORMS),
    TEXT: ("identity", *_NUMBERED_TRANSFORMS),
    BYTES: ("identity", *_NUMBERED_TRANSFORMS),
    TIME: ("identity", *_TIMES, "bucket"),
    NESTED: (),
}
_NAME_BYTES_MAX = 249  # the name of a folder may have 255, and the dead-letter table adds six
_NAMESPACE_BYTES_MAX = 255
_SUBJECT_CHARS_MAX = 300
_MESSAGE_NAME = r"[A-Za-z_]\w{0,254}(\.[A-Za-z_]\w{0,254}){0,31}"

# The configs that replace AutoMQ's deprecated schema.type.
_SCHEMA_TYPES: Mapping[str, Mapping[str, str]] = {
    "none": {},
    "schemaless": {PREFIX + "convert.value.type": "string", PREFIX + "convert.key.type": "string"},
    "schema": {
        PREFIX + "convert.value.type": "by_schema_id",
        PREFIX + "convert.key.type": "string",
        PREFIX + "transform.value.type": "flatten",
    },
}


@dataclass(frozen=True, slots=True)
class PartitionBy:
    """One field of the partition spec: `bucket(user.id, 16)` is ("user.id", "bucket", 16)."""

    column: str  # dots name nested fields
    transform: str  # identity, year, month, day, hour, bucket, truncate
    parameter: int | None = None  # buckets, or width

    def __str__(self) -> str:
        if self.parameter is not None:
            return f"{self.transform}({self.column}, {self.parameter})"
        return self.column if self.transform == "identity" else f"{self.transform}({self.column})"


@dataclass(frozen=True, slots=True)
class LatestSchemaOf:
    """For by_latest_schema. `subject`: "" is `<topic>-value` or `<topic>-key`. `message`: of a Protobuf schema, by its
    full name; "" is its first one."""

    subject: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class TableSettings:
    """The table configs of one topic, typed."""

    enable: bool
    catalog: str  # "": the default of the server
    namespace: str
    name: str  # "": the topic's name
    commit_interval_ms: int
    convert_value: str  # of CONVERT_TYPES
    convert_key: str
    transform_value: str  # none, flatten, flatten_debezium
    partition_by: tuple[PartitionBy, ...]
    layout: str  # of LAYOUTS
    errors_tolerance: str  # none, invalid_data, all
    json_columns_max: int = 500
    latest_value: LatestSchemaOf = LatestSchemaOf()
    latest_key: LatestSchemaOf = LatestSchemaOf()

    @classmethod
    def from_configs(cls, configs: Mapping[str, str]) -> "TableSettings":
        """From canonical keys, explicit or effective; absent keys have their defaults, and other keys are ignored.
        Invalid, also if the values contradict each other."""
        texts = {d.name.removeprefix(PREFIX): configs.get(d.name, d.default or "") for d in TABLE_CONFIGS}
        for definition in TABLE_CONFIGS:
            definition.parse(texts[definition.name.removeprefix(PREFIX)])
        settings = cls(
            enable=boolean(texts["enable"]),
            catalog=texts["catalog"],
            namespace=texts["namespace"],
            name=texts["name"],
            commit_interval_ms=int(texts["commit.interval.ms"]),
            convert_value=texts["convert.value.type"],
            convert_key=texts["convert.key.type"],
            transform_value=texts["transform.value.type"],
            partition_by=partition_fields(texts["partition.by"]),
            layout=texts["layout"],
            errors_tolerance=texts["errors.tolerance"],
            json_columns_max=int(texts["json.columns.max"]),
            latest_value=_latest(texts, "value"),
            latest_key=_latest(texts, "key"),
        )
        if settings.flattens and not CONVERT_TYPES[settings.convert_value].by_schema:
            by_schema = " or ".join(name for name, found in CONVERT_TYPES.items() if found.by_schema)
            raise Invalid(
                f"{PREFIX}transform.value.type = {settings.transform_value} needs records with fields: "
                f"set {PREFIX}convert.value.type = {by_schema} too (it is {settings.convert_value})"
            )
        return settings

    @property
    def flattens(self) -> bool:
        """Whether the columns of the table are fields of the value."""
        return self.transform_value != "none"

    @property
    def unwraps_debezium(self) -> bool:
        return self.transform_value == "flatten_debezium"

    def refused_partition(self) -> str:
        """Why an item of `partition_by` is impossible for any record; "" if none is. Items that depend on a schema are
        checked when the schema is known."""
        columns = self._known_columns()
        for item in self.partition_by:
            name = item.column.casefold()
            kind = columns.get(name)
            if kind is not None and item.transform not in _TRANSFORMS[kind]:
                use = f": use {' or '.join(_TRANSFORMS[kind])}" if _TRANSFORMS[kind] else ""
                return f"{PREFIX}partition.by: {item} is not possible, because {item.column} is {kind}{use}"
            root = name.partition(".")[0]
            of_a_schema = any(name == s or name.startswith(s + ".") for s in self._columns_of_schemas())
            flattened = self.flattens and root not in columns
            if kind is None and not (of_a_schema or flattened):
                return f"{PREFIX}partition.by: {item} is not possible, because there will be no column {item.column}"
        return ""

    def _known_columns(self) -> dict[str, str]:
        """The kinds of the columns, in words, as far as the configs determine them."""
        kinds = ((path, convert.column) for path, convert in self._converted())
        beside = CHANGE_COLUMNS if self.unwraps_debezium else {}
        return {**LAYOUTS[self.layout].columns, **beside, **{path: kind for path, kind in kinds if kind is not None}}

    def _columns_of_schemas(self) -> list[str]:
        """The columns whose kind a schema determines."""
        return [path for path, convert in self._converted() if convert.by_schema]

    def _converted(self) -> tuple[tuple[str, ConvertType], ...]:
        """The columns of key and value, and the conversion of each."""
        layout = LAYOUTS[self.layout]
        return (layout.key, CONVERT_TYPES[self.convert_key]), (layout.value, CONVERT_TYPES[self.convert_value])


def check_table_configs(configs: Mapping[str, str]) -> None:
    """Check the configs of a topic, under canonical keys. Invalid if they contradict each other."""
    settings = TableSettings.from_configs(configs)
    if not settings.enable:  # related configs may be set one after the other
        return
    # If the topic does not set its layout, the default of the broker may be any, and may change.
    layouts = (settings.layout,) if PREFIX + "layout" in configs else tuple(LAYOUTS)
    refused = [replace(settings, layout=layout).refused_partition() for layout in layouts]
    if all(refused):
        raise Invalid(refused[0])


def translate_schema_type(configs: Mapping[str, str]) -> dict[str, str]:
    """Replace AutoMQ's `schema.type` by the keys it stands for. Invalid if they are given too, with other values."""
    translated = {name: value for name, value in configs.items() if name != AUTOMQ_SCHEMA_TYPE}
    schema_type = configs.get(AUTOMQ_SCHEMA_TYPE, "none")
    if schema_type not in _SCHEMA_TYPES:
        raise Invalid(f"{AUTOMQ_SCHEMA_TYPE} = {schema_type[:200]!r}: must be {' or '.join(_SCHEMA_TYPES)}")
    for name, value in _SCHEMA_TYPES[schema_type].items():
        given = configs.get(name, configs.get(AUTOMQ_PREFIX + name.removeprefix(PREFIX), value))
        if given != value:
            raise Invalid(f"{AUTOMQ_SCHEMA_TYPE} = {schema_type} means {name} = {value}, but it is set to {given!r}")
        translated[name] = value
    return translated


def partition_fields(text: str) -> tuple[PartitionBy, ...]:
    """`[day(ts), bucket(user.id, 16), region]`: a list, brackets optional; function names in any case; a bare column
    is identity. "" and "[]" are no partitions. ValueError says which item is wrong."""
    inner = text.strip()
    if inner.startswith("[") and inner.endswith("]"):
        inner = inner[1:-1].strip()
    if not inner:
        return ()
    items = re.split(r",(?![^(]*\))", inner)
    if len(items) > _PARTITION_FIELDS_MAX:
        raise ValueError(f"must not have more than {_PARTITION_FIELDS_MAX} fields")
    fields = tuple(_partition_field(item.strip()) for item in items)
    for at, field in enumerate(fields):
        before = [other for other in fields[:at] if other.column.casefold() == field.column.casefold()]
        if any((other.transform, other.parameter) == (field.transform, field.parameter) for other in before):
            raise ValueError(f"has {field} twice")
        if field.transform in _TIMES and any(other.transform in _TIMES for other in before):
            raise ValueError(f"has two partitions by the time in {field.column}: keep the finer one")
    return fields


def _partition_field(item: str) -> PartitionBy:
    found = _PARTITION_ITEM.fullmatch(item)
    if found is not None and (found["function"] is not None) == item.endswith(")"):
        transform, column, digits = (found["function"] or "identity").lower(), found["column"], found["number"]
        if transform in _PLAIN_TRANSFORMS and digits is None:
            return PartitionBy(column, transform)
        if transform in _NUMBERED_TRANSFORMS and digits is not None:
            if len(digits) > 10 or not 1 <= int(digits) <= INT32_MAX:
                raise ValueError(f"the number in {item} must be from 1 to {INT32_MAX}")
            return PartitionBy(column, transform, int(digits))
    raise ValueError(
        f"{item!r} is not a partition field; use a column, {', '.join(f'{t}(column)' for t in _PLAIN_TRANSFORMS)}, "
        "bucket(column, n) or truncate(column, n)"
    )


def _partition_by(text: str) -> tuple[str, ...]:
    if len(text) > _PARTITION_BY_CHARS_MAX:
        raise ValueError(f"must not be longer than {_PARTITION_BY_CHARS_MAX} characters")
    return tuple(str(field) for field in partition_fields(text))


def _not_yet(default: str) -> Parser:
    """A key of AutoMQ that is not implemented: only the value that switches it off is accepted."""

    def parse(value: str) -> Value:
        if value.strip().lower() != default:
            raise ValueError("is not implemented yet; leave it out")
        return value

    return parse


def _identifier(bytes_max: int, empty: bool = False, parts: bool = False) -> Parser:
    def parse(value: str) -> str:
        if value == "" and empty:
            return value
        if not re.fullmatch(r"[\w\-.]+", value) or len(value.encode()) > bytes_max:
            raise ValueError(f"must be letters, digits, '_', '-' or '.', at most {bytes_max} bytes of UTF-8")
        if value in (".", ".."):
            raise ValueError("must not be '.' or '..': it is the name of a folder too")
        if parts and not all(value.split(".")):
            raise ValueError("must have letters between dots: each dot begins a namespace in the one before it")
        return value

    return parse


def _config(
    key: str, type: ConfigType, default: str, parser: Parser, doc: str, automq: bool = True, broker: bool = False
) -> ConfigDef:
    name = PREFIX + key
    aliases = (AUTOMQ_PREFIX + key,) if automq else ()
    return ConfigDef(name, type, default, parser, doc, name if broker else None, aliases)


def _latest(texts: Mapping[str, str], part: str) -> LatestSchemaOf:
    prefix = f"convert.{part}.by_latest_schema."
    return LatestSchemaOf(texts[prefix + "subject"], texts[prefix + "message.full.name"])


def _subject(value: str) -> str:
    if len(value) > _SUBJECT_CHARS_MAX or not value.isprintable():
        raise ValueError(f"must be at most {_SUBJECT_CHARS_MAX} characters that can be printed")
    return value


def _message_name(value: str) -> str:
    if value and not re.fullmatch(_MESSAGE_NAME, value):
        raise ValueError("must be the full name of a message, such as shop.Order or shop.Order.Line")
    return value


_CONVERT = one_of(*CONVERT_TYPES)
_CONVERT_KEY = one_of(*(name for name, found in CONVERT_TYPES.items() if found.of_keys))
_IGNORED = "Accepted and without effect: StreamLake keeps about 20 snapshots and hourly tags."

TABLE_CONFIGS = (
    _config("enable", ConfigType.BOOLEAN, "false", boolean, "Keep the topic as an Iceberg table, exactly once."),
    _config(
        "catalog",
        ConfigType.STRING,
        "",
        _identifier(_NAMESPACE_BYTES_MAX, empty=True),
        "Catalog of the table, by its name in the configuration; if empty, tables.catalog.",
        automq=False,
    ),
    _config(
        "namespace",
        ConfigType.STRING,
        "default",
        _identifier(_NAMESPACE_BYTES_MAX, parts=True),
        "Iceberg namespace of the table.",
        broker=True,
    ),
    _config(
        "name",
        ConfigType.STRING,
        "",
        _identifier(_NAME_BYTES_MAX, empty=True),
        "Name of the table; if empty, the topic's name.",
        automq=False,
    ),
    _config(
        "commit.interval.ms",
        ConfigType.LONG,
        "10000",
        integer(1, 900_000),
        "Time from one commit to the next: how fresh the table is.",
        broker=True,
    ),
    _config(
        "convert.value.type",
        ConfigType.STRING,
        "raw",
        _CONVERT,
        "How values are decoded: as bytes (raw), as UTF-8 text (string), by the schema whose id they begin with, by "
        "the newest schema of a subject (by_latest_schema), or as JSON objects whose columns are inferred (json).",
    ),
    _config(
        "convert.key.type",
        ConfigType.STRING,
        "string",
        _CONVERT_KEY,
        "How keys are decoded; as convert.value.type, but not as json.",
    ),
    _config(
        "json.columns.max",
        ConfigType.INT,
        "500",
        integer(0, 5_000),
        "Columns of a table of plain JSON, nested ones too; other keys go to the column _rest.",
        automq=False,
        broker=True,
    ),
    _config(
        "transform.value.type",
        ConfigType.STRING,
        "none",
        one_of("none", "flatten", "flatten_debezium"),
        "flatten: the value's fields become columns of the table. flatten_debezium: those of the row that a change of "
        "Debezium is about, with _op, _op_ts and _source.",
    ),
    _config(
        "partition.by",
        ConfigType.LIST,
        "",
        _partition_by,
        "The table's partition spec, such as [day(ts), bucket(id, 16)]; empty for none.",
    ),
    _config(
        "layout",
        ConfigType.STRING,
        STREAMLAKE.name,
        one_of(*LAYOUTS),
        "Where offset, timestamp, key and headers go: one struct `_kafka`, or AutoMQ's columns.",
        automq=False,
        broker=True,
    ),
    _config(
        "errors.tolerance",
        ConfigType.STRING,
        "all",
        one_of("none", "invalid_data", "all"),
        "What to do with records that cannot be a row. none: stop the table; invalid_data: dead-letter records that "
        "cannot be decoded; all: also those whose schema cannot be used.",
        broker=True,
    ),
    _config("id.columns", ConfigType.LIST, "", _not_yet(""), "Key columns for upserts. Not implemented yet."),
    _config("upsert.enable", ConfigType.BOOLEAN, "false", _not_yet("false"), "Upserts. Not implemented yet."),
    _config("cdc.field", ConfigType.STRING, "", _not_yet(""), "Change data capture. Not implemented yet."),
    *(
        _config(f"convert.{part}.by_latest_schema.{what}", ConfigType.STRING, "", parser, doc.format(part))
        for part in ("value", "key")
        for what, parser, doc in (
            (
                "subject",
                _subject,
                "Of by_latest_schema: the schema's subject; if empty, the topic's name and -{}.",
            ),
            (
                "message.full.name",
                _message_name,
                "Of by_latest_schema, for Protobuf: the message; if empty, the first.",
            ),
        )
    ),
    _config(
        "expire.snapshot.enabled",
        ConfigType.BOOLEAN,
        "true",
        _not_yet("true"),
        "Expire old snapshots; always on: unlimited history is not implemented yet.",
    ),
    _config("expire.snapshot.older.than.hours", ConfigType.INT, "1", integer(1, INT32_MAX), _IGNORED),
    _config("expire.snapshot.retain.last", ConfigType.INT, "1", integer(1, INT32_MAX), _IGNORED),
)
