"""Topic → Arrow → Parquet: the pure half of a table round, in the four steps that task.py calls in a worker thread.

    translated = pipeline.translate(records, settings, schemas, topic, dead_offsets)
    evolved = pipeline.evolve(metadata_or_None, translated)
    table = pipeline.assemble(translated, evolved)
    files = pipeline.write(table, evolved.schema, spec, path_of, properties)

A new table: evolve(None, …) gives the schema to create it with; then load it and evolve again. Dead rows are
`evolved.dead` (the translation's own and those of incompatible schemas): commit them first (`dead_letters.dead_rows`),
then the main table with `evolved.updates` and `evolved.requirements` in the same commit as the files. Translate again
after every reload: nothing here is kept from round to round, except compiled schemas.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.update import TableRequirement, TableUpdate

from streamlake.cluster.table_configs import TableSettings
from streamlake.table import convert_avro, convert_raw, convert_string, field_map, writer
from streamlake.table import evolve as evolution
from streamlake.table.converted import Converted, Reason, RowError, row_errors
from streamlake.table.evolve import CurrentTable, Incompatible
from streamlake.table.field_map import FieldMap
from streamlake.table.project import project, table_schema
from streamlake.table.resolve import SchemaCache
from streamlake.table.rows import RowGroup, row_groups
from streamlake.table.writer import WrittenFile


@dataclass(frozen=True, slots=True)
class Translated:
    """`records` are the rows that were looked at; rows in `groups` and in `dead` count in it and are all of it."""

    topic: str
    records: Any
    groups: tuple[RowGroup, ...]
    dead: tuple[RowError, ...]


@dataclass(frozen=True, slots=True)
class Evolved:
    """`schema` holds all that is not in `dead`. `bindings` belong to the translation's groups, None for a refused one.
    `updates` is empty if the table is as it should be."""

    schema: Schema
    bindings: tuple[FieldMap | None, ...]
    dead: tuple[RowError, ...]
    updates: tuple[TableUpdate, ...]
    requirements: tuple[TableRequirement, ...]


def translate(
    records: Any,
    settings: TableSettings,
    schemas: SchemaCache,
    topic: str,
    dead_offsets: Collection[tuple[int, int]] = frozenset(),
) -> Translated:
    """`records`: a pa.Table of record.arrow.RECORDS_SCHEMA and an int32 column `partition`. Rows whose (partition,
    offset) is in `dead_offsets` are finally dead and left out. Raises Unavailable if the registry is down."""
    records = _without(records.combine_chunks(), dead_offsets)
    value = _convert(settings.convert_value, records["value"], Reason.INVALID_VALUE, schemas)
    key = _convert(settings.convert_key, records["key"], Reason.INVALID_KEY, schemas)
    errors = {error.row: error for error in (*key.errors, *value.errors)}  # a row has one reason: the value's, if any
    groups = row_groups(
        records,
        value,
        key,
        errors,
        topic=topic,
        layout=settings.layout,
        flatten=settings.transform_value == "flatten",
    )
    return Translated(topic, records, groups, tuple(errors[row] for row in sorted(errors)))


def evolve(metadata: TableMetadata | None, translated: Translated) -> Evolved:
    """The table's next schema. Raises Invalid if the table cannot be written to, Corrupt for a bad field map."""
    result = evolution.evolve(_current(metadata), [group.columns for group in translated.groups])
    dead = list(translated.dead)
    for group, binding in zip(translated.groups, result.bindings, strict=True):
        if isinstance(binding, Incompatible):
            dead += row_errors(group.rows.to_pylist(), Reason.INCOMPATIBLE_SCHEMA, str(binding))
    return Evolved(
        result.schema,
        tuple(None if isinstance(binding, Incompatible) else binding for binding in result.bindings),
        tuple(sorted(dead, key=lambda error: error.row)),
        result.updates,
        result.requirements,
    )


def assemble(translated: Translated, evolved: Evolved) -> Any:
    """All rows but the dead as a pa.Table of the evolved schema: schema by schema, each in the order of the log."""
    tables = [
        project(group, evolved.schema, binding)
        for group, binding in zip(translated.groups, evolved.bindings, strict=True)
        if binding is not None
    ]
    return pa.concat_tables(tables) if tables else table_schema(evolved.schema).empty_table()


def write(
    table: Any, schema: Schema, spec: PartitionSpec, path_of: Callable[[str], str], properties: Mapping[str, str]
) -> list[WrittenFile]:
    """See writer.write."""
    return list(writer.write(table, schema, spec, path_of, properties))


def _without(records: Any, dead_offsets: Collection[tuple[int, int]]) -> Any:
    if not dead_offsets:
        return records
    at = zip(records["partition"].to_pylist(), records["offset"].to_pylist(), strict=True)
    return records.filter(pa.array([position not in dead_offsets for position in at], pa.bool_())).combine_chunks()


def _convert(kind: str, column: Any, reason: Reason, schemas: SchemaCache) -> Converted:
    values = column.combine_chunks()
    match kind:
        case "raw":
            return convert_raw.convert(values)
        case "string":
            return convert_string.convert(values, reason)
    return convert_avro.convert(values, reason, schemas)


def _current(metadata: TableMetadata | None) -> CurrentTable | None:
    if metadata is None:
        return None
    return CurrentTable(
        metadata.schemas,
        metadata.current_schema_id,
        metadata.last_column_id,
        field_map.decode(metadata.properties.get(field_map.PROPERTY)),
    )
