"""Where Kafka's metadata of a record goes, beside the columns of the value.

- `streamlake`: one struct `_kafka` (topic, partition, offset, timestamp, timestamp_type, key, headers); the value, when
  it is not flattened, is the column `value`.
- `automq`: AutoMQ's columns `_kafka_value`, `_kafka_header`, `_kafka_key` and `_kafka_metadata`, so that its tables can
  be continued: headers as a map (the last of equal names wins), the timestamp as plain milliseconds.
"""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.types import BinaryType, IntegerType, LongType, StringType, TimestamptzType

from streamlake.cluster.config.columns import AUTOMQ, STREAMLAKE
from streamlake.table.formats.avro.columns import MICROS_MAX, MICROS_MIN
from streamlake.table.formats.source_schema import (
    ROW,
    SourceColumn,
    SourceField,
    SourceList,
    SourceMap,
    SourceStruct,
    SourceType,
    source_field,
)

HEADERS = SourceList(SourceStruct((source_field("key", StringType()), source_field("value", BinaryType()))))
TIMESTAMP_TYPES = pa.array(["CreateTime", "LogAppendTime"], pa.large_string())

Key = tuple[SourceType, Any]  # with an array of the keys


def metadata_columns(layout: str, topic: str, records: Any, key: Key | None) -> list[tuple[SourceColumn, Any]]:
    """The metadata columns of `records` (a pa.RecordBatch of record.arrow's columns and `partition`), in their order in
    the table. `key` is None if no key of these records has a type."""
    if layout == AUTOMQ.name:
        return _automq(records, key)
    return [_struct(STREAMLAKE.struct, _kafka_fields(topic, records, key))]


def timestamps(milliseconds: Any) -> Any:
    """Kafka's timestamps as timestamptz; null for -1 (none) and for years that no engine can read."""
    found = pc.min_max(milliseconds)
    if len(milliseconds) and not (found["min"].as_py() >= 0 and found["max"].as_py() <= MICROS_MAX // 1000):
        known = pc.and_(
            pc.not_equal(milliseconds, -1),
            pc.and_(
                pc.greater_equal(milliseconds, MICROS_MIN // 1000), pc.less_equal(milliseconds, MICROS_MAX // 1000)
            ),
        )
        milliseconds = pc.if_else(known, milliseconds, None)
    return pc.multiply(milliseconds, 1000).cast(pa.timestamp("us", "UTC"))


def timestamp_types(kinds: Any) -> Any:
    """The names of timestamp types. Nearly always all are the same, and to repeat a text is faster than a look-up."""
    found = pc.min_max(kinds)
    if len(kinds) and found["min"] == found["max"]:
        return pa.repeat(TIMESTAMP_TYPES[found["min"].as_py()], len(kinds))
    return TIMESTAMP_TYPES.take(kinds)


def _kafka_fields(topic: str, records: Any, key: Key | None) -> list[tuple[SourceField, Any]]:
    return [
        (source_field("topic", StringType()), pa.repeat(pa.scalar(topic, pa.large_string()), len(records))),
        (source_field("partition", IntegerType()), records.column("partition")),
        (source_field("offset", LongType()), records.column("offset")),
        (source_field("timestamp", TimestamptzType()), timestamps(records.column("timestamp"))),
        (source_field("timestamp_type", StringType()), timestamp_types(records.column("timestamp_type"))),
        *([(source_field("key", key[0]), key[1])] if key else []),
        (source_field("headers", HEADERS), records.column("headers")),
    ]


def _automq(records: Any, key: Key | None) -> list[tuple[SourceColumn, Any]]:
    type = SourceMap(StringType(), BinaryType())
    headers = (SourceColumn(ROW, source_field(AUTOMQ.headers, type)), _header_maps(records.column("headers")))
    keys = [(SourceColumn(ROW, source_field(AUTOMQ.key, key[0])), key[1])] if key else []
    metadata = _struct(
        AUTOMQ.struct,
        [
            (source_field("partition", IntegerType()), records.column("partition")),
            (source_field("offset", LongType()), records.column("offset")),
            (source_field("timestamp", LongType()), records.column("timestamp")),
        ],
    )
    return [headers, *keys, metadata]


def _header_maps(headers: Any) -> Any:
    type = pa.map_(pa.large_string(), pa.large_binary())
    return pa.array([list({h["key"]: h["value"] for h in row}.items()) for row in headers.to_pylist()], type)


def _struct(name: str, children: list[tuple[SourceField, Any]]) -> tuple[SourceColumn, Any]:
    type = SourceStruct(tuple(field for field, _ in children))
    array = pa.StructArray.from_arrays([a for _, a in children], names=[field.segment for field, _ in children])
    return SourceColumn(ROW, source_field(name, type)), array
