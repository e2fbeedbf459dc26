"""The messages of `streamlake bench table` are what a serializer would send. The runs are in test_bench.py."""

import io
from datetime import date
from decimal import Decimal

import fastavro
import pytest

from streamlake.cli.bench_table import MESSAGE_BYTES, SCHEMA, TableThroughput, orders, require_tables
from streamlake.core.errors import Unavailable


def test_orders_are_avro_of_the_size_that_was_promised():
    made = orders(7)
    assert len(set(made)) == len(made) == 1000
    assert {len(m) for m in made} == {MESSAGE_BYTES}
    assert made[3][:5] == b"\0\0\0\0\7"
    order = fastavro.schemaless_reader(io.BytesIO(made[3][5:]), fastavro.parse_schema(SCHEMA), None)
    assert (order["id"], order["user"], order["due"], order["price"]) == (
        3,
        "user-3",
        date(2024, 1, 4),
        Decimal("237.57"),
    )
    assert order["tags"] == ["a", "bb"]


def test_the_rate_counts_from_the_first_commit():
    found = TableThroughput(rows=1100, bytes=1100 << 20, first_rows=100, first_s=3.0, seconds=5.0)
    assert found.rows_per_s == 500
    assert found.mib_per_s == 500
    assert TableThroughput(rows=100, bytes=100, first_rows=100, first_s=2.0, seconds=2.0).rows_per_s == 50


def test_without_streamlake_it_says_so():
    with pytest.raises(Unavailable, match="tables need StreamLake"):
        require_tables("http://127.0.0.1:1")
