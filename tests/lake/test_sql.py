"""DuckDB with its Iceberg extension, and views of a server's tables."""

import sys

import duckdb
import pytest
from support.lake import create_topic, produce
from support.wait import DEADLINE_S

from streamlake.core.errors import Invalid
from streamlake.lake.sql import connect, refresh, tables, tables_named


def test_nothing_is_downloaded():
    connection = connect()
    loaded = connection.execute("SELECT extension_name FROM duckdb_extensions() WHERE loaded").fetchall()
    assert {("avro",), ("httpfs",), ("iceberg",)} <= set(loaded)
    assert connection.execute("SELECT current_setting('TimeZone')").fetchone() == ("UTC",)


def test_python_variables_are_no_tables():
    reports = [1]
    with pytest.raises(duckdb.CatalogException, match="Table with name reports does not exist"):
        connect().execute("SELECT * FROM reports")
    assert reports


def test_without_duckdb_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(Invalid, match=r"needs DuckDB: pip install 'streamlake-server\[sql\]'"):
        connect()


def test_the_tables_of_a_statement():
    connection = connect()
    assert tables_named(connection, "SELECT * FROM b, a") == ['"a"', '"b"']
    assert tables_named(connection, 'SELECT (SELECT 1 FROM c) FROM "a.b" JOIN other.t USING (x)') == [
        '"a.b"', '"c"', '"other"."t"',
    ]  # fmt: skip
    assert tables_named(connection, "CREATE TABLE x AS SELECT * FROM a") == ["a"]
    assert tables_named(connection, "SELECT 1") is None
    assert tables_named(connection, "SELEC") is None


def test_refresh_shows_the_newest_rows(lake, topic):
    name, connection = create_topic(lake, topic(), convert_value_type="string"), connect()
    for count in (1, 3):
        produce(lake, name, [b"x"] * (count - len(rows(connection, lake, name))))
        lake.wait_for(name, count, timeout_s=DEADLINE_S)
        assert len(rows(connection, lake, name)) == count


def rows(connection, lake, name):
    refresh(connection, lake.http_url)
    if not next(t for t in tables(lake.http_url) if t["topic"] == name)["metadata_location"]:
        return []
    return connection.execute(f'SELECT * FROM "{name}"').fetchall()
