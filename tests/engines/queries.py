"""The one list of questions, and their answers from what was produced: QUERIES."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from engines import topics
from engines.conditions import And, Compare, Condition, In, IsNaN, IsNull, Not, Or, StartsWith, holds, value_at
from engines.topics import CLOCK, DOTTED, EDITED, EPOCH, EVOLVED, TYPES, UNIONS, Topic, utc

Answer = list[tuple[Any, ...]]


@dataclass(frozen=True)
class Ask:
    """`columns` of the rows of which `where` is true, in no order; or how many rows these are. `batches`: the table as
    it was after so many of its topic's."""

    topic: Topic
    columns: tuple[str, ...] = ("n",)
    where: Condition | None = None
    count: bool = False
    batches: int | None = None

    def expected(self) -> Answer:
        rows = [row for row in self.topic.rows(self.batches) if self.where is None or holds(self.where, row) is True]
        return ordered(
            [(len(rows),)] if self.count else [tuple(value_at(row, c) for c in self.columns) for row in rows]
        )


@dataclass(frozen=True)
class Query:
    """A row of the table of results: the answers to all its asks are right, or they are not."""

    title: str
    asks: tuple[Ask, ...]


def ordered(answer: Sequence[Sequence[Any]]) -> Answer:
    return sorted((tuple(plain(value) for value in row) for row in answer), key=repr)


def plain(value: Any) -> Any:
    """The same for the same value, whatever shape an engine gives it: maps have an order, NaN equals itself."""
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else value + 0.0  # no -0.0
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if isinstance(value, Decimal):
        return f"decimal {value:f}".rstrip("0").rstrip(".") if "." in f"{value:f}" else f"decimal {value:f}"
    if isinstance(value, datetime) and value.tzinfo:
        return value.astimezone(UTC).isoformat()
    if isinstance(value, list) and value and all(isinstance(item, tuple) and len(item) == 2 for item in value):
        return plain(dict(value))  # a map as Arrow gives it
    if isinstance(value, Mapping):
        return {key: plain(value[key]) for key in sorted(value)} or []
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [plain(item) for item in value]
    return value


# -- the list ---------------------------------------------------------------------------------------------------------

YEARS = ", years 1 to 9999"
TITLES = {
    "a_boolean": "boolean",
    "an_int": "int",
    "a_long": "long",
    "a_float": "float, with NaN and infinities",
    "a_double": "double, with NaN and infinities",
    "a_decimal": "decimal(9, 2)",
    "a_large_decimal": "decimal(38, 10)",
    "a_date": "date, years 1 to 9999",
    "a_timestamptz": "timestamptz, years 1 to 9999",
    "a_timestamp": "timestamp, years 1 to 9999",
    "a_string": "string",
    "an_enum": "enum, which is a string",
    "a_binary": "binary",
    "a_fixed": "fixed",
    "a_uuid": "uuid",
    "a_list": "list, with null elements",
    "a_map": "map, with null values",
    "a_struct": "struct",
    "nested": "list of structs of lists and maps",
}
NESTED = ("a_list", "a_map", "a_struct", "nested")
KAFKA = tuple(f"_kafka.{name}" for name in ("topic", "partition", "offset", "timestamp", "timestamp_type", "key"))


def asks(topic: Topic, *conditions: Condition, count: bool = False) -> tuple[Ask, ...]:
    return tuple(Ask(topic, where=condition, count=count) for condition in conditions)


