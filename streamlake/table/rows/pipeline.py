"""Topic → Arrow → Parquet: the pure half of a table round, in the four steps that task/ calls in a worker thread.

    translated = pipeline.translate(records, settings, schemas, topic, dead_offsets)
    evolved = pipeline.evolve(metadata_or_None, translated)
    table = pipeline.assemble(translated, evolved)
    files = pipeline.write(table, evolved.schema, spec, path_of, properties)

A new table: evolve(None, …) gives the schema to create it with; then load it and evolve again. Dead rows are
`evolved.dead` (the translation's own and those of incompatible schemas): commit them first (`dead_letters.dead_rows`),
then the main table with `evolved.updates` and `evolved.requirements` in the same commit as the files. Translate again
after every reload: nothing here is kept from round to round, except compiled schemas.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.update import TableRequirement, TableUpdate

from streamlake.cluster.config.table import TableSettings
from streamlake.table.formats import headers as convert_headers
from streamlake.table.formats.converted import Reason, RowError, row_errors
from streamlake.table.formats.json.infer import Inference
from streamlake.table.formats.kinds import Conversion, converter
from streamlake.table.formats.port import Schemas
from streamlake.table.formats.resolve import RoundSchemas
from streamlake.table.formats.source_schema import SourceColumn
from streamlake.table.rows import debezium, field_map, writer
from streamlake.table.rows import evolve as evolution
from streamlake.table.rows.evolve import CurrentTable, Evolution, Incompatible, renumbered
from streamlake.table.rows.field_map import FieldMap
from streamlake.table.rows.groups import RowGroup, row_groups
from streamlake.table.rows.known import known_columns
from streamlake.table.rows.partition import names_taken
from streamlake.table.rows.project import project, table_schema
from streamlake.table.rows.writer import WrittenFile

# Of rows that are translated at once. What is made of so few stays in memory that was used before: to get new memory
# from the kernel for a whole round took a quarter of the translation.
PIECE_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Translated:
    """`records` are the rows that were looked at; rows in `groups` and in `dead` count in it and are all of it."""

    topic: str
    records: Any
    groups: tuple[RowGroup, ...]
    dead: tuple[RowError, ...]
    rest_rows: int = 0  # see Converted
    tombstones: int = 0  # that were left out


@dataclass(frozen=True, slots=True)
class Evolved:
    """`schema` holds all that is not in `dead`. `bindings` belong to the translation's groups, None for a refused one.
    `updates` is empty if the table is as it should be."""

    schema: Schema
    bindings: tuple[FieldMap | None, ...]
    dead: tuple[RowError, ...]
    updates: tuple[TableUpdate, ...]
    requirements: tuple[TableRequirement, ...]
    evolution: Evolution


def translate(
    records: Any,
    settings: TableSettings,
    schemas: Schemas,
    topic: str,
    dead_offsets: Collection[tuple[int, int]] = frozenset(),
    metadata: TableMetadata | None = None,
    leave_tombstones: bool = True,
) -> Translated:
    """`records`: a pa.Table of record.arrow.RECORDS_SCHEMA and an int32 column `partition`. Rows whose (partition,
    offset) is in `dead_offsets` are finally dead and left out. `metadata`: of the table, if there is one.
    `leave_tombstones`: of changes; else they are errors. Raises Unavailable if the registry is down, and Corrupt for a
    bad field map."""
    records = _without(records, dead_offsets)
    alive = len(records)
    if settings.unwraps_debezium and leave_tombstones and records["value"].null_count:
        records = records.filter(pc.is_valid(records["value"]))
    asked = RoundSchemas(schemas)
    inference = _inference(metadata, settings)
    latest, of_key = settings.latest_value, settings.latest_key
    of_value = Conversion(inference, latest.subject or f"{topic}-value", latest.message)
    make = debezium.converter if settings.unwraps_debezium else converter
    convert_value = make(settings.convert_value, of_value)
    convert_key = converter(
        settings.convert_key, Conversion(inference, of_key.subject or f"{topic}-key", of_key.message)
    )
    groups: list[RowGroup] = []
    dead: list[RowError] = []
    start = rest_rows = 0
    for piece in _pieces(records):
        value = convert_value(piece["value"], Reason.INVALID_VALUE, asked)
        key = convert_key(piece["key"], Reason.INVALID_KEY, asked)
        headers, header_errors = convert_headers.convert(piece["headers"])
        piece = piece.set_column(piece.schema.get_field_index("headers"), "headers", headers)
        # A row has one reason: the value's, if any, or else the key's.
        errors = {error.row: error for error in (*header_errors, *key.errors, *value.errors)}
        found = row_groups(piece, value, key, errors, topic=topic, layout=settings.layout, flatten=settings.flattens)
        groups += [replace(group, rows=pc.add(group.rows, start)) for group in found]
        dead += [replace(errors[row], row=start + row) for row in sorted(errors)]
        start += len(piece)
        rest_rows += value.rest_rows
    return Translated(topic, records, tuple(groups), tuple(dead), rest_rows, alive - len(records))


def evolve(
    metadata: TableMetadata | None,
    translated: Translated,
    type_chars_max: int | None = None,
    made: Evolved | None = None,
) -> Evolved:
    """The table's next schema. Raises Invalid if the table cannot be written to, Corrupt for a bad field map.
    `type_chars_max`: see evolve.evolve. `made`: what the table has just been created with."""
    sources: list[tuple[SourceColumn, ...]] = []
    for group in translated.groups:
        if group.columns not in sources:  # pieces of one schema have the same
            sources.append(group.columns)
    current = _current(metadata)
    if current is not None and made is not None and not current.fields:
        fields, namers = renumbered(made.evolution, current.schema)
        # The first data commit stores them: to evolve the table as it is would not.
        result = evolution.evolve(replace(current, fields=fields, namers=namers), sources, type_chars_max, current)
    else:
        result = evolution.evolve(current, sources, type_chars_max)
    bindings = [result.bindings[sources.index(group.columns)] for group in translated.groups]
    dead = list(translated.dead)
    for group, binding in zip(translated.groups, bindings, strict=True):
        if isinstance(binding, Incompatible):
            dead += row_errors(group.rows.to_pylist(), Reason.INCOMPATIBLE_SCHEMA, str(binding))
    return Evolved(
        result.schema,
        tuple(None if isinstance(binding, Incompatible) else binding for binding in bindings),
        tuple(sorted(dead, key=lambda error: error.row)),
        result.updates,
        result.requirements,
        result,
    )


def assemble(translated: Translated, evolved: Evolved) -> Any:
    """All rows but the dead as a pa.Table of the evolved schema: piece by piece, in it schema by schema, each in the
    order of the log."""
    target = table_schema(evolved.schema)
    tables = [
        project(group, evolved.schema, target, binding)
        for group, binding in zip(translated.groups, evolved.bindings, strict=True)
        if binding is not None
    ]
    if tables:
        return pa.concat_tables(tables)
    # Not target.empty_table(): Arrow makes no empty struct or list of UUIDs by it, and a round of dead letters failed.
    return pa.Table.from_arrays([pa.nulls(0, field.type) for field in target], schema=target)


def write(
    table: Any, schema: Schema, spec: PartitionSpec, path_of: Callable[[str], str], properties: Mapping[str, str]
) -> list[WrittenFile]:
    """See writer.write."""
    return list(writer.write(table, schema, spec, path_of, properties))


def _without(records: Any, dead_offsets: Collection[tuple[int, int]]) -> Any:
    if not dead_offsets:
        return records
    at = zip(records["partition"].to_pylist(), records["offset"].to_pylist(), strict=True)
    return records.filter(pa.array([position not in dead_offsets for position in at], pa.bool_()))


def _pieces(records: Any) -> Iterator[Any]:
    """All rows as record batches: those of small fetches together, because each piece costs a millisecond; large ones
    as they are, because to copy them costs more."""
    few: list[Any] = []
    size_bytes = 0
    for batch in records.to_batches():
        if few and size_bytes + batch.nbytes > PIECE_BYTES:
            yield _joined(few)
            few, size_bytes = [], 0
        few.append(batch)
        size_bytes += batch.nbytes
    if few:
        yield _joined(few)


def _joined(batches: list[Any]) -> Any:
    return batches[0] if len(batches) == 1 else pa.concat_batches(batches)


def _inference(metadata: TableMetadata | None, settings: TableSettings) -> Inference:
    """Of a round: what values without a schema have for columns."""
    if metadata is None or settings.convert_value != "json":
        return Inference({}, settings.json_columns_max)
    fields = field_map.decode(metadata.properties.get(field_map.PROPERTY))
    return Inference(known_columns(metadata.schema(), fields, settings), settings.json_columns_max)


def _current(metadata: TableMetadata | None) -> CurrentTable | None:
    if metadata is None:
        return None
    return CurrentTable(
        metadata.schemas,
        metadata.current_schema_id,
        metadata.last_column_id,
        field_map.decode(metadata.properties.get(field_map.PROPERTY)),
        names_taken(metadata),
        field_map.decode_namers(metadata.properties.get(field_map.PROPERTY)),
    )
