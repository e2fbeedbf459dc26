"""`partition.by` → Iceberg partition spec, and a table's rows → one table for each partition value.

A spec never stops a table. An item that the table's columns do not allow, such as a column that is not there yet,
waits in the table property `streamlake.partition.pending`, and joins the spec in the commit that brings the column. A
config that changes is the spec from the next commit of rows on; files that are there keep theirs.

Rows of too many partitions for one commit are written without partitions, and so are those with a number so low that
truncated it leaves its type.

-0.0 lies in the partition of 0.0: they are equal in SQL, but Java's engines look for each in a partition of its own.

Transforms of time run on whole columns; bucket and truncate run pyiceberg's own transform once for each distinct
value, so the hash is the specification's. See the Iceberg specification, "Partitioning".
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.partitioning import PARTITION_FIELD_ID_START, PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.update import (
    AddPartitionSpecUpdate,
    AssertDefaultSpecId,
    AssertLastAssignedPartitionId,
    RemovePropertiesUpdate,
    SetDefaultSpecUpdate,
    SetPropertiesUpdate,
    TableRequirement,
    TableUpdate,
)
from pyiceberg.transforms import (
    BucketTransform,
    DayTransform,
    IdentityTransform,
    MonthTransform,
    TimeTransform,
    Transform,
    YearTransform,
    parse_transform,
)
from pyiceberg.typedef import Record
from pyiceberg.types import DecimalType, NestedField, StructType
from pyiceberg.utils.decimal import decimal_required_bytes

from streamlake.cluster.config.columns import OWN_COLUMNS
from streamlake.cluster.config.table import PartitionBy, partition_fields
from streamlake.core.errors import Invalid

CONFIGURED = "streamlake.partition.by"  # the table property: the partition.by that the spec was made by
PENDING = "streamlake.partition.pending"  # the table property: items of partition.by that are not in the spec
PARTITIONS_MAX = 10_000  # of one write: each costs a file
FOLDER_CHARS_MAX = 200
_PLAIN_PATH = re.compile(r"[A-Za-z0-9_.=/-]+")
MICROS_AN_HOUR = 3_600_000_000
MICROS_A_DAY = 24 * MICROS_AN_HOUR


class NotPartitionable(Exception):
    """Rows of one write that cannot be in partitions. The text says why, and what becomes of them."""


@dataclass(frozen=True, slots=True)
class Pending:
    """An item of `partition.by` that cannot be in the spec, and why."""

    item: PartitionBy
    why: str


@dataclass(frozen=True, slots=True)
class Partitioning:
    """The spec of one commit's files, and what the commit changes to bring it about."""

    spec: PartitionSpec
    updates: tuple[TableUpdate, ...] = ()
    requirements: tuple[TableRequirement, ...] = ()


def partition_spec(schema: Schema, partition_by: Sequence[PartitionBy]) -> tuple[PartitionSpec, tuple[Pending, ...]]:
    """The spec of a new table, of the items that its columns allow, and the other items."""
    fields, pending = _extended(schema, (), partition_by, (), PARTITION_FIELD_ID_START)
    return PartitionSpec(*fields), pending


def properties_of(partition_by: Sequence[PartitionBy], pending: Iterable[Pending]) -> dict[str, str]:
    """The properties that a table gets with its spec, so that pending items are tried again, and a config that changes
    is noticed."""
    items = ",".join(str(found.item) for found in pending)
    return {CONFIGURED: _config(partition_by), **({PENDING: items} if items else {})}


def pending_of(metadata: TableMetadata, partition_by: Sequence[PartitionBy]) -> tuple[Pending, ...]:
    """The items that are not in the spec yet, with today's reasons."""
    return _next_fields(metadata, metadata.schema(), partition_by)[1]


