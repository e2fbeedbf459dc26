"""Rows as a table, CSV or JSON, and what DuckDB's values become."""

import csv
import io
import json
import os
import signal
import threading

import pytest

from streamlake.cli import sql_output
from streamlake.cli.sql_output import ROWS_SHOWN, Format
from streamlake.lake.sql import connect


class Session:
    """Without a server."""

    def __init__(self):
        self.connection = connect()

    def run(self, query, execute):
        return execute(query)


@pytest.fixture
def shown(capsys):
    session = Session()

    def run(statement, format):
        sql_output.run(session, statement, format)
        return capsys.readouterr().out

    return run


class InterruptedSession(Session):
    """Ctrl-C comes while DuckDB works in the main thread, before the statement is executed."""

    def run(self, query, execute):
        while True:
            pressing = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
            try:
                pressing.start()
                self.connection.execute("SELECT count(*) FROM range(1_000_000) a, range(2000) b")
            except KeyboardInterrupt:
                continue  # DuckDB had not begun, or did not look for it


def test_ctrl_c_before_a_statement_is_executed():
    """DuckDB raises RuntimeError then, which ended the command with a traceback, and 1."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            sql_output.run(InterruptedSession(), "SELECT 1", Format.CSV)
    finally:
        signal.signal(signal.SIGINT, before)


VALUES = """SELECT 1.50::DECIMAL(9, 2) AS d, 9007199254740993 AS big, 'infinity'::TIMESTAMP AS i, NULL AS z,
    TIMESTAMP_NS '2020-01-01 00:00:00.123456789' AS ns, '\\xFFa'::BLOB AS b, [1, NULL] AS l, {'a': 'x,"y'} AS s,
    TIMESTAMPTZ '2020-01-01 00:00:00' AS tz, E'two\nlines, "quoted"' AS t, false AS f"""


def test_csv(shown):
    (row,) = csv.DictReader(io.StringIO(shown(VALUES, Format.CSV)))
    assert row == {
        "d": "1.50", "big": "9007199254740993", "i": "infinity", "z": "", "ns": "2020-01-01 00:00:00.123456789",
        "b": "\\xFFa", "l": "[1, NULL]", "s": "{'a': 'x,\"y'}", "tz": "2020-01-01 00:00:00+00",
        "t": 'two\nlines, "quoted"', "f": "false",
    }  # fmt: skip


def test_json(shown):
    (row,) = json.loads(shown(VALUES, Format.JSON))
    assert row == {
        "d": 1.5, "big": 9007199254740993, "i": "infinity", "z": None, "ns": "2020-01-01 00:00:00.123456789",
        "b": "\\xFFa", "l": [1, None], "s": {"a": 'x,"y'}, "tz": "2020-01-01 00:00:00+00",
        "t": 'two\nlines, "quoted"', "f": False,
    }  # fmt: skip


def test_all_rows_in_their_order_for_programs(shown):
    query = f"SELECT x AS n FROM range({3 * ROWS_SHOWN}) t(x) ORDER BY x DESC -- a comment"
    numbers = list(reversed(range(3 * ROWS_SHOWN)))
    assert [int(line) for line in shown(query, Format.CSV).splitlines()[1:]] == numbers
    assert [row["n"] for row in json.loads(shown(query, Format.JSON))] == numbers


def test_a_table_has_an_end_and_says_so(capsys):
    sql_output.run(Session(), f"SELECT x AS n FROM range({ROWS_SHOWN + 1}) t(x)", Format.TEXT)
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 1 + ROWS_SHOWN
    assert f"the first {ROWS_SHOWN:,} rows" in printed.err and "-o csv" in printed.err


@pytest.mark.parametrize(("format", "empty"), [(Format.CSV, "n\n"), (Format.JSON, "[]\n"), (Format.TEXT, "n\n")])
def test_no_rows(shown, format, empty):
    assert shown("SELECT 1 AS n WHERE false", format) == empty


def test_statements_that_are_no_queries(shown):
    assert shown("CREATE TABLE t (n INT)", Format.CSV) == "Count\n"
    assert json.loads(shown("INSERT INTO t VALUES (1), (2)", Format.JSON)) == [{"Count": 2}]
    assert json.loads(shown("PRAGMA version", Format.JSON))[0]["library_version"].startswith("v")
    assert json.loads(shown("SHOW TABLES", Format.JSON)) == [{"name": "t"}]
    assert json.loads(shown("DESCRIBE t", Format.JSON))[0]["column_name"] == "n"
    assert shown("PIVOT (SELECT 1 AS a, 2 AS b) ON a USING sum(b)", Format.CSV) == "1\n2\n"
    for format in Format:
        assert shown("-- nothing", format) == ""


def test_columns_of_the_same_name_are_all_there(shown):
    assert json.loads(shown("SELECT 1 AS a, 2 AS a", Format.JSON)) == [{"a": 1, "a_1": 2}]


def test_numbers_that_json_does_not_have(shown):
    text = shown("SELECT 'nan'::DOUBLE AS n, 'inf'::DOUBLE AS i", Format.JSON)
    assert json.loads(text, parse_constant=pytest.fail)
