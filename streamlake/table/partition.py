"""`partition.by` → Iceberg partition spec, and a table's rows → one table for each partition value.

Transforms of time run on whole columns; bucket and truncate run pyiceberg's own transform once for each distinct
value, so the hash is the specification's. See the Iceberg specification, "Partitioning".
"""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.partitioning import PARTITION_FIELD_ID_START, PartitionField, PartitionSpec
from pyiceberg.schema import Schema
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

from streamlake.cluster.table_configs import PartitionBy
from streamlake.core.errors import Invalid

PARTITIONS_MAX = 10_000  # of one write: each costs a file
MICROS_AN_HOUR = 3_600_000_000
MICROS_A_DAY = 24 * MICROS_AN_HOUR


def partition_spec(schema: Schema, partition_by: Sequence[PartitionBy]) -> PartitionSpec:
    """The spec of a new table. Raises Invalid, naming the item that the table's columns do not allow."""
    fields: list[PartitionField] = []
    timed: set[int] = set()
    for at, item in enumerate(partition_by):
        source = _source(schema, item)
        transform = parse_transform(_text(item))
        if not source.field_type.is_primitive or not transform.can_transform(source.field_type):
            raise Invalid(f"partition.by {item}: column {item.column} is {source.field_type}, which has no such values")
        if isinstance(source.field_type, DecimalType) and not _truncates(source.field_type, item):
            raise Invalid(f"partition.by {item}: {item.parameter} is too wide for {source.field_type}")
        if isinstance(transform, TimeTransform):
            if source.field_id in timed:
                raise Invalid(f"partition.by {item}: column {item.column} has a time partition already: keep the finer")
            timed.add(source.field_id)
        name = _name(item)
        taken = {field.name for field in fields}
        if item.transform != "identity":
            taken |= {field.name for field in schema.fields}
        if name in taken:
            raise Invalid(f"partition.by {item}: there is a column or partition {name} already")
        fields.append(PartitionField(source.field_id, PARTITION_FIELD_ID_START + at, transform, name))
    return PartitionSpec(*fields)


def split(table: Any, schema: Schema, spec: PartitionSpec) -> list[tuple[Record, Any]]:
    """`table` (of `schema`) as (partition value, its rows in their order). Raises Invalid above PARTITIONS_MAX."""
    if spec.is_unpartitioned():
        return [(Record(), table)]
    keys = {f"p{at}": _values(table, schema, field) for at, field in enumerate(spec.fields)}
    names = list(keys)
    rows = pa.table({**keys, "row": pa.array(range(len(table)), pa.int64())})
    grouped = rows.group_by(names, use_threads=False).aggregate([("row", "list")])
    if len(grouped) > PARTITIONS_MAX:
        raise Invalid(f"{len(grouped)} partitions in one write, more than {PARTITIONS_MAX}: choose a coarser spec")
    values = zip(*(grouped[name].to_pylist() for name in names), strict=True)
    taken = (table if len(grouped) == 1 else table.take(found.values) for found in grouped["row_list"])
    return [(Record(*value), part) for value, part in zip(values, taken, strict=True)]


def _source(schema: Schema, item: PartitionBy) -> NestedField:
    try:
        field = schema.find_field(item.column, case_sensitive=False)
    except ValueError:
        raise Invalid(f"partition.by {item}: the table has no column {item.column}") from None
    if _path(schema.as_struct(), field.field_id) is None:
        raise Invalid(f"partition.by {item}: column {item.column} lies in a list or map")
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
    """pyiceberg's and Java's names: ts_day, id_bucket_16; without dots, because manifests are Avro."""
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
        return stored
    encoded = stored.dictionary_encode()
    apply = transform.transform(type)
    results = [apply(value) for value in encoded.dictionary.to_pylist()]
    return _results(results, transform, stored.type).take(encoded.indices)


def _results(results: list[Any], transform: Transform[Any, Any], type: Any) -> Any:
    if isinstance(transform, BucketTransform):
        return pa.array(results, pa.int32())
    if pa.types.is_integer(type):  # the lowest numbers go below the type's range: they wrap around, as in Java
        span = 1 << type.bit_width
        return pa.array([v if v is None else (v + span // 2) % span - span // 2 for v in results], type)
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
