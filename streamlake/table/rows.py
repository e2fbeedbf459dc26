"""Converted keys and values → groups of rows that have the same columns.

Rows are grouped by the pair (value schema, key schema). A row without a value or key has no schema there, so a round
with tombstones has a group of its own for them. Within a group rows keep the order of the log.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from streamlake.table.converted import Converted, Group
from streamlake.table.flatten import value_columns
from streamlake.table.layout import VALUE_COLUMN, metadata_columns
from streamlake.table.source_schema import SourceColumn


@dataclass(frozen=True, slots=True)
class RowGroup:
    """`rows` (int64 array) count in the translated records; `arrays` has one array of that length for each column."""

    rows: Any
    columns: tuple[SourceColumn, ...]
    arrays: tuple[Any, ...]


def row_groups(
    records: Any, value: Converted, key: Converted, bad: Collection[int], *, topic: str, layout: str, flatten: bool
) -> tuple[RowGroup, ...]:
    """All rows of `records` but those in `bad`."""
    row = pa.array(range(len(records)), pa.int64())
    pairs = pa.table({"row": row, "value": _group_of(row, value.groups), "key": _group_of(row, key.groups)})
    if bad:
        pairs = pairs.filter(pc.invert(pc.is_in(pairs["row"], pa.array(list(bad), pa.int64()))))
    groups = []
    for pair in pairs.group_by(["value", "key"], use_threads=False).aggregate([("row", "list")]).to_batches():
        for rows, value_at, key_at in zip(pair["row_list"], pair["value"], pair["key"], strict=True):
            found = rows.values
            taken = records if len(found) == len(records) else records.take(found)
            columns = []
            if value_at.is_valid:
                group = value.groups[value_at.as_py()]
                name = VALUE_COLUMN[layout]
                columns += value_columns(group.type, _taken(group, found), flatten=flatten, column=name)
            keys = None
            if key_at.is_valid:
                group = key.groups[key_at.as_py()]
                keys = (group.type, _taken(group, found)) if group.type is not None else None
            columns += metadata_columns(layout, topic, taken, keys)
            groups.append(RowGroup(found, tuple(c for c, _ in columns), tuple(a for _, a in columns)))
    return tuple(groups)


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
