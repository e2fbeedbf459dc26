"""Files read back the same with pyiceberg and with DuckDB, and carry the metrics that readers skip by."""

from datetime import UTC, date, datetime, time
from decimal import Decimal
from itertools import accumulate
from pathlib import Path
from uuid import UUID

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC
from pyiceberg.schema import Schema
from pyiceberg.typedef import Record
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    FixedType,
    FloatType,
    IntegerType,
    ListType,
    LongType,
    MapType,
    NestedField,
    StringType,
    StructType,
    TimestampType,
    TimestamptzType,
    TimeType,
    UUIDType,
)

from streamlake.cluster.config.table import partition_fields
from streamlake.table.rows.partition import partition_spec
from streamlake.table.rows.project import table_schema
from streamlake.table.rows.writer import write

POINT = StructType(NestedField(31, "x", IntegerType()), NestedField(32, "s", StringType()))
SCHEMA = Schema(
    NestedField(1, "flag", BooleanType()),
    NestedField(2, "n", IntegerType()),
    NestedField(3, "id", LongType()),
    NestedField(4, "f", FloatType()),
    NestedField(5, "d", DoubleType()),
    NestedField(6, "name", StringType()),
    NestedField(7, "raw", BinaryType()),
    NestedField(8, "fix", FixedType(2)),
    NestedField(9, "day", DateType()),
    NestedField(10, "at", TimeType()),
    NestedField(11, "ts", TimestamptzType()),
    NestedField(12, "local", TimestampType()),
    NestedField(13, "price", DecimalType(9, 2)),
    NestedField(14, "big", DecimalType(38, 10)),
    NestedField(15, "key", UUIDType()),
    NestedField(30, "point", POINT),
    NestedField(40, "tags", ListType(41, StringType(), element_required=False)),
    NestedField(50, "attrs", MapType(51, StringType(), 52, StructType(NestedField(53, "v", LongType())), value_required=False)),
)  # fmt: skip
ROW = {
    "flag": True, "n": -5, "id": 2**62, "f": 0.5, "d": -1.25, "name": "ü", "raw": b"\0\xff", "fix": b"ab",
    "day": date(2013, 1, 2), "at": time(1, 2, 3, 4), "ts": datetime(2013, 1, 2, 3, tzinfo=UTC),
    "local": datetime(1, 1, 1), "price": Decimal("-0.01"), "big": Decimal("9" * 28 + "." + "9" * 10),
    "key": UUID(int=7), "point": {"x": 1, "s": "p"}, "tags": ["a", None, "b"], "attrs": [("k", {"v": 9}), ("l", None)],
}  # fmt: skip
EMPTY = dict.fromkeys(ROW)
EXTREME = {
    **EMPTY,
    "day": date(9999, 12, 31),
    "ts": datetime(9999, 12, 31, 23, 59, 59, 999_999, UTC),
    "d": float("inf"),
    "tags": [],
    "attrs": [],
}
ROWS = [ROW, EMPTY, EXTREME]


def arrow(rows, schema=SCHEMA):
    target = table_schema(schema)
    return pa.Table.from_arrays([pa.array([row[f.name] for row in rows], f.type) for f in target], schema=target)


def as_pyiceberg_reads(rows):
    """pyiceberg 0.12 reads a null map as an empty one, whoever wrote it; the file itself says null (DuckDB's test)."""
    return [{**row, "attrs": row["attrs"] or []} for row in rows]


def written(table, spec=UNPARTITIONED_PARTITION_SPEC, properties=None, **options):
    return list(write(table, SCHEMA, spec, lambda folder: f"/w/{folder}/f.parquet", properties or {}, **options))


@pytest.fixture
def catalog(tmp_path: Path):
    found = SqlCatalog("c", uri=f"sqlite:///{tmp_path}/c.db", warehouse=f"file://{tmp_path}/w")
    found.create_namespace("n")
    yield found
    found.close()


def stored(catalog, tmp_path: Path, rows, by=""):
    """A table with the rows as our files, and the files' paths."""
    table = catalog.create_table("n.t", SCHEMA)
    schema = table.schema()
    if by:
        catalog.drop_table("n.t")
        table = catalog.create_table("n.t", SCHEMA, partition_spec=partition_spec(schema, partition_fields(by))[0])
    count = iter(range(100))
    files = list(
        write(
            arrow(rows, table.schema()),
            table.schema(),
            table.spec(),
            lambda folder: f"{tmp_path}/{next(count)}.parquet",
            {},
        )
    )
    for file in files:
        Path(file.data_file.file_path).write_bytes(file.data.to_pybytes())
    with table.transaction() as transaction, transaction.update_snapshot().fast_append() as append:
        for file in files:
            append.append_data_file(file.data_file)
    return catalog.load_table("n.t"), [file.data_file.file_path for file in files]


