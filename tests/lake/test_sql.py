"""DuckDB with its Iceberg extension, and views of a server's tables."""

import socket
import sys
import threading
import uuid
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import duckdb
import pyarrow as pa
import pytest
from pyiceberg.catalog.rest import RestCatalog
from support.lake import create_topic, produce
from support.server import Server
from support.wait import DEADLINE_S, wait_until

from streamlake.core.errors import Invalid, Unavailable
from streamlake.lake.sql import Session, connect, refresh, tables


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


def test_refresh_shows_the_newest_rows(lake, topic):
    name, connection = create_topic(lake, topic(), convert_value_type="string"), connect()
    for count in (1, 3):
        produce(lake, name, [b"x"] * (count - len(rows(connection, lake, name))))
        lake.wait_for(name, count, timeout_s=DEADLINE_S)
        assert len(rows(connection, lake, name)) == count


@pytest.fixture
def session(lake):
    session = Session(lake.http_url, None, pytest.fail)
    yield session
    session.connection.close()


def ask(session, query):
    return session.run(query, lambda text: session.connection.execute(text).fetchall())


@pytest.fixture
def own(lake):
    """A table of no topic, of a name of its own, with the rows 1 and 2."""
    name = f"own_{uuid.uuid4().hex[:8]}"
    catalog = RestCatalog("any", uri=lake.catalog_uri)
    rows = pa.table({"n": [1, 2]})
    catalog.create_namespace_if_not_exists("others")
    catalog.create_table(("others", name), rows.schema).append(rows)
    return name


def test_tables_of_no_topic(lake, session, own):
    assert ask(session, f"SELECT sum(n) FROM others.{own}") == [(3,)]
    assert f"others.{own}" in [".".join(table.name) for table in session.tables()]
    assert (own,) in ask(session, "SELECT table_name FROM information_schema.tables WHERE table_schema = 'others'")


def test_a_catalog_that_is_named_is_attached(lake, session, own, topic):
    assert ask(session, f"SELECT sum(n) FROM sql.others.{own}") == [(3,)]
    with pytest.raises(duckdb.Error, match="read-only"):
        ask(session, f"INSERT INTO sql.others.{own} VALUES (3)")
    writing = Session(lake.http_url, None, pytest.fail, writable=True)
    ask(writing, f"INSERT INTO sql.others.{own} VALUES (3)")
    assert ask(session, f"SELECT sum(n) FROM others.{own}") == [(6,)]


def test_older_snapshots_and_copies(lake, topic):
    session = Session(lake.http_url, None, pytest.fail, writable=True)
    name = create_topic(lake, topic(), convert_value_type="string", commit_interval_ms="900000")
    produce(lake, name, [b"x"])
    lake.wait_for(name, 1, timeout_s=DEADLINE_S)
    old = ask(session, f'SELECT snapshot_id FROM iceberg_snapshots(sql.default."{name}") ORDER BY sequence_number')[-1]
    with pytest.raises(Invalid, match=r'"sql"\.NAMESPACE\.NAME AT'):
        ask(session, f'FROM "{name}" AT (VERSION => {old[0]})')
    assert ask(session, f'SELECT value FROM sql.default."{name}" AT (VERSION => {old[0]})') == [("x",)]
    produce(lake, name, [b"y"])
    wait_until(lambda: ask(session, f'SELECT count(*) FROM "{name}"') == [(2,)])
    produce(lake, name, [b"z"])

    def copied():  # at once, unless a commit takes longer than loads wait
        ask(session, f'CREATE OR REPLACE TABLE copied AS SELECT value FROM "{name}"')
        return ask(session, "FROM copied ORDER BY 1")

    wait_until(lambda: copied() == [("x",), ("y",), ("z",)])
    assert ask(session, f"SELECT count(*) FROM sql.default.\"{name}\" AT (TIMESTAMP => TIMESTAMP '2100-01-01')") == [
        (3,)
    ]


def test_a_table_in_another_catalog(tmp_path):
    archive = f'[catalogs.archive]\nkind = "sql"\nproperties.uri = "sqlite:///{tmp_path}/archive.db"\n'
    server = Server(tmp_path / "data", f'{archive}properties.warehouse = "file://{tmp_path}/archive"\n').start()
    try:
        create_topic(server, "old", convert_value_type="string", catalog="archive")
        produce(server, "old", [b"x"])
        server.wait_for_table("old", 1)
        session = Session(server.http, None, pytest.fail)
        assert ask(session, "SELECT value FROM old") == [("x",)]
        assert ("archive", "old") in [(table.catalog, table.name.table) for table in session.tables()]
        session.connection.close()
    finally:
        assert server.stop() == 0


def test_the_default_schema_can_be_changed(session, own):
    ask(session, "USE sql.others")
    assert ask(session, f"SELECT sum(n) FROM {own}") == [(3,)]
    assert ask(session, "SELECT 1") == [(1,)]
    assert ask(session, f"SELECT sum(n) FROM {own}") == [(3,)]


def test_a_table_of_the_session_stays_and_is_told(lake, topic):
    problems, name = [], topic()
    session = Session(lake.http_url, None, problems.append)
    ask(session, f"CREATE TABLE \"{name}\" AS SELECT 'mine' AS value")
    create_topic(lake, name, convert_value_type="string")
    produce(lake, name, [b"x"])
    lake.wait_for(name, 1, timeout_s=DEADLINE_S)
    assert ask(session, f'SELECT value FROM "{name}"') == [("mine",)]
    assert ask(session, f'SELECT value FROM sql.default."{name}"') == [("x",)]
    assert problems[0] == f'"default"."{name}" is a table of this session; that of the lake is "sql"."default"."{name}"'


def test_the_first_commit_is_waited_for(lake, session, topic):
    name = create_topic(lake, topic(), convert_value_type="string")
    produce(lake, name, [b"x"])

    def rows():
        try:
            return ask(session, f'SELECT value FROM "{name}"')
        except Invalid:  # a machine so busy that it took longer
            return []

    assert wait_until(rows) == [("x",)]


@pytest.mark.parametrize("body", ["[]", "nonsense", '{"subjects": []}', "1"])
def test_another_servers_answer(body):
    with http_server(body) as address, pytest.raises(Unavailable, match=f"what answers at {address} is no StreamLake"):
        tables(address)


def test_a_server_that_speaks_no_http():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        threading.Thread(target=lambda: server.accept()[0].sendall(b"no HTTP\r\n\r\n")).start()
        with pytest.raises(Unavailable, match=f"what answers at {address} is no StreamLake"):
            tables(address)


@contextmanager
def http_server(body):
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def rows(connection, lake, name):
    refresh(connection, lake.http_url)
    if not next(t for t in tables(lake.http_url) if t["topic"] == name)["metadata_location"]:
        return []
    return connection.execute(f'SELECT * FROM "{name}"').fetchall()
