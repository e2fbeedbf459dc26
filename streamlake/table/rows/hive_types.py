"""How long a column's type is as text, as AWS Glue and the Hive Metastore keep it."""

from pyiceberg.types import IcebergType, TimestampType, TimestamptzType, TimeType, UUIDType

from streamlake.table.rows.type_text import NAMES, Words, type_text

_HIVE = Words(
    {
        **NAMES,
        TimeType: "string",
        TimestampType: "timestamp",
        TimestamptzType: "timestamp with local time zone",  # Hive's; Glue's is shorter
        UUIDType: "string",
    },
    ",",
    ":",
    str,
)


def type_chars(type: IcebergType) -> int:
    return len(type_text(type, _HIVE))
