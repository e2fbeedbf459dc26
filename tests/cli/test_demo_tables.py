"""The demo's data are what they say, and fit their schemas."""

import io
import json

import fastavro
import pytest

from streamlake.cli.demo_tables import TABLES


@pytest.mark.parametrize("table", TABLES[:4], ids=lambda t: t.name)
def test_rows_and_schema(table):
    schema = fastavro.parse_schema(json.loads(table.avro_schema()))
    rows = 0
    for record in table.records():
        rows += 1
        if rows <= 500:
            assert fastavro.validate(record, schema)
            fastavro.schemaless_writer(io.BytesIO(), schema, record)
    assert rows == table.rows


def test_flights_begin_as_expected():
    record = next(TABLES[4].records())
    assert record["carrier"]
    assert record["time_hour"].tzinfo is not None
