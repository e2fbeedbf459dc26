"""The newest metadata of a table, from a real server: commits are made for the one who asks."""

import warnings

import pytest
from pyiceberg.catalog.rest import RestCatalog
from support.lake import create_topic, produce
from support.wait import DEADLINE_S, wait_until

from streamlake.lake.newest import NewestMetadata
from streamlake.lake.views import Name

LATE_MS = 900_000


@pytest.fixture
def late(lake, topic):
    """A topic whose table has one row, and commits no other by itself."""
    name = create_topic(lake, topic(), convert_value_type="string", commit_interval_ms=str(LATE_MS))
    produce(lake, name, [b"a"])
    lake.wait_for(name, 1, timeout_s=DEADLINE_S)
    return name


def report(table, catalog="sql", lag=1):
    return {"table": f"default.{table}", "namespace": "default", "catalog": catalog, "lag": lag}


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


def test_another_catalog_or_table_is_not_told(lake, late):
    problems: list[str] = []
    newest = NewestMetadata(lake.catalog_uri, None, problems.append)
    assert newest(report(late), Name("default", late)).endswith(".metadata.json")
    assert newest(report(late, catalog="archive"), Name("default", late)) is None
    assert newest(report(late), Name("default", "nowhere")) is None
    assert problems == []


def test_the_first_commit_is_waited_for(monkeypatch):
    """Not that of dead letters, which may never come, nor of a topic without records."""
    newest = NewestMetadata("http://127.0.0.1:9/iceberg", None, lambda problem: None)
    monkeypatch.setattr(newest, "_is_served", lambda catalog: True)
    answers = [None, None, "x.metadata.json"]
    monkeypatch.setattr(newest, "_location", lambda catalog, name: answers.pop(0))
    assert newest(report("t"), Name("default", "t")) == "x.metadata.json"
    answers = [None]
    assert newest(report("t"), Name("default", "t__dlq")) is None
    answers = [None]
    assert newest(report("t", lag=0), Name("default", "t")) is None


def test_a_server_that_is_away_is_said_once():
    problems: list[str] = []
    newest = NewestMetadata("http://127.0.0.1:9/iceberg", None, problems.append)
    assert [newest(report("t"), Name("default", "t")) for _ in range(2)] == [None, None]
    assert len(problems) == 1 and problems[0].startswith("rows that are not committed yet are missing: no StreamLake")
