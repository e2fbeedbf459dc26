"""Bounds hold every value of their file, whatever the values are, and are ones that every reader can parse."""

import math
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.conversions import from_bytes
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC
from pyiceberg.schema import Schema
from pyiceberg.types import BinaryType, DoubleType, FloatType, LongType, NestedField, StringType, StructType

from streamlake.table.rows import writer
from streamlake.table.rows.column_metrics import next_text
from streamlake.table.rows.project import table_schema
from streamlake.table.rows.writer import write

SCHEMA = Schema(
    NestedField(1, "text", StringType()),
    NestedField(2, "raw", BinaryType()),
    NestedField(3, "id", LongType()),
    NestedField(4, "f", DoubleType()),
    NestedField(
        5,
        "in",
        StructType(
            NestedField(6, "text", StringType()),
            NestedField(7, "raw", BinaryType()),
            NestedField(8, "f", FloatType()),
        ),
    ),
)
EDGES = st.text(st.sampled_from("a\ud7ff\ue000\uffff\U00010000\U0010ffff"), max_size=20)
TEXTS = st.none() | EDGES | st.text(max_size=40) | st.text("xyz", min_size=5_000, max_size=5_001)
BYTES = st.none() | st.binary(max_size=40) | st.lists(st.sampled_from([0xFE, 0xFF]), max_size=20).map(bytes)
FLOATS = st.none() | st.floats(width=32)
ROWS = st.lists(st.tuples(TEXTS, BYTES, FLOATS, st.booleans()), min_size=1, max_size=6)


def row(text=None, raw=None, f=None, nested=True):
    return {"text": text, "raw": raw, "id": 1, "f": f, "in": {"text": text, "raw": raw, "f": f} if nested else None}


def entry(rows, properties=None, schema=SCHEMA):
    target = table_schema(schema)
    arrays = [pa.array([r[field.name] for r in rows], field.type) for field in target]
    table = pa.Table.from_arrays(arrays, schema=target)
    (file,) = write(table, schema, UNPARTITIONED_PARTITION_SPEC, lambda _: "/f.parquet", properties or {})
    return file.data_file


def bounds(data_file, id):
    type = SCHEMA.find_type(id)
    found = (data_file.lower_bounds.get(id), data_file.upper_bounds.get(id))
    return tuple(None if bound is None else from_bytes(type, bound) for bound in found)


@given(ROWS, st.sampled_from(["truncate(1)", "truncate(16)", "full", "counts"]), st.sampled_from([1, 2, 1 << 20]))
def test_bounds_hold_every_value(rows, mode, group_rows) -> None:
    with pytest.MonkeyPatch.context() as patch:
        plain = writer.parquet_settings
        patch.setattr(writer, "parquet_settings", lambda table: {**plain(table), "row_group_size": group_rows})
        found = entry([row(*r) for r in rows], {"write.metadata.metrics.default": mode})
    columns = {1: 0, 2: 1, 4: 2, 6: 0, 7: 1, 8: 2}
    for id, at in columns.items():
        values = [r[at] for r in rows if r[at] is not None and (id < 5 or r[3])]
        numbers = [v for v in values if not (isinstance(v, float) and math.isnan(v))]
        if id in (4, 8):
            assert found.nan_value_counts[id] == len(values) - len(numbers)
        assert found.null_value_counts[id] == len(rows) - len(values)
        lower, upper = bounds(found, id)
        assert lower is None or (len(numbers) == len(values) and all(lower <= v for v in values)), (id, lower, values)
        assert upper is None or (len(numbers) == len(values) and all(v <= upper for v in values)), (id, upper, values)


@given(EDGES)
def test_next_text_is_above_all_that_begin_with_the_text(text) -> None:
    following = next_text(text)
    if following is None:
        assert set(text) <= {"\U0010ffff"}
    else:
        assert text + "\U0010ffff" * 3 < following
        assert len(following.encode()) > 0
        assert len(following) <= len(text)


def test_metrics_are_complete_also_in_structs() -> None:
    found = entry([row("ü", b"\0\xff", 0.5), row("p", b"", -1.25), row(nested=False)])
    assert (found.record_count, found.null_value_counts[1], found.null_value_counts[6]) == (3, 1, 1)
    assert [bounds(found, id) for id in (1, 2, 3, 6, 8)] == [
        ("p", "ü"), (b"", b"\0\xff"), (1, 1), ("p", "ü"), (-1.25, 0.5),
    ]  # fmt: skip


def test_text_bounds_are_cut() -> None:
    found = entry([row("x" * 99)])
    assert bounds(found, 1) == bounds(found, 6) == ("x" * 16, "x" * 15 + "y")


def test_one_row_group_without_bounds_takes_them_from_the_column(monkeypatch) -> None:
    plain = writer.parquet_settings
    monkeypatch.setattr(writer, "parquet_settings", lambda table: {**plain(table), "row_group_size": 1})
    found = entry([row("a"), row("z" * 5_000), row("c")])
    assert bounds(found, 1) == (None, None)
    assert bounds(found, 3) == (1, 1)


def test_table_properties_choose_the_metrics() -> None:
    rows = [row("a", b"b", 1.0)]
    assert not entry(rows, {"write.metadata.metrics.default": "counts"}).lower_bounds
    one = entry(rows, {"write.metadata.metrics.column.in.text": "none"})
    assert {6, 7} & one.lower_bounds.keys() == {7}


@pytest.mark.parametrize("mode", ["truncate(0)", "truncate(16", "sometimes", ""])
def test_a_malformed_mode_counts_as_not_set(mode) -> None:
    found = entry([row("a")], {f"write.metadata.metrics.{key}": mode for key in ("default", "column.text")})
    assert bounds(found, 1) == ("a", "a")


def test_filters_find_rows_with_nan(tmp_path: Path) -> None:
    """DuckDB and PyIceberg, by the files' metrics and by Parquet's own statistics."""
    values = [3.0, math.nan, 3.0]
    catalog = SqlCatalog("c", uri=f"sqlite:///{tmp_path}/c.db", warehouse=f"file://{tmp_path}/w")
    catalog.create_namespace("n")
    table = catalog.create_table("n.t", SCHEMA)
    target = table_schema(table.schema())
    rows = pa.Table.from_pylist([row(f=v) for v in values], schema=target)
    path = tmp_path / "f.parquet"
    (file,) = write(rows, table.schema(), table.spec(), lambda _: str(path), {})
    path.write_bytes(file.data.to_pybytes())
    with table.transaction() as transaction, transaction.update_snapshot().fast_append() as append:
        append.append_data_file(file.data_file)
    table = catalog.load_table("n.t")
    assert [len(table.scan(f).to_arrow()) for f in ("f != 3.0", "f is nan", "f is not nan", "f > 10.0")] == [1, 1, 2, 0]
    with duckdb.connect() as db:
        for where, count in {"f <> 3": 1, "f > 10": 1, "f = 'nan'::DOUBLE": 1, "isnan(f)": 1, "f < 4": 2}.items():
            found = db.execute(f"SELECT count(*) FROM read_parquet(?) WHERE {where}", [str(path)]).fetchone()
            assert found == (count,), where
    catalog.close()