def test_reads_back_identical_with_pyiceberg_and_duckdb(catalog, tmp_path: Path) -> None:
    rows = ROWS * 50
    table, paths = stored(catalog, tmp_path, rows)
    assert table.scan().to_arrow().to_pylist() == as_pyiceberg_reads(rows)
    with duckdb.connect() as db:
        db.execute("SET TimeZone='UTC'")
        found = db.execute("SELECT * FROM read_parquet(?)", [paths]).to_arrow_table().to_pylist()
        plain = (
            "flag",
            "n",
            "id",
            "f",
            "d",
            "name",
            "raw",
            "day",
            "at",
            "ts",
            "local",
            "price",
            "big",
            "point",
            "tags",
            "attrs",
        )
        assert [{k: row[k] for k in plain} for row in found] == [{k: row[k] for k in plain} for row in rows]
        assert db.execute("SELECT fix, key::VARCHAR FROM read_parquet(?) LIMIT 1", [paths]).fetchall() == [
            (b"ab", str(ROW["key"]))
        ]


@pytest.mark.parametrize(
    "by", ["day(ts)", "bucket(key, 4), id", "truncate(name, 1)", "month(day), hour(local)", "price, fix, raw, at, flag"]
)
def test_partitioned_files_read_back_and_are_pruned(catalog, tmp_path: Path, by) -> None:
    table, paths = stored(catalog, tmp_path, ROWS, by)
    assert len(paths) >= 2
    found = sorted(table.scan().to_arrow().to_pylist(), key=repr)
    assert found == sorted(as_pyiceberg_reads(ROWS), key=repr)
    assert len(list(table.scan("id = 4611686018427387904").plan_files())) == 1
    assert table.scan("id = 4611686018427387904").to_arrow().to_pylist() == [ROW]


def test_encodings_follow_the_data() -> None:
    rows = [
        {**EMPTY, "n": i, "id": i % 3, "d": i / 7, "name": str(i), "raw": b"same", "point": {"x": i, "s": "same"}}
        for i in range(300)
    ]
    (file,) = written(arrow(rows))
    group = pq.ParquetFile(pa.BufferReader(file.data)).metadata.row_group(0)
    encodings = {group.column(i).path_in_schema: set(group.column(i).encodings) for i in range(group.num_columns)}
    assert "DELTA_BINARY_PACKED" in encodings["n"] & encodings["point.x"]
    assert "BYTE_STREAM_SPLIT" in encodings["d"]
    assert "RLE_DICTIONARY" not in encodings["name"]
    assert "RLE_DICTIONARY" in encodings["id"] & encodings["raw"] & encodings["point.s"]
    assert group.column(0).compression == "ZSTD"


def test_field_ids_are_written() -> None:
    (file,) = written(arrow(ROWS))
    ids = {f.name: f.metadata[b"PARQUET:field_id"] for f in pq.ParquetFile(pa.BufferReader(file.data)).schema_arrow}
    assert ids["key"] == b"15"


def test_large_tables_are_split_and_nothing_is_lost() -> None:
    rows = [{**EMPTY, "id": i, "name": "x" * 100} for i in range(1000)]
    files = written(arrow(rows), target_file_bytes=20_000)
    assert len(files) > 5
    assert sum(file.rows for file in files) == 1000
    assert [i for file in files for i in pq.read_table(pa.BufferReader(file.data))["id"].to_pylist()] == list(
        range(1000)
    )


def test_no_rows_no_files() -> None:
    assert written(arrow([])) == []
    assert written(arrow([]), spec=partition_spec(SCHEMA, partition_fields("day(ts)"))[0]) == []


def test_paths_are_asked_for_by_partition() -> None:
    spec, _ = partition_spec(SCHEMA, partition_fields("day(ts)"))
    files = written(arrow(ROWS), spec=spec)
    assert [f.data_file.file_path for f in files] == [
        "/w/ts_day=2013-01-02/f.parquet", "/w/ts_day=null/f.parquet", "/w/ts_day=9999-12-31/f.parquet",
    ]  # fmt: skip
    assert [f.data_file.partition for f in files] == [Record(15707), Record(None), Record(2932896)]


@pytest.mark.parametrize("rows", [[None], [None] * 2000, [[]], [None, [], [None]]], ids=len)
def test_lists_of_structs_with_uuids_may_be_all_null_or_empty(rows) -> None:
    """Arrow cannot make an empty array of such structs, and a table stopped for ever."""
    who = StructType(NestedField(3, "id", UUIDType()))
    schema = Schema(
        NestedField(1, "list", ListType(2, who, element_required=False)),
        NestedField(4, "lists", ListType(5, ListType(6, UUIDType(), element_required=False), element_required=False)),
        NestedField(7, "maps", ListType(8, MapType(9, StringType(), 10, UUIDType()), element_required=False)),
    )
    offsets = pa.array([0, *accumulate(len(row or ()) for row in rows)], pa.int64())
    missing = pa.array([row is None for row in rows])
    target = table_schema(schema)
    table = pa.Table.from_arrays(
        [
            pa.LargeListArray.from_arrays(
                offsets, pa.nulls(offsets[-1].as_py(), field.type.value_type), type=field.type, mask=missing
            )
            for field in target
        ],
        schema=target,
    )
    (file,) = write(table, schema, UNPARTITIONED_PARTITION_SPEC, lambda folder: "/w/f.parquet", {})
    assert pq.read_table(pa.BufferReader(file.data)).to_pydict() == dict.fromkeys(("list", "lists", "maps"), rows)
