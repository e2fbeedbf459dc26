"""Counts and bounds of a file's columns, by which Iceberg readers skip files: see the specification, "Manifests".

pyiceberg reads them from the file's footer. Four of its answers would lose rows or stop the table, and are made here:

- Parquet keeps no minimum and maximum of a row group with values of more than 4 KiB, so bounds of the other row groups
  would not cover the file: a column has bounds only if all its row groups have them;
- bounds leave NaN out, and readers believe them, those in the footer too: a column with a NaN has its counts only;
- the upper bound of a text that is cut is the next text: after U+D7FF comes U+E000, as what lies between is no text;
- a `write.metadata.metrics.*` property that is malformed counts as not set, as it does in Iceberg's Java library.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.io.pyarrow import (
    MetricModeTypes,
    MetricsMode,
    StatisticsCollector,
    StatsAggregator,
    compute_statistics_plan,
    data_file_statistics_from_parquet_metadata,
    match_metrics_mode,
    parquet_path_to_id_mapping,
)
from pyiceberg.schema import Schema
from pyiceberg.types import BinaryType, PrimitiveType, StringType, StructType

MODE_OF_COLUMN = "write.metadata.metrics.column."
MODE_DEFAULT = "write.metadata.metrics.default"
MODE_DEFAULT_VALUE = "truncate(16)"
NO_METRICS = MetricsMode(MetricModeTypes.NONE)
SURROGATES = range(0xD800, 0xE000)
CODE_POINT_MAX = 0x10FFFF


@dataclass(frozen=True, slots=True)
class MetricsPlan:
    """Which metrics to keep of which column, by field id, and the ids of the file's columns by their Parquet paths."""

    columns: Mapping[int, StatisticsCollector]
    ids: Mapping[str, int]


def metrics_plan(schema: Schema, properties: Mapping[str, str]) -> MetricsPlan:
    """`properties` are the table's. pyiceberg's plan, and bounds also for columns in structs, where it keeps counts
    only: `_kafka.offset` is one."""
    properties = {key: value for key, value in properties.items() if _is_understood(key, value)}
    plan = compute_statistics_plan(schema, properties)
    default = match_metrics_mode(properties.get(MODE_DEFAULT, MODE_DEFAULT_VALUE))
    if default.type in (MetricModeTypes.TRUNCATE, MetricModeTypes.FULL):
        for id in _leaf_ids(schema.as_struct()):
            if "." in plan[id].column_name and MODE_OF_COLUMN + plan[id].column_name not in properties:
                whole = not isinstance(plan[id].iceberg_type, StringType | BinaryType)
                plan[id] = replace(plan[id], mode=MetricsMode(MetricModeTypes.FULL) if whole else default)
    return MetricsPlan(plan, parquet_path_to_id_mapping(schema))


class FloatCounts(NamedTuple):
    """Of one column in one file."""

    nulls: int
    nans: int


def float_counts(table: Any) -> dict[str, FloatCounts]:
    """By Parquet path, for the columns of floats at the top and in structs. Write Parquet's own statistics only of
    those without NaN."""
    counts: dict[str, FloatCounts] = {}
    for field, column in zip(table.schema, table.columns, strict=True):
        for path, places in _float_leaves(field.name, field.type):
            values = pc.struct_field(column, places) if places else column
            counts[path] = FloatCounts(values.null_count, pc.sum(pc.is_nan(values)).as_py() or 0)
    return counts


def column_metrics(footer: Any, plan: MetricsPlan, floats: Mapping[str, FloatCounts]) -> dict[str, Any]:
    """The metrics of the file with `footer` (a pq.FileMetaData): arguments of DataFile.from_args."""
    counted = {
        id: counts for path, counts in floats.items() if plan.columns[id := plan.ids[path]].mode.type != NO_METRICS.type
    }
    nans = {id: counts.nans for id, counts in counted.items() if counts.nans}
    columns = {id: replace(column, mode=NO_METRICS) if id in nans else column for id, column in plan.columns.items()}
    found = data_file_statistics_from_parquet_metadata(footer, columns, dict(plan.ids))
    unbounded = _without_bounds(footer, plan)
    bounded = {id: aggregate for id, aggregate in found.column_aggregates.items() if id not in unbounded}
    lower = {id: aggregate.min_as_bytes() for id, aggregate in bounded.items()}
    upper = {id: _upper_bound(aggregate) for id, aggregate in bounded.items()}
    found.column_aggregates.clear()  # else they would be serialized too
    return {
        **found.to_serialized_dict(),
        "value_counts": found.value_counts | dict.fromkeys(nans, footer.num_rows),
        "null_value_counts": found.null_value_counts | {id: counted[id].nulls for id in nans},
        "nan_value_counts": {id: counts.nans for id, counts in counted.items()},
        "lower_bounds": {id: bound for id, bound in lower.items() if bound is not None},
        "upper_bounds": {id: bound for id, bound in upper.items() if bound is not None},
    }


def next_text(text: str) -> str | None:
    """The lowest text of at most this length that is above all texts that begin with `text`; None if there is none."""
    for at in range(len(text) - 1, -1, -1):
        following = ord(text[at]) + 1
        if following in SURROGATES:
            following = SURROGATES.stop
        if following <= CODE_POINT_MAX:
            return text[:at] + chr(following)
    return None


def _is_understood(key: str, value: str) -> bool:
    if key != MODE_DEFAULT and not key.startswith(MODE_OF_COLUMN):
        return True
    try:
        match_metrics_mode(value)
    except ValueError:
        return False
    return True


def _leaf_ids(struct: StructType) -> Iterator[int]:
    for field in struct.fields:
        if isinstance(field.field_type, StructType):
            yield from _leaf_ids(field.field_type)
        elif isinstance(field.field_type, PrimitiveType):
            yield field.field_id


def _without_bounds(footer: Any, plan: MetricsPlan) -> set[int]:
    """Columns with a row group that has values and no minimum and maximum."""
    found: set[int] = set()
    for group in (footer.row_group(at) for at in range(footer.num_row_groups)):
        for column in (group.column(at) for at in range(group.num_columns)):
            statistics = column.statistics
            if statistics is None or (not statistics.has_min_max and statistics.null_count < column.num_values):
                found.add(plan.ids[column.path_in_schema])
    return found


def _float_leaves(path: str, type: Any, places: tuple[int, ...] = ()) -> Iterator[tuple[str, list[int]]]:
    """Their Parquet paths, and the positions that lead to them through structs."""
    if pa.types.is_floating(type):
        yield path, list(places)
    elif pa.types.is_struct(type):
        for at, child in enumerate(type):
            yield from _float_leaves(f"{path}.{child.name}", child.type, (*places, at))


def _upper_bound(aggregate: StatsAggregator) -> bytes | None:
    value, length = aggregate.current_max, aggregate.trunc_length
    if not isinstance(value, str) or length is None or len(value) <= length:
        return aggregate.max_as_bytes()
    bound = next_text(value[:length])
    return None if bound is None else bound.encode()
