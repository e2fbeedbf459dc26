"""transform.value.type: the converted value → columns of the table.

`flatten` lifts the fields of a record one level, nested records stay structs. A value that is no record (bytes, text,
an Avro string) has no fields to lift and is the one column that it is without flatten. `flatten_debezium` does the same
with the row of a change (debezium.py), which other columns stand beside.
"""

from typing import Any

from streamlake.table.formats.source_schema import (
    ROW,
    VALUE,
    SourceChange,
    SourceColumn,
    SourceStruct,
    SourceType,
    source_field,
)


def value_columns(
    type: SourceType | None, values: Any, *, flatten: bool, column: str, schema_id: int = 0
) -> list[tuple[SourceColumn, Any]]:
    """The columns of one group of values, with their arrays; none for a schema that holds no data."""
    if type is None:
        return []
    if isinstance(type, SourceChange):
        columns = value_columns(type.fields[0].type, values.field(0), flatten=True, column=column, schema_id=schema_id)
        beside = enumerate(type.fields[1:], start=1)
        return columns + [(SourceColumn(ROW, field, schema_id), values.field(at)) for at, field in beside]
    if flatten and isinstance(type, SourceStruct):
        return [(SourceColumn(VALUE, field, schema_id), values.field(at)) for at, field in enumerate(type.fields)]
    return [(SourceColumn(ROW, source_field(column, type), schema_id), values)]
