"""transform.value.type = flatten_debezium: the envelope of a change, as Debezium writes it, → the row that it is about.

An envelope has the row before and after the change, and `op`: c (insert), r (read by a snapshot), u (update), d
(delete). The row is `after`, of a delete `before`. Beside its fields the table gets `_op`; `_op_ts`, from `ts_ms`; and
`_source`, which says where the change was made: a struct where values have schemas, JSON text where they have none.

What is no such change is a dead letter, row by row. Tombstones, which Debezium sends after a delete for Kafka's
compaction, say nothing new: a round leaves them out before it converts anything (pipeline.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.types import IntegerType, LongType, StringType, TimestamptzType

from streamlake.cluster.config.columns import OP, OP_SOURCE, OP_TIME
from streamlake.core.errors import Invalid
from streamlake.table.formats import kinds
from streamlake.table.formats.converted import Converted, Group, Reason, RowError, row_errors, row_numbers
from streamlake.table.formats.json import envelope as json_envelope
from streamlake.table.formats.kinds import Conversion
from streamlake.table.formats.port import Convert, Schemas
from streamlake.table.formats.source_schema import SourceChange, SourceStruct, SourceType, SourceUnion, source_field
from streamlake.table.rows.layout import timestamps

CHANGES = pa.array(["c", "r", "u"], pa.large_string())
DELETE = "d"
SHOWN_CHARS = 50

Typed = tuple[SourceType, Any]  # with an array of its values


@dataclass(frozen=True, slots=True)
class _Judged:
    """`after`, `before`: the rows of which that image is the row (int64 arrays). `faults`: of the others."""

    after: Any
    before: Any
    faults: list[tuple[int, str]]


def converter(convert_type: str, wanted: Conversion) -> Convert:
    """As kinds.converter, for values that are envelopes."""
    convert = kinds.converter(convert_type, wanted)
    return _of_json(convert) if convert_type == "json" else _by_schema(convert)


def changes(group: Group) -> tuple[list[Group], list[tuple[int, str]]]:
    """The rows of the changes, and (row, what is wrong) of what is none. Raises Invalid if no value of the group's
    schema is one."""
    parts = _parts(group)
    op, before, after = _required(parts)
    judged = _judge(op, *(image and image[1].is_valid() for image in (before, after)))
    beside = _beside(op, parts)
    images = [(at, image) for at, image in ((judged.after, after), (judged.before, before)) if image is not None]
    chosen = [(at, image) for at, image in images if len(at)] or images[:1]  # without rows it says what rows will be
    found = [_group(group.rows, at, image, beside, group.schema_id) for at, image in chosen]
    return found, [(group.rows[at].as_py(), why) for at, why in judged.faults]


def _by_schema(convert: Convert) -> Convert:
    def unwrapped(column: Any, reason: Reason, schemas: Schemas) -> Converted:
        found = convert(column, reason, schemas)
        groups: list[Group] = []
        errors = [*found.errors, *_tombstones(column)]
        for group in found.groups:
            try:
                more, faults = changes(group)
            except Invalid as error:
                errors += row_errors(group.rows.to_pylist(), Reason.INVALID_ENVELOPE, str(error))
            else:
                groups += more
                errors += [error for row, why in faults for error in _not_envelope(row, why)]
        return Converted(tuple(groups), tuple(errors), found.rest_rows)

    return unwrapped


def _of_json(convert: Convert) -> Convert:
    """The envelope is read with its images as text, and these as values without a schema. So the columns are those of
    rows, and what no column holds of a row is in the rest."""

    def unwrapped(column: Any, reason: Reason, schemas: Schemas) -> Converted:
        read = json_envelope.read(column)
        errors = [*_tombstones(column), *(e for row, why in read.errors for e in row_errors([row], reason, why))]
        judged = _judge(read.op, read.before.is_valid(), read.after.is_valid())
        errors += [e for at, why in judged.faults for e in _not_envelope(read.rows[at].as_py(), why)]
        good = pa.concat_arrays([judged.after, judged.before])
        order = pc.sort_indices(good)
        images = pa.concat_arrays([read.after.take(judged.after), read.before.take(judged.before)])
        rows = read.rows.take(good.take(order))
        found = convert(images.take(order).cast(pa.binary()), reason, schemas)
        for error in found.errors:
            errors += row_errors([rows[error.row].as_py()], reason, f"the row of the change: {error.message}")
        parts = {"ts_ms": (LongType(), read.ts_ms), "source": (StringType(), read.source)}
        beside = _beside(read.op, parts)
        beside = [(field, values.take(good.take(order))) for field, values in beside]
        groups = [
            _group(rows, g.rows, (g.type, g.values), beside, g.schema_id, taken=True)
            for g in found.groups
            if g.type is not None
        ]
        return Converted(tuple(groups), tuple(errors), found.rest_rows)

    return unwrapped


def _parts(group: Group) -> Mapping[str, Typed]:
    """The fields of an envelope by their names; what a null has is null."""
    if not isinstance(group.type, SourceStruct) or isinstance(group.type, SourceUnion):
        raise Invalid("not an envelope of Debezium: the value has no fields")
    values = zip(group.type.fields, group.values.flatten(), strict=True)
    return {field.name: (field.type, array) for field, array in values}


def _required(parts: Mapping[str, Typed]) -> tuple[Any, Typed | None, Typed | None]:
    """`op`, `before` and `after`, of which one may be missing."""
    type, op = parts.get("op", (None, None))
    if not isinstance(type, StringType):
        raise Invalid("not an envelope of Debezium: its schema has no text `op`")
    before, after = (_image(parts.get(name)) for name in ("before", "after"))
    if before is None and after is None:
        raise Invalid("not an envelope of Debezium: its schema has no record `before` or `after`")
    return op, before, after


def _image(part: Typed | None) -> Typed | None:
    is_record = part is not None and isinstance(part[0], SourceStruct) and not isinstance(part[0], SourceUnion)
    return part if is_record else None


def _judge(op: Any, has_before: Any, has_after: Any) -> _Judged:
    """Of each envelope, which image is the row. `has_before` is None where a schema has no such field."""
    numbers, none = row_numbers(len(op)), pa.repeat(False, len(op))
    changed = pc.and_(pc.is_in(op, CHANGES), none if has_after is None else has_after)
    deleted = pc.and_(pc.fill_null(pc.equal(op, DELETE), False), none if has_before is None else has_before)
    bad = pc.invert(pc.or_(changed, deleted))
    faults = [(at, _fault(op[at].as_py())) for at in numbers.filter(bad).to_pylist()]
    return _Judged(numbers.filter(changed), numbers.filter(deleted), faults)


def _fault(op: str | None) -> str:
    if not op:
        return "it has no `op`"
    if op == DELETE:
        return "a delete without the row `before` it: let the database log whole rows (such as REPLICA IDENTITY FULL)"
    if op in CHANGES.to_pylist():
        return f"op {op} without the row `after` it"
    return f"op {op[:SHOWN_CHARS]!r} is not a change of one row"


def _not_envelope(row: int, why: str) -> list[RowError]:
    return row_errors([row], Reason.INVALID_ENVELOPE, f"not an envelope of Debezium: {why}")


def _tombstones(column: Any) -> list[RowError]:
    """Only of dead letters that are translated again: a round has left them out."""
    if not column.null_count:
        return []
    rows = row_numbers(len(column)).filter(column.is_null())
    return row_errors(rows.to_pylist(), Reason.INVALID_ENVELOPE, "a tombstone, of which flatten_debezium makes no row")


def _beside(op: Any, parts: Mapping[str, Typed]) -> list[tuple[Any, Any]]:
    """The columns that stand beside the row's: (field, array)."""
    beside = [(source_field(OP, StringType()), op)]
    if "ts_ms" in parts and isinstance(parts["ts_ms"][0], IntegerType | LongType):
        known = pc.fill_null(parts["ts_ms"][1].cast(pa.int64()), -1)
        beside.append((source_field(OP_TIME, TimestamptzType()), timestamps(known)))
    if "source" in parts:
        type, values = parts["source"]
        beside.append((source_field(OP_SOURCE, type), values))
    return beside


def _group(
    rows: Any, at: Any, image: Typed, beside: list[tuple[Any, Any]], schema_id: int, taken: bool = False
) -> Group:
    """Of the envelopes at `at`. `taken`: the image's array has them alone."""
    type, values = image
    whole = len(at) == len(rows)
    fields = (source_field("row", type), *(field for field, _ in beside))
    row = values if taken or whole else values.take(at)
    arrays = [row, *(array if whole else array.take(at) for _, array in beside)]
    change = pa.StructArray.from_arrays(arrays, names=[field.segment for field in fields])
    return Group(SourceChange(fields), rows if whole else rows.take(at), change, schema_id)