def partitioning(metadata: TableMetadata, schema: Schema, partition_by: Sequence[PartitionBy]) -> Partitioning:
    """For files of `schema`, which the table has after the commit: by the table's spec, and by those pending items
    that `schema` allows. If the config is no longer what the spec was made by, by what `schema` allows of it.

    A spec that somebody else has chosen stays until the config changes; so does that of a table whose config nobody
    wrote down, as in one that was adopted."""
    spec = metadata.spec()
    fields, pending = _next_fields(metadata, schema, partition_by)
    if fields == spec.fields and metadata.properties.get(CONFIGURED) == _config(partition_by):
        return Partitioning(spec)
    kept = _kept(metadata, properties_of(partition_by, pending))
    if fields == spec.fields:
        return Partitioning(spec, kept, _specs_unchanged(metadata))
    old = next((known for known in metadata.partition_specs if known.fields == fields), None)
    if old is not None:  # catalogs do not store equal specs twice
        chosen = SetDefaultSpecUpdate.model_validate({"spec-id": old.spec_id})
        return Partitioning(old, (chosen, *kept), _specs_unchanged(metadata))
    extended = PartitionSpec(*fields, spec_id=_next_spec_id(metadata))
    added = (AddPartitionSpecUpdate(spec=extended), SetDefaultSpecUpdate.model_validate({"spec-id": -1}))
    return Partitioning(extended, (*added, *kept), _specs_unchanged(metadata))


def unpartitioned(metadata: TableMetadata) -> Partitioning:
    """For files of rows from too many partitions. The table's spec stays."""
    for spec in metadata.partition_specs:
        if spec.is_unpartitioned():
            return Partitioning(spec)
    spec = PartitionSpec(spec_id=_next_spec_id(metadata))
    return Partitioning(spec, (AddPartitionSpecUpdate(spec=spec),), _specs_unchanged(metadata))


def names_taken(metadata: TableMetadata) -> frozenset[str]:
    """Names of partition fields, folded, that no column may get: Iceberg's Java library refuses the two alike. A
    column may lend its name to its own identity partition."""
    fields = (field for spec in metadata.partition_specs for field in spec.fields)
    lent = {column.field_id: column.name.casefold() for column in metadata.schema().fields}
    return frozenset(
        field.name.casefold()
        for field in fields
        if not (isinstance(field.transform, IdentityTransform) and lent.get(field.source_id) == field.name.casefold())
    )


def folder(spec: PartitionSpec, partition: Record, schema: Schema) -> str:
    """Where files of `partition` lie below the data folder: "ts_day=2013-01-01", or "" for no folder. Readers take the
    values from manifests, so folders are for people's eyes: values that a path cannot hold as they are get none."""
    if not len(partition):
        return ""
    path = spec.partition_to_path(partition, schema)
    return path if len(path) <= FOLDER_CHARS_MAX and _PLAIN_PATH.fullmatch(path) else ""


def split(table: Any, schema: Schema, spec: PartitionSpec) -> list[tuple[Record, Any]]:
    """`table` (of `schema`) as (partition value, its rows in their order). Raises NotPartitionable."""
    if spec.is_unpartitioned():
        return [(Record(), table)]
    keys = {f"p{at}": _values(table, schema, field) for at, field in enumerate(spec.fields)}
    names = list(keys)
    rows = pa.table({**keys, "row": pa.array(range(len(table)), pa.int64())})
    grouped = rows.group_by(names, use_threads=False).aggregate([("row", "list")])
    if len(grouped) > PARTITIONS_MAX:
        raise NotPartitionable(
            f"{len(grouped)} partitions in one commit, more than {PARTITIONS_MAX}: such commits are not partitioned; "
            "choose a coarser partition.by"
        )
    values = zip(*(grouped[name].to_pylist() for name in names), strict=True)
    taken = (table if len(grouped) == 1 else table.take(found.values) for found in grouped["row_list"])
    return [(Record(*value), part) for value, part in zip(values, taken, strict=True)]


def _config(partition_by: Sequence[PartitionBy]) -> str:
    return f"[{', '.join(map(str, partition_by))}]"


def _kept(metadata: TableMetadata, wanted: Mapping[str, str]) -> tuple[TableUpdate, ...]:
    """What makes the properties of the table the `wanted` ones."""
    updates: list[TableUpdate] = []
    if changed := {key: value for key, value in wanted.items() if metadata.properties.get(key) != value}:
        updates.append(SetPropertiesUpdate(updates=changed))
    if PENDING in metadata.properties and PENDING not in wanted:
        updates.append(RemovePropertiesUpdate(removals=[PENDING]))
    return tuple(updates)


