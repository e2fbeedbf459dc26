"""What the table of a topic would be, tried on the newest records of the topic. Nothing is written anywhere.

The steps are those of a round: read, translate, evolve, and write Parquet into memory. Without records the columns are
those of the newest schema of the topic's subject, if values have schemas. A *problem* is what would keep the table from
being made or written; a *warning* is what somebody may not expect.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pyarrow as pa
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata

from streamlake.cluster.config.columns import LAYOUTS
from streamlake.cluster.config.table import TableSettings
from streamlake.core.errors import Invalid, NotFound, StreamLakeError
from streamlake.core.tasks import Executor
from streamlake.record.arrow import decode_fetched
from streamlake.record.compression import DECOMPRESSED_BYTES_MAX
from streamlake.table.commit.health import unreadable
from streamlake.table.commit.iceberg import IcebergTable
from streamlake.table.commit.progress import find
from streamlake.table.commit.snapshot import check_format
from streamlake.table.commit.tools import Tools
from streamlake.table.formats import headers as convert_headers
from streamlake.table.formats.port import SchemaReader, Schemas
from streamlake.table.rows import debezium, pipeline
from streamlake.table.rows.ddl import SPARK, create_table, partitions
from streamlake.table.rows.flatten import value_columns
from streamlake.table.rows.groups import RowGroup
from streamlake.table.rows.layout import metadata_columns
from streamlake.table.rows.partition import NotPartitionable, partition_spec, partitioning, pending_of
from streamlake.table.rows.pipeline import Evolved, Translated
from streamlake.table.rows.type_text import type_text
from streamlake.table.task.control import TableSpec
from streamlake.table.task.log_reader import LogReader
from streamlake.table.task.names import TableName
from streamlake.table.task.round import SCHEMA

SAMPLE_MAX = 10_000  # records
SAMPLE_BYTES = 8 << 20
PARTITIONS_MAX = 64  # that the sample is of
ERRORS_SHOWN = 5
REQUESTS = 4  # of a commit: a data file, a manifest, a manifest list, and the metadata file


@dataclass(frozen=True, slots=True)
class Sample:
    """`records`: a pa.Table of round.SCHEMA. `bad_batches`: that nobody can parse. `positions`: of all the log."""

    records: Any
    bad_batches: int
    positions: int


class _Remembered:
    """Implements Schemas: remembers what was asked of others."""

    def __init__(self, schemas: Schemas) -> None:
        self.readers: dict[int, SchemaReader] = {}
        self._schemas = schemas

    def get(self, schema_id: int) -> SchemaReader:
        return self.readers.setdefault(schema_id, self._schemas.get(schema_id))

    def latest(self, subject: str) -> tuple[int, SchemaReader]:
        id, reader = self._schemas.latest(subject)
        return id, self.readers.setdefault(id, reader)


async def read_sample(spec: TableSpec, reader: LogReader, executor: Executor, most: int) -> Sample:
    """About `most` of the newest records, alike from all partitions. Raises NotFound, Unavailable, Corrupt."""
    found = await reader.positions(spec.topic, spec.topic_id, range(spec.partitions))
    filled = {p: log for p, log in sorted(found.items()) if log.last_stable_offset > log.log_start_offset}
    chosen = dict(list(filled.items())[:PARTITIONS_MAX])
    tables: list[Any] = []
    bad = 0
    for partition, log in chosen.items():
        each = math.ceil(most / len(chosen))
        start = max(log.log_start_offset, log.last_stable_offset - each)
        fetched = await reader.fetch(spec.topic, spec.topic_id, partition, start, SAMPLE_BYTES // len(chosen))
        if not len(fetched.data):
            continue
        decoded = await executor.run(decode_fetched, fetched.data, start, fetched.aborted, DECOMPRESSED_BYTES_MAX)
        bad += len(decoded.bad_batches)
        rows = decoded.table.slice(0, each)
        number = pa.repeat(pa.scalar(partition, pa.int32()), len(rows))
        tables.append(rows.append_column(SCHEMA.field("partition"), number))
    records = pa.concat_tables(tables) if tables else SCHEMA.empty_table()
    positions = sum(log.last_stable_offset - log.log_start_offset for log in filled.values())
    return Sample(records, bad, positions)


async def plan(
    spec: TableSpec, settings: TableSettings, name: TableName, kind: str, tools: Tools, sample: Sample
) -> dict[str, Any]:
    """JSON-ready. Raises Unavailable, and whatever a catalog raises that does not answer."""
    made = _Plan(spec.topic, settings, name, kind, tools, sample)
    try:
        table = await _loaded(name, tools)
        await tools.executor.run(made.make, table)
    except Invalid as error:  # no table of these configs, in this catalog, for this schema
        made.problems.append(str(error))
    return made.result()


async def _loaded(name: TableName, tools: Tools) -> Table | None:
    identifier = (*name.levels, name.name)
    handle = IcebergTable(tools.catalog, identifier, 0, tools.executor, tools.clock, tools.ids, tools.capabilities)
    try:
        return await handle.load()
    except FileNotFoundError as error:
        raise Invalid(str(unreadable(handle.name, f"its metadata file is gone ({error})"))) from None


class _Plan:
    def __init__(
        self, topic: str, settings: TableSettings, name: TableName, kind: str, tools: Tools, sample: Sample
    ) -> None:
        self.problems: list[str] = []
        self._warnings: list[str] = []
        self._topic, self._settings, self._name, self._kind = topic, settings, name, kind
        self._tools = tools
        self._schemas = _Remembered(tools.schemas)
        self._sample = sample
        self._parts: dict[str, Any] = {}

    def result(self) -> dict[str, Any]:
        return {
            "topic": self._topic,
            "table": str(self._name),
            "catalog": {"name": self._name.catalog, "kind": self._kind},
            **self._parts,
            "warnings": self._warnings,
            "problems": self.problems,
            "verdict": f"not possible: {self.problems[0]}" if self.problems else self._possible(),
        }

    def _possible(self) -> str:
        dead = sum(self._parts.get("sample", {}).get("dead_letters", {}).values())
        tried = len(self._sample.records)
        return f"possible, but {dead} of {tried} sampled records are dead letters" if dead else "possible"

    def make(self, table: Table | None) -> None:
        """Blocks. Raises Invalid for what keeps the table from being."""
        metadata = table.metadata if table is not None else None
        if table is not None:
            check_format(table)
            progress = find(table.metadata)
            if progress is not None and progress.topic != self._topic:
                self.problems.append(f"{self._name} is the table of topic {progress.topic}: set streamlake.table.name")
        self._parts["exists"] = table is not None
        records = self._sample.records
        translated = pipeline.translate(records, self._settings, self._schemas, self._topic, frozenset(), metadata)
        if not len(records):
            translated = self._of_newest_schema(translated)
        evolved = pipeline.evolve(metadata, translated, self._tools.capabilities.type_chars_max)
        self._say_sample(translated, evolved)
        if evolved.schema.fields:
            self._say_columns(metadata, evolved.schema, *self._spec(metadata, evolved.schema))
            self._say_cost(metadata, translated, evolved)
        self._parts["losses"] = sorted({loss for reader in self._schemas.readers.values() for loss in reader.losses()})
        self._warn()

    def _of_newest_schema(self, empty: Translated) -> Translated:
        """What the first record will be like, if the registry tells."""
        settings = self._settings
        if settings.convert_value not in ("by_schema_id", "by_latest_schema"):
            return empty
        subject, message = settings.latest_value.subject or f"{self._topic}-value", settings.latest_value.message
        try:
            _, reader = self._schemas.latest(subject)
            read = reader.of_message(message).read(pa.array([], pa.binary()), pa.array([], pa.int64()), 0)
        except StreamLakeError as error:
            text = f"there is no record yet, and no schema to plan by: {error}"
            if isinstance(error, NotFound):
                self._warnings.append(text)
                return empty
            raise Invalid(text) from None
        flatten, column = settings.flattens, LAYOUTS[settings.layout].value
        batch = pa.RecordBatch.from_arrays([pa.array([], field.type) for field in SCHEMA], schema=SCHEMA)
        metadata = metadata_columns(settings.layout, self._topic, _with_text_headers(batch), None)
        groups = []
        found = list(read.groups)
        if settings.unwraps_debezium:
            found = list(chain.from_iterable(debezium.changes(group)[0] for group in found))
        for group in found:
            columns = [*value_columns(group.type, group.values, flatten=flatten, column=column), *metadata]
            groups.append(RowGroup(group.rows, tuple(c for c, _ in columns), tuple(a for _, a in columns)))
        return Translated(self._topic, empty.records, tuple(groups), ())

    def _spec(self, metadata: TableMetadata | None, schema: Schema) -> tuple[PartitionSpec, dict[str, str]]:
        """What the table is partitioned by, and why not by the other items."""
        if metadata is not None:
            by = self._settings.partition_by
            return partitioning(metadata, schema, by).spec, {str(p.item): p.why for p in pending_of(metadata, by)}
        spec, pending = partition_spec(schema, self._settings.partition_by)
        return spec, {str(p.item): p.why for p in pending}

    def _say_columns(
        self, metadata: TableMetadata | None, schema: Schema, spec: PartitionSpec, waiting: Mapping[str, str]
    ) -> None:
        known = {field.field_id: field for field in metadata.schema().fields} if metadata is not None else {}
        self._parts["columns"] = [
            {
                "name": field.name,
                "type": type_text(field.field_type, SPARK),
                "change": _change(known.get(field.field_id), field) if metadata is not None else "",
            }
            for field in schema.fields
        ]
        self._parts["ddl"] = create_table(str(self._name), schema, spec)
        self._parts["partition_waits"] = dict(waiting)
        if metadata is not None and metadata.spec().fields != spec.fields:
            before = ", ".join(partitions(metadata.schema(), metadata.spec()))
            self._parts["partition_was"] = before or "nothing"
        for item, why in waiting.items():
            if "has no column" in why:  # it may come
                self._warnings.append(f"not partitioned by {item} yet: {why}")
            else:
                self.problems.append(f"partition.by: {item} is not possible: {why}")

    def _say_sample(self, translated: Translated, evolved: Evolved) -> None:
        reasons = Counter(str(error.reason) for error in evolved.dead)
        shown: dict[str, str] = {}
        for error in evolved.dead:
            at = translated.records.slice(error.row, 1)
            text = f"partition {at['partition'][0]} offset {at['offset'][0]}: {error.message}"
            shown.setdefault(str(error.reason), text)
        self._parts["sample"] = {
            "records": len(self._sample.records),
            "of": self._sample.positions,
            "rows": len(translated.records) - len(evolved.dead),
            "tombstones": translated.tombstones,
            "dead_letters": dict(reasons),
            "examples": dict(list(shown.items())[:ERRORS_SHOWN]),
            "bad_batches": self._sample.bad_batches,
        }
        if evolved.dead and self._settings.errors_tolerance != "all":
            self._warnings.append(
                "the table may stop at such records, as streamlake.table.errors.tolerance is "
                + self._settings.errors_tolerance
            )

    def _say_cost(self, metadata: TableMetadata | None, translated: Translated, evolved: Evolved) -> None:
        rows = pipeline.assemble(translated, evolved)
        interval_ms = self._settings.commit_interval_ms
        cost: dict[str, Any] = {
            "commits_per_hour_max": max(1, 3_600_000 // interval_ms),
            "requests_per_commit": REQUESTS,
        }
        if len(rows):
            properties = metadata.properties if metadata is not None else {}
            spec, _ = self._spec(metadata, evolved.schema)
            try:
                files = pipeline.write(rows, evolved.schema, spec, lambda folder: folder, properties)
            except NotPartitionable as error:
                self._warnings.append(str(error))
                files = pipeline.write(rows, evolved.schema, PartitionSpec(), lambda folder: folder, properties)
            size_bytes = sum(file.data_file.file_size_in_bytes for file in files)
            cost["bytes_per_row"] = round(size_bytes / len(rows), 1)
            cost["files_in_sample"] = len(files)
            times = self._sample.records["timestamp"].to_pylist()
            seconds = (max(times) - min(times)) / 1000
            if seconds >= 1 and len(rows) > 1:
                per_second = len(rows) / seconds
                cost["rows_per_second"] = round(per_second, 2)
                cost["bytes_per_hour"] = round(per_second * 3600 * size_bytes / len(rows))
        self._parts["cost"] = cost

    def _warn(self) -> None:
        kept = self._tools.capabilities
        if not kept.keeps_tags or not kept.keeps_history:
            self._warnings.append("the catalog keeps no tags or no history of tables, so there is no time travel")
        if self._sample.bad_batches:
            self._warnings.append(f"{self._sample.bad_batches} batches of the sample cannot be parsed by anybody")


def _with_text_headers(batch: Any) -> Any:

    headers, _ = convert_headers.convert(batch.column("headers"))
    return batch.set_column(batch.schema.get_field_index("headers"), "headers", headers)


def _change(before: Any, after: Any) -> str:
    """Of a column of a table that exists."""
    if before is None:
        return "added"
    if before.name != after.name:
        return f"renamed from {before.name}"
    return "" if before.field_type == after.field_type else f"was {type_text(before.field_type, SPARK)}"
