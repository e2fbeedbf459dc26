"""The endpoint of a real server: its tables, and commits that are made for the one who asks."""

import warnings

import duckdb
import pyarrow as pa
import pytest
from pyiceberg.catalog.rest import RestCatalog
from support.lake import create_topic, produce
from support.wait import DEADLINE_S, wait_until

from streamlake.lake.endpoint import Endpoint
from streamlake.lake.names import Name
from streamlake.lake.sql import connect

LATE_MS = 900_000


@pytest.fixture
def late(lake, topic):
    """A topic whose table has one row, and commits no other by itself."""
    name = create_topic(lake, topic(), convert_value_type="string", commit_interval_ms=str(LATE_MS))
    produce(lake, name, [b"a"])
    lake.wait_for(name, 1, timeout_s=DEADLINE_S)
    return name


def test_sql_has_all_rows_that_were_acknowledged(lake, late):
    for count in (2, 3):
        produce(lake, late, [b"more"])
        with warnings.catch_warnings(action="error"):  # at once, unless a commit takes longer than loads wait
            wait_until(lambda: lake.sql(f'SELECT count(*) FROM "{late}"').fetchone() == (count,))  # noqa: B023


def test_any_engine_may_ask(lake, late):
    produce(lake, late, [b"b"])
    rest = RestCatalog("any", uri=lake.catalog_uri)

    def values():
        return sorted(rest.load_table(("default", late)).scan().to_arrow()["value"].to_pylist())

    wait_until(lambda: values() == ["a", "b"])


def test_tables_and_where_their_metadata_are(lake, late):
    problems: list[str] = []
    endpoint = Endpoint(lake.http_url, None, problems.append)
    assert Name("default", late) in endpoint.tables("sql")
    assert endpoint.newest("sql", Name("default", late)).endswith(".metadata.json")
    assert endpoint.newest("sql", Name("default", "nowhere")) is None
    assert problems == []


def test_a_catalog_that_is_not_served_has_no_tables(lake, late):
    problems: list[str] = []
    endpoint = Endpoint(lake.http_url, None, problems.append)
    assert endpoint.newest("no-such-catalog", Name("default", late)) is None
    assert endpoint.tables("no-such-catalog") == []
    assert problems == []


def test_nested_namespaces(lake):
    catalog = RestCatalog("any", uri=lake.catalog_uri)
    catalog.create_namespace_if_not_exists("outer")
    catalog.create_namespace_if_not_exists(("outer", "in ner"))
    schema = pa.schema([("n", pa.int64())])
    catalog.create_table(("outer", "in ner", "a/b"), schema)
    endpoint, name = Endpoint(lake.http_url, None, pytest.fail), Name("outer.in ner", "a/b")
    assert name in endpoint.tables("sql")
    assert endpoint.newest("sql", name).endswith(".metadata.json")


def test_attached_for_reading_unless_asked(lake, late):
    for writable in (False, True):
        connection = connect()
        endpoint = Endpoint(lake.http_url, None, pytest.fail)
        for _ in range(2):  # as every statement does
            endpoint.attach(connection, "sql", writable)
        assert connection.execute(f'SELECT value FROM sql.default."{late}"').fetchone() == ("a",)
        create = f'CREATE TABLE sql.default."own-{late}" AS SELECT 1 AS n'
        if writable:
            connection.execute(create)
        else:
            with pytest.raises(duckdb.Error, match="read-only"):
                connection.execute(create)
        connection.close()


def test_a_server_that_is_away_is_said_once():
    problems: list[str] = []
    endpoint = Endpoint("http://127.0.0.1:9", None, problems.append)
    assert [endpoint.newest("sql", Name("default", "t")) for _ in range(2)] == [None, None]
    assert endpoint.tables("sql") == []
    assert len(problems) == 1 and problems[0].startswith("rows that are not committed yet are missing")
    assert "no StreamLake server answers" in problems[0]
    endpoint.try_again()
    assert endpoint.newest("sql", Name("default", "t")) is None
    assert len(problems) == 2, "the next statement is told as well"
