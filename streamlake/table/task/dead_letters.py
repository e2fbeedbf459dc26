"""`<table>__dlq`: the records that could not become a row, complete and with the reason.

One row for each record, or one for a batch that nobody can parse: then `value` is the raw batch, which stands for all
offsets from `offset` to `last_offset`. A row here settles its offsets: they are never in the main table too.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
from pyiceberg.schema import Schema
from pyiceberg.types import (
    BinaryType,
    IntegerType,
    ListType,
    LongType,
    NestedField,
    StringType,
    StructType,
    TimestamptzType,
)

from streamlake.record.arrow import BadBatch
from streamlake.table.formats import headers as convert_headers
from streamlake.table.formats.converted import MESSAGE_CHARS_MAX, Reason, RowError
from streamlake.table.rows.layout import timestamp_types, timestamps
from streamlake.table.rows.project import table_schema

# Ids are in the order in which catalogs number a new table's columns: a level, then what is below it.
DEAD_LETTER_SCHEMA = Schema(
    NestedField(1, "reason", StringType(), doc="invalid_value, unknown_schema, …: see docs/guides/tables.md"),
    NestedField(2, "error", StringType(), doc="what went wrong, in words"),
    NestedField(3, "topic", StringType()),
    NestedField(4, "partition", IntegerType()),
    NestedField(5, "offset", LongType(), doc="of the record, or of a bad batch's first"),
    NestedField(6, "last_offset", LongType(), doc="of a bad batch's last record; of a record the same as offset"),
    NestedField(7, "timestamp", TimestamptzType()),
    NestedField(8, "timestamp_type", StringType()),
    NestedField(9, "key", BinaryType()),
    NestedField(10, "value", BinaryType(), doc="as it was sent; of a bad batch the whole batch"),
    NestedField(
        11,
        "headers",
        ListType(
            12,
            StructType(NestedField(13, "key", StringType()), NestedField(14, "value", BinaryType())),
            element_required=False,
        ),
    ),
)


def dead_rows(topic: str, records: Any, errors: Sequence[RowError]) -> Any:
    """A pa.Table of DEAD_LETTER_SCHEMA: one row for each error, in the order of `errors`. `records` is what was
    translated: record.arrow's columns and `partition`."""
    dead = records.take(pa.array([error.row for error in errors], pa.int64()))
    offset = dead["offset"]
    return _table(
        {
            "reason": pa.array([str(error.reason) for error in errors], pa.large_string()),
            "error": pa.array([error.message for error in errors], pa.large_string()),
            "topic": pa.repeat(pa.scalar(topic, pa.large_string()), len(dead)),
            "partition": dead["partition"],
            "offset": offset,
            "last_offset": offset,
            "timestamp": timestamps(dead["timestamp"].combine_chunks()),
            "timestamp_type": timestamp_types(dead["timestamp_type"].combine_chunks()),
            "key": dead["key"],
            "value": dead["value"],
            "headers": convert_headers.convert(dead["headers"].combine_chunks())[0],
        },
        len(dead),
    )


def dead_batches(topic: str, batches: Iterable[tuple[int, BadBatch]]) -> Any:
    """A pa.Table of DEAD_LETTER_SCHEMA: one row for each (partition, batch that will not parse)."""
    found = list(batches)
    return _table(
        {
            "reason": pa.array([str(Reason.INVALID_BATCH)] * len(found), pa.large_string()),
            "error": pa.array([batch.error[:MESSAGE_CHARS_MAX] for _, batch in found], pa.large_string()),
            "topic": pa.array([topic] * len(found), pa.large_string()),
            "partition": pa.array([partition for partition, _ in found], pa.int32()),
            "offset": pa.array([batch.base_offset for _, batch in found], pa.int64()),
            "last_offset": pa.array([batch.last_offset for _, batch in found], pa.int64()),
            "value": pa.array([batch.raw for _, batch in found], pa.large_binary()),
        },
        len(found),
    )


def _table(columns: dict[str, Any], rows: int) -> Any:
    target = table_schema(DEAD_LETTER_SCHEMA)
    arrays = [
        columns[field.name].cast(field.type) if field.name in columns else pa.nulls(rows, field.type)
        for field in target
    ]
    return pa.Table.from_arrays(arrays, schema=target)
