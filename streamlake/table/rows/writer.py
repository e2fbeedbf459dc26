"""Rows → Parquet in memory, with field ids and the column metrics that Iceberg readers skip files by.

Settings are measured, not guessed (docs/guides/tables.md): zstd 1; a dictionary only for columns whose sample repeats
itself, because trying one on unique values costs half of the time; DELTA_BINARY_PACKED for the other integers and
times, BYTE_STREAM_SPLIT for floats. Nothing is stored here: the committer puts the bytes, then commits the DataFile.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.typedef import Record

from streamlake.table.rows.column_metrics import MetricsPlan, column_metrics, float_counts, metrics_plan
from streamlake.table.rows.partition import folder, split

TARGET_FILE_BYTES = 128 << 20  # of Arrow data, so that files are smaller
SAMPLE_RUNS = 16
RUN_ROWS = 64
FEW_ROWS = 100


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A Parquet file that is still in memory, and its entry for the manifest."""

    data: Any  # pa.Buffer
    data_file: DataFile
    rows: int


def write(
    table: Any,
    schema: Schema,
    spec: PartitionSpec,
    path_of: Callable[[str], str],
    properties: Mapping[str, str],
    target_file_bytes: int = TARGET_FILE_BYTES,
) -> Iterator[WrittenFile]:
    """Files for all rows of `table` (of `schema`): at least one for each partition, none for no rows.

    `path_of(folder)` gives each file its full path; `folder` is "" or like "ts_day=2013-01-01". `properties` are the
    table's: `write.metadata.metrics.*` say which bounds are kept. Raises NotPartitionable before the first file."""
    plan = metrics_plan(schema, properties)
    for partition, rows in split(table, schema, spec):
        place = folder(spec, partition, schema)
        for part in _parts(rows, target_file_bytes):
            yield _file(part, plan, path_of(place), partition, spec.spec_id)


def _parts(table: Any, target_file_bytes: int) -> Iterator[Any]:
    if len(table) == 0:
        return
    rows = max(1, len(table) * target_file_bytes // max(1, table.nbytes))
    for start in range(0, len(table), rows):
        yield table.slice(start, rows)


def _file(table: Any, plan: MetricsPlan, path: str, partition: Record, spec_id: int) -> WrittenFile:
    sink = pa.BufferOutputStream()
    metadata: list[Any] = []
    floats = float_counts(table)
    stated = [path for path in plan.ids if path not in floats or not floats[path].nans]
    settings = {**parquet_settings(table), "write_statistics": stated}
    pq.write_table(table, sink, **settings, metadata_collector=metadata)
    data = sink.getvalue()
    data_file = DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=path,
        file_format=FileFormat.PARQUET,
        partition=partition,
        file_size_in_bytes=data.size,
        sort_order_id=None,
        equality_ids=None,
        key_metadata=None,
        **column_metrics(metadata[0], plan, floats),
    )
    data_file.spec_id = spec_id
    return WrittenFile(data, data_file, len(table))


def parquet_settings(table: Any) -> dict[str, Any]:
    """Arguments of pq.write_table. The columns to write with a dictionary, and encodings for others that have a better
    one than PLAIN, come from a sample of `table`."""
    sample = _sample(table)
    dictionary: list[str] = []
    encodings: dict[str, str] = {}
    for name, column in zip(sample.column_names, sample.columns, strict=True):
        for path, leaf in _leaves(name, column.combine_chunks()):
            if _repeats(leaf):
                dictionary.append(path)
            elif pa.types.is_integer(leaf.type) or pa.types.is_temporal(leaf.type):
                encodings[path] = "DELTA_BINARY_PACKED"
            elif pa.types.is_floating(leaf.type):
                encodings[path] = "BYTE_STREAM_SPLIT"
    return {
        "compression": "zstd",
        "compression_level": 1,
        "use_dictionary": dictionary,
        "column_encoding": encodings,
        "store_decimal_as_integer": True,
        "store_schema": False,  # Arrow's own copy of the schema: field ids and Parquet's types say it all
    }


def _sample(table: Any) -> Any:
    """Runs of rows from all over the table: single rows would cost more to gather than to look at."""
    apart = len(table) // SAMPLE_RUNS
    if apart <= RUN_ROWS:
        return table
    return pa.concat_tables([table.slice(run * apart, RUN_ROWS) for run in range(SAMPLE_RUNS)])


def _leaves(path: str, array: Any) -> Iterator[tuple[str, Any]]:
    """Parquet's columns under an Arrow column, by Parquet's paths."""
    if pa.types.is_struct(array.type):
        for field, child in zip(array.type, array.flatten(), strict=True):
            yield from _leaves(f"{path}.{field.name}", child)
    elif pa.types.is_large_list(array.type):
        # Not flatten(): Arrow makes no empty array of structs with UUIDs, which lists that are all null end in.
        begin, end = array.offsets[0].as_py(), array.offsets[-1].as_py()
        yield from _leaves(f"{path}.list.element", array.values.slice(begin, end - begin))
    elif pa.types.is_map(array.type):
        yield from _leaves(f"{path}.key_value.key", array.keys)
        yield from _leaves(f"{path}.key_value.value", array.items)
    else:
        yield path, array


def _repeats(leaf: Any) -> bool:
    if pa.types.is_boolean(leaf.type) or isinstance(leaf, pa.ExtensionArray):
        return False
    # Most columns show by few of their values that they do not, which is much faster to find out.
    few = leaf[:: max(1, len(leaf) // FEW_ROWS)]
    return _distinct(few) < 1 and _distinct(leaf) <= 0.5


def _distinct(leaf: Any) -> float:
    """Of its values, nulls aside, so many are different; 1 if there is none."""
    values = len(leaf) - leaf.null_count
    return float(pc.count_distinct(leaf).as_py() / values) if values else 1.0
