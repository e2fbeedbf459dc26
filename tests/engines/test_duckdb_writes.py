"""DuckDB attached to the server's catalog: it writes tables of its own, and what it may not do to those of topics."""

from collections.abc import Callable, Iterator
from typing import Any

import duckdb
import pytest
from engines.by_duckdb import attach
from engines.engine import Lake
from engines.topics import EDITED, produce
from pyiceberg.catalog.rest import RestCatalog
from support.server import Server

from streamlake.lake import sql


@pytest.fixture
def lake(new_server: Callable[..., Server]) -> Lake:
    server = new_server().start()
    produce(server, EDITED)
    return Lake(server)


@pytest.fixture
def attached(lake: Lake) -> Iterator[Any]:
    connection = sql.connect()
    attach(connection, lake)
    yield connection
    connection.close()


def test_tables_of_its_own(lake: Lake, attached: Any) -> None:
    attached.execute("CREATE SCHEMA lake.mine")
    attached.execute("CREATE TABLE lake.mine.t (k BIGINT, moment TIMESTAMPTZ, word VARCHAR)")
    attached.execute(
        "INSERT INTO lake.mine.t VALUES (1, '1969-12-31 23:59:59.999999+00', 'a'), (2, NULL, 'b'), (3, NULL, 'c')"
    )
    attached.execute("DELETE FROM lake.mine.t WHERE k = 2")
    attached.execute("UPDATE lake.mine.t SET word = 'd' WHERE k = 3")
    attached.execute("ALTER TABLE lake.mine.t ADD COLUMN more INTEGER")
    attached.execute("CREATE TABLE lake.mine.copy AS SELECT n, word FROM lake.default.edited")
    attached.execute("BEGIN")
    attached.execute("INSERT INTO lake.mine.t (k, more) SELECT n, 7 FROM lake.default.edited WHERE n = 0")
    attached.execute("DELETE FROM lake.mine.copy WHERE n = 0")
    attached.execute("COMMIT")
    catalog = RestCatalog("lake", uri=lake.endpoint)
    rows = catalog.load_table("mine.t").scan(selected_fields=("k", "word", "more")).to_arrow().to_pylist()
    assert sorted((row["k"], row["word"], row["more"]) for row in rows) == [
        (0, None, 7), (0, None, 7), (1, "a", None), (3, "d", None),
    ]  # fmt: skip
    assert set(catalog.load_table("mine.copy").scan().to_arrow()["n"].to_pylist()) == {1, 2, 3}
    attached.execute("DROP TABLE lake.mine.t")
    assert not catalog.table_exists("mine.t")


def test_tables_of_topics_are_guarded(attached: Any) -> None:
    for statement in ("DROP TABLE lake.default.edited", "ALTER TABLE lake.default.edited RENAME TO mine"):
        with pytest.raises(duckdb.Error, match="fed by topic edited"):
            attached.execute(statement)
    assert attached.execute("SELECT count(*) FROM lake.default.edited").fetchall() == [(8,)]
