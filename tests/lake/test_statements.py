"""Statements as DuckDB reads them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlake.lake.sql import connect
from streamlake.lake.statements import query_trees, split, tables_named


@pytest.fixture(scope="module")
def connection():
    return connect()


@pytest.mark.parametrize(
    ("statement", "names"),
    [
        ("SELECT * FROM b, a", ['"a"', '"b"']),
        ('SELECT (SELECT 1 FROM c) FROM "a.b" JOIN other.t USING (x)', ['"a.b"', '"c"', '"other"."t"']),
        ("DESCRIBE ns.x", ['"ns"."x"']),
        ("CREATE TABLE x AS SELECT * FROM a", ['"a"']),
        ("CREATE TABLE sql.ns.t AS WITH c AS (FROM a) SELECT * FROM c, b", ['"a"', '"b"', '"c"']),
        ("INSERT INTO t SELECT 'ö' FROM ns.x", ['"ns"."x"']),
        ("CREATE VIEW v AS FROM ns.x", ['"ns"."x"']),
        ("DELETE FROM ns.x WHERE n > 1", ['"ns"."x"']),
        ("COPY (SELECT * FROM a) TO 'x'", ["a"]),
        ("SELECT 1", []),
        ("SET threads = 1", []),
        ("BEGIN", []),
        ("SHOW TABLES", None),
        ("FROM duckdb_views()", None),
        ("FROM information_schema.tables", None),
        ("UPDATE t SET n = 1", None),
        ("INSERT INTO t VALUES (1)", None),
    ],
)
def test_the_tables_of_a_statement(connection, statement, names):
    assert tables_named(connection, statement) == names


def test_only_queries_have_trees(connection):
    assert query_trees(connection, "FROM a")
    for statement in ("SELEC", "CREATE TABLE t (x INT)", "PRAGMA version"):
        assert query_trees(connection, statement) is None


@pytest.mark.parametrize(
    ("text", "statements", "rest"),
    [
        ("SELECT 1; SELECT 2", ["SELECT 1"], "SELECT 2"),
        ("SELECT ';' AS \"a;b\", $$;$$; -- ;", ["SELECT ';' AS \"a;b\", $$;$$"], "-- ;"),
        ("/* ; */ SELECT 1;;\n;", ["/* ; */ SELECT 1"], ""),
        ("SELECT 'öß;'; SELECT 'ö", ["SELECT 'öß;'"], "SELECT 'ö"),
        ("SELECT 'a;", [], "SELECT 'a;"),
        ("", [], ""),
    ],
)
def test_split(text, statements, rest):
    assert split(text) == (statements, rest)


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))))
def test_any_text_in_quotes_is_split_where_it_ends(texts):
    statements = ["SELECT '" + text.replace("'", "''") + "'" for text in texts]
    assert split(";".join([*statements, ""])) == (statements, "")