def each_value(topic: Topic, column: str) -> tuple[Ask, ...]:
    """Equal to each value of a column; less than the second and one in the middle, the others; null, not null."""
    values = sorted({row[column] for row in topic.rows()} - {None})
    conditions: list[Condition] = [IsNull(column), Not(IsNull(column)), Compare(column, "<>", values[0])]
    conditions += [Compare(column, "=", value) for value in values]
    if not isinstance(values[0], bool | UUID):
        for value in (values[1], values[len(values) // 2]):
            conditions += [Compare(column, "<", value), Compare(column, ">=", value)]
    return asks(topic, *conditions)


def of_types() -> Iterator[Query]:
    for column, title in TITLES.items():
        yield Query(title, (Ask(TYPES, ("n", column)),))
    yield Query("union, which is a struct", (Ask(UNIONS, ("n", "either")),))
    yield Query("time", (Ask(CLOCK, ("n", "in_millis", "in_micros")),))
    yield Query("`_kafka`: place, time and key of the record", (Ask(TYPES, ("n", *KAFKA)),))
    yield Query("`_kafka.headers`", (Ask(TYPES, ("n", "_kafka.headers")),))
    yield Query("a field of a struct", (Ask(TYPES, ("n", "a_struct.x", "a_struct.word")),))
    yield Query("a table with dots in its name, a column called select", (Ask(DOTTED, ("n", "select")),))


def of_filters() -> Iterator[Query]:
    for column, title in TITLES.items():
        if column not in (*NESTED, "a_float", "a_double"):
            yield Query(f"filter by {title.removesuffix(YEARS)}", each_value(TYPES, column))
    yield Query("filter by time", each_value(CLOCK, "in_micros"))
    for column in ("a_float", "a_double"):
        title = column[2:]
        below, above = Compare(column, "<", 1.0), Compare(column, ">=", 1.0)
        yield Query(
            f"filter by {title}: numbers",
            asks(TYPES, below, Compare(column, "=", -math.inf), Compare(column, "=", 0.0)),
        )
        yield Query(
            f"filter by {title}: <> keeps NaN", asks(TYPES, Compare(column, "<>", 2.25), Not(Compare(column, "=", 0.1)))
        )
        yield Query(f"filter by {title}: is NaN", asks(TYPES, IsNaN(column), Not(IsNaN(column))))
        yield Query(f"filter by {title}: NaN is greater than numbers", asks(TYPES, above, Not(below)))
    yield Query(
        "filter by the start of a text",
        asks(TYPES, *(StartsWith("a_string", start) for start in ("ü😀", "sixteen letters\ud7ff", "z", ""))),
    )
    yield Query(
        "filter by a list of values",
        asks(TYPES, In("an_int", (1, 7, 2**31 - 1)), Not(In("an_int", (0, 7))), In("a_string", ("", "z"))),
    )
    yield Query("filter by and, or, not", asks(TYPES, *boolean_conditions()))
    yield Query(
        "filter by a field of a struct",
        asks(TYPES, Compare("a_struct.word", "=", "b"), IsNull("a_struct.word"), Compare("a_struct.x", "<", 0.0)),
    )
    yield Query(
        "filter by `_kafka.offset` and `_kafka.partition`",
        asks(TYPES, Compare("_kafka.offset", ">=", 3), Compare("_kafka.partition", "=", 1)),
    )
    yield Query(
        "filter by `_kafka.timestamp`", asks(TYPES, Compare("_kafka.timestamp", ">", utc(2023, 11, 14, 22, 13, 23)))
    )
    yield Query("count", asks_for_counts())


def boolean_conditions() -> list[Condition]:
    low, red = Compare("an_int", "<", 1), Compare("an_enum", "=", "RED")
    return [And(low, red), Or(low, red), Not(And(low, red)), Not(Or(low, red)), And(Not(IsNull("a_date")), low)]


def asks_for_counts() -> tuple[Ask, ...]:
    conditions = Compare("n", ">=", 5), IsNull("a_string"), Compare("a_date", "<", EPOCH.date())
    return Ask(TYPES, count=True), *asks(TYPES, *conditions, count=True), Ask(topics.IN_TIME[0], count=True)


def of_partitions() -> Iterator[Query]:
    for topic in topics.IN_TIME:
        (item,) = topic.items
        yield Query(f"partitioned by {item}: all rows", (Ask(topic, ("n", column_of(item))),))
        yield Query(f"partitioned by {item}: filters around 1970", each_value(topic, column_of(item)))
    for topic in topics.BY_VALUE:
        names = [column_of(item) for item in topic.items]
        yield Query(f"partitioned by {', '.join(topic.items)}: all rows", (Ask(topic, ("n", *names)),))
        for item, name in zip(topic.items, names, strict=True):
            title = f"partitioned by {item}: filters"
            if name == "ratio":
                yield Query(f"{title} on a double with NaN", asks(topic, *of_ratio()))
            else:
                yield Query(title, each_value(topic, name))


def column_of(item: str) -> str:
    """Of an item of partition.by, such as `bucket(id, 4)` or `name`."""
    return item.partition("(")[2].rstrip(")").partition(",")[0] or item


def of_ratio() -> list[Condition]:
    equal: list[Condition] = [Compare("ratio", "=", value) for value in (0.0, 1.5, math.inf)]
    return [IsNaN("ratio"), IsNull("ratio"), Compare("ratio", "<", 1.5), Compare("ratio", "<>", 1.5), *equal]


def of_history() -> Iterator[Query]:
    yield Query(
        "columns that were added, widened and renamed",
        (Ask(EVOLVED, ("n", "kind", "ratio", "amount", "title", "place.x", "place.y", "extra", "gone")),),
    )
    yield Query(
        "filters on columns that were widened",
        (
            *each_value(EVOLVED, "kind"),
            *each_value(EVOLVED, "amount"),
            *asks(EVOLVED, Compare("place.x", "<", 1), Compare("ratio", ">", 0.5)),
        ),
    )
    yield Query(
        "filters on columns that were added or renamed",
        (*each_value(EVOLVED, "title"), *asks(EVOLVED, IsNull("place.y"), Compare("place.y", "=", "y"))),
    )
    yield Query(
        "rows that DuckDB deleted, by position",
        (Ask(EDITED, ("n", "word")), Ask(EDITED, count=True), *asks(EDITED, IsNull("word"), Compare("word", "=", "b"))),
    )
    yield Query("the table as it was", tuple(Ask(TYPES, ("n", "a_string"), batches=batches) for batches in (1, 2, 3)))


QUERIES = (*of_types(), *of_filters(), *of_partitions(), *of_history())