def _next_fields(
    metadata: TableMetadata, schema: Schema, partition_by: Sequence[PartitionBy]
) -> tuple[tuple[PartitionField, ...], tuple[Pending, ...]]:
    """The fields of the table's spec and of the pending items that `schema` allows, and the other items; or those of
    `partition_by`, if it has changed."""
    spec = metadata.spec()
    known = [field for old in metadata.partition_specs for field in old.fields]
    next_id = max(metadata.last_partition_id or 0, PARTITION_FIELD_ID_START - 1) + 1
    if metadata.properties.get(CONFIGURED, _config(partition_by)) != _config(partition_by):
        return _extended(schema, (), partition_by, known, next_id)
    try:
        items = partition_fields(metadata.properties.get(PENDING, ""))
    except ValueError:  # the property is not as we wrote it: the spec stays as it is
        return spec.fields, ()
    return _extended(schema, spec.fields, items, known, next_id)


def _extended(
    schema: Schema,
    fields: Sequence[PartitionField],
    items: Sequence[PartitionBy],
    known: Sequence[PartitionField],
    next_id: int,
) -> tuple[tuple[PartitionField, ...], tuple[Pending, ...]]:
    """`fields` and one for each of `items` that `schema` allows, and the other items. What an older spec had already
    (`known`) keeps its id and name, as the specification demands."""
    extended = list(fields)
    pending: list[Pending] = []
    for item in items:
        try:
            source, transform = _source(schema, item), parse_transform(_text(item))
            _check_transform(source, transform, item)
            if any((f.source_id, f.transform) == (source.field_id, transform) for f in extended):
                continue
            if isinstance(transform, TimeTransform) and any(
                isinstance(f.transform, TimeTransform) and f.source_id == source.field_id for f in extended
            ):
                raise Invalid(f"column {item.column} has a time partition already: keep the finer one")
        except Invalid as error:
            pending.append(Pending(item, str(error)))
            continue
        old = next((f for f in known if (f.source_id, f.transform) == (source.field_id, transform)), None)
        if old is None:
            name = _free_name(schema, source, item, [*known, *extended])
            old = PartitionField(source.field_id, next_id, transform, name)
            next_id += 1
        extended.append(old)
    return tuple(extended), tuple(pending)


def _check_transform(source: NestedField, transform: Transform[Any, Any], item: PartitionBy) -> None:
    if not source.field_type.is_primitive or not transform.can_transform(source.field_type):
        raise Invalid(f"column {item.column} is {source.field_type}, to which {item.transform} does not apply")
    if isinstance(source.field_type, DecimalType) and not _truncates(source.field_type, item):
        raise Invalid(f"{item.parameter} is too wide for {source.field_type}")


def _free_name(schema: Schema, source: NestedField, item: PartitionBy, known: Sequence[PartitionField]) -> str:
    """pyiceberg's and Java's names, such as ts_day and id_bucket_16, with a number if a column or another partition has
    that name. Manifests are Avro, so names have no other letters than Avro's."""
    taken = {field.name.casefold() for field in known} | OWN_COLUMNS | {c.name.casefold() for c in schema.fields}
    if item.transform == "identity":  # a column lends its own name
        taken -= {column.name.casefold() for column in schema.fields if column.field_id == source.field_id}
    column = schema.find_column_name(source.field_id) or item.column  # as the table spells it
    wish = re.sub(r"[^A-Za-z0-9_]", "_", _name(replace(item, column=column)))
    wish = f"_{wish}" if wish[0].isdigit() else wish
    names: Iterator[str] = chain([wish], (f"{wish}_{n}" for n in count(2)))
    return next(name for name in names if name.casefold() not in taken)


def _next_spec_id(metadata: TableMetadata) -> int:
    return max(spec.spec_id for spec in metadata.partition_specs) + 1


def _specs_unchanged(metadata: TableMetadata) -> tuple[TableRequirement, ...]:
    return (
        AssertLastAssignedPartitionId.model_validate({"last-assigned-partition-id": metadata.last_partition_id}),
        AssertDefaultSpecId.model_validate({"default-spec-id": metadata.default_spec_id}),
    )


def _source(schema: Schema, item: PartitionBy) -> NestedField:
    try:
        field = schema.find_field(item.column, case_sensitive=False)
    except ValueError:
        raise Invalid(f"the table has no column {item.column}") from None
    if _path(schema.as_struct(), field.field_id) is None:
        raise Invalid(f"column {item.column} lies in a list or map")
    return field


