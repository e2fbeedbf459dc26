"""Envelopes of changes as Debezium's JSON converter writes them, with and without `schema` and `payload` around them.

They are read by a plan of their own, in C, which leaves the two images of the row as the text that they are: columns
of rows without a schema are inferred from that text (plain.py).
"""

from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from streamlake.table.formats.converted import row_numbers
from streamlake.table.formats.json.convert import codec_of
from streamlake.table.formats.json.native import Op, Plan, PlanField

_FIELDS = (
    PlanField("op", Plan(Op.TEXT)),
    PlanField("ts_ms", Plan(Op.LONG)),
    PlanField("source", Plan(Op.JSON)),
    PlanField("before", Plan(Op.JSON)),
    PlanField("after", Plan(Op.JSON)),
)
_PLAN = Plan(Op.STRUCT, (*_FIELDS, PlanField("payload", Plan(Op.STRUCT, _FIELDS))))


@dataclass(frozen=True, slots=True)
class Envelopes:
    """Arrays of one length: of each of `rows` what is in it, or null. `errors`: (row, what is wrong) of others."""

    rows: Any
    op: Any
    ts_ms: Any
    source: Any
    before: Any
    after: Any
    errors: list[tuple[int, str]]


def read(column: Any) -> Envelopes:
    """A binary array; a null is in no row."""
    rows = row_numbers(len(column))
    if column.null_count:
        rows = rows.filter(column.is_valid())
    group, errors = codec_of(_PLAN).read(column, rows, 0)
    *bare, payload = group.values.flatten()
    wrapped = payload.is_valid()
    op, ts_ms, source, before, after = (
        _chosen(wrapped, inner, outer) for inner, outer in zip(payload.flatten(), bare, strict=True)
    )
    return Envelopes(group.rows, op, ts_ms, source, before, after, errors)


def _chosen(wrapped: Any, inner: Any, outer: Any) -> Any:
    count = pc.sum(wrapped).as_py() or 0
    if count in (0, len(wrapped)):
        return inner if count else outer
    return pc.if_else(wrapped, inner, outer)
