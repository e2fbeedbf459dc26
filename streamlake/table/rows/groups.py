"""Converted keys and values → groups of rows that have the same columns.

Rows are grouped by the pair (value schema, key schema). A row without a value or key has no schema there, so a round
with tombstones has a group of its own for them. Within a group rows keep the order of the log.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from streamlake.cluster.config.columns import LAYOUTS
from streamlake.table.formats.converted import Converted, Group, row_numbers, rows_by
from streamlake.table.formats.source_schema import SourceColumn
from streamlake.table.rows.flatten import value_columns
from streamlake.table.rows.layout import metadata_columns


@dataclass(frozen=True, slots=True)
class RowGroup:
    """`rows` (int64 array) count in the translated records; `arrays` has one array of that length for each column."""

    rows: Any
    columns: tuple[SourceColumn, ...]
    arrays: tuple[Any, ...]


def row_groups(
    records: Any, value: Converted, key: Converted, bad: Collection[int], *, topic: str, layout: str, flatten: bool
) -> tuple[RowGroup, ...]:
    """All rows of `records`, a pa.RecordBatch, but those in `bad`."""
    groups = []
    for rows, of_value, of_key in _pairs(len(records), value.groups, key.groups, bad):
        taken = records if len(rows) == len(records) else records.take(rows)
        columns = []
        if of_value is not None:
            name = LAYOUTS[layout].value
            values, id = _taken(of_value, rows), of_value.schema_id
            columns += value_columns(of_value.type, values, flatten=flatten, column=name, schema_id=id)
        keys = None
        if of_key is not None and of_key.type is not None:
            keys = (of_key.type, _taken(of_key, rows))
        columns += metadata_columns(layout, topic, taken, keys)
        groups.append(RowGroup(rows, tuple(c for c, _ in columns), tuple(a for _, a in columns)))
    return tuple(groups)


def _pairs(
    count: int, values: tuple[Group, ...], keys: tuple[Group, ...], bad: Collection[int]
) -> Iterator[tuple[Any, Group | None, Group | None]]:
    """The rows that share a value's and a key's group, for each such pair."""
    row = row_numbers(count)
    if count and not bad and all(not found or len(found[0].rows) == count for found in (values, keys)):
        yield row, next(iter(values), None), next(iter(keys), None)  # as it nearly always is
        return
    if bad:
        row = row.filter(pc.invert(pc.is_in(row, pa.array(list(bad), pa.int64()))))
    pairs = rows_by({"value": _group_of(row, values), "key": _group_of(row, keys)}, row)
    for rows, value_at, key_at in zip(pairs["row_list"], pairs["value"], pairs["key"], strict=True):
        of_value = values[value_at.as_py()] if value_at.is_valid else None
        yield rows.values, of_value, keys[key_at.as_py()] if key_at.is_valid else None


def _group_of(rows: Any, groups: tuple[Group, ...]) -> Any:
    """For each of `rows` the index of its group, or null."""
    if not groups:
        return pa.nulls(len(rows), pa.int64())
    members = pa.concat_arrays([group.rows for group in groups])
    indexes = pa.concat_arrays([pa.repeat(at, len(group.rows)) for at, group in enumerate(groups)])
    return indexes.take(pc.index_in(rows, value_set=members))


def _taken(group: Group, rows: Any) -> Any:
    """The group's values of `rows`, which are some or all of the group's."""
    if len(rows) == len(group.rows):
        return group.values
    return group.values.take(pc.index_in(rows, value_set=group.rows))