def _truncates(type: DecimalType, item: PartitionBy) -> bool:
    """Whether the lowest value, rounded down, still fits the bytes in which manifests keep such a decimal."""
    if item.transform != "truncate" or item.parameter is None:
        return True
    lowest = -(10**type.precision) + 1
    lowest_stored = -(2 ** (8 * decimal_required_bytes(type.precision) - 1))
    return bool(lowest - lowest % item.parameter >= lowest_stored)


def _path(struct: StructType, id: int) -> list[int] | None:
    """The positions that lead to column `id` through structs."""
    for at, field in enumerate(struct.fields):
        if field.field_id == id:
            return [at]
        if isinstance(field.field_type, StructType) and (below := _path(field.field_type, id)) is not None:
            return [at, *below]
    return None


def _text(item: PartitionBy) -> str:
    """Iceberg's spelling of the transform."""
    return item.transform if item.parameter is None else f"{item.transform}[{item.parameter}]"


def _name(item: PartitionBy) -> str:
    column = item.column.replace(".", "_")
    if item.transform == "identity":
        return column
    suffix = {"truncate": "trunc"}.get(item.transform, item.transform)
    return f"{column}_{suffix}" if item.parameter is None else f"{column}_{suffix}_{item.parameter}"


def _values(table: Any, schema: Schema, field: PartitionField) -> Any:
    """The partition values of one field as Iceberg stores them: dates as days, times as microseconds."""
    path = _path(schema.as_struct(), field.source_id)
    if path is None:
        raise Invalid(
            f"partition field {field.name}: its source column is gone, so nothing can be written by this spec"
        )
    column = table.column(path[0]).combine_chunks()
    values = pc.struct_field(column, path[1:]) if path[1:] else column
    type = schema.find_type(field.source_id)
    transform: Transform[Any, Any] = field.transform
    if isinstance(transform, TimeTransform):
        return _time(values, transform)
    stored = _stored(values)
    if isinstance(transform, IdentityTransform):
        return pc.add(stored, pa.scalar(0.0, stored.type)) if pa.types.is_floating(stored.type) else stored
    encoded = stored.dictionary_encode()
    apply = transform.transform(type)
    results = [apply(value) for value in encoded.dictionary.to_pylist()]
    return _results(results, transform, stored.type).take(encoded.indices)


def _results(results: list[Any], transform: Transform[Any, Any], type: Any) -> Any:
    if isinstance(transform, BucketTransform):
        return pa.array(results, pa.int32())
    if pa.types.is_integer(type):
        lowest = -(1 << type.bit_width - 1)
        if any(value is not None and value < lowest for value in results):
            # Java lets it wrap around to the highest partition, where no reader looks for rows below a number.
            raise NotPartitionable(
                f"{transform} of a number near {lowest} is below the column's range: such commits are not partitioned"
            )
    if pa.types.is_decimal(type):
        type = pa.decimal256(76, type.scale)  # and the lowest decimals have a digit more
    return pa.array(results, type)


def _stored(values: Any) -> Any:
    """Dates as days, times and timestamps as microseconds, UUIDs as bytes."""
    if isinstance(values, pa.ExtensionArray):
        return values.storage
    if pa.types.is_date32(values.type):
        return values.cast(pa.int32())
    return values.cast(pa.int64()) if pa.types.is_temporal(values.type) else values


def _time(values: Any, transform: TimeTransform[Any]) -> Any:
    if pa.types.is_timestamp(values.type):
        values = values.cast(pa.timestamp("us"))  # drops the zone, which is UTC: no time zone database is needed
    match transform:
        case YearTransform():
            result = _years(values)
        case MonthTransform():
            result = pc.add(pc.multiply(_years(values), 12), pc.subtract(pc.month(values), 1))
        case DayTransform() if pa.types.is_date32(values.type):
            result = _stored(values)
        case DayTransform():
            result = _floor_divide(_stored(values), MICROS_A_DAY)
        case _:
            result = _floor_divide(_stored(values), MICROS_AN_HOUR)
    return result.cast(pa.int32())


def _years(values: Any) -> Any:
    return pc.subtract(pc.year(values), 1970)


def _floor_divide(values: Any, divisor: int) -> Any:
    """Arrow divides towards zero; partitions go down."""
    quotient = pc.divide(values, divisor)
    below = pc.less(values, pc.multiply(quotient, divisor))
    return pc.subtract(quotient, below.cast(pa.int64()))
