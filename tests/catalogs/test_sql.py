import sqlite3
from pathlib import Path

import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.schema import Schema
from pyiceberg.table.update import SetPropertiesUpdate
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from streamlake.catalogs.config import CatalogConfig, embedded
from streamlake.catalogs.files.file_io import StoreFileIO
from streamlake.catalogs.kinds import load
from streamlake.catalogs.sql import _with_deadlines
from streamlake.core.errors import Invalid


def test_a_commit_survives_a_power_cut(tmp_path: Path) -> None:
    """SQLite syncs each commit, and table files go through the FileIO that syncs."""
    catalog = load(embedded(tmp_path, None))
    assert isinstance(catalog, SqlCatalog)
    with catalog.engine.connect() as connection:
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 2  # FULL
        assert connection.execute(text("PRAGMA busy_timeout")).scalar() == 10_000
    catalog.create_namespace("n")

    assert isinstance(catalog.create_table("n.t", Schema()).io, StoreFileIO)


def test_what_is_no_url_is_invalid() -> None:
    with pytest.raises(Invalid, match="not a database URL"):
        load(CatalogConfig("sql", "lake", {"uri": "not a url", "warehouse": "file:///x"}))


def test_waits_for_postgresql_have_an_end() -> None:
    """With the driver that is installed, whatever SQLAlchemy's default is."""
    url = _with_deadlines(make_url("postgresql://u:p@db/lake?connect_timeout=3"))
    assert url.render_as_string(hide_password=False) == (
        "postgresql+psycopg://u:p@db/lake?connect_timeout=3&tcp_user_timeout=60000"
    )


def test_a_commit_that_failed_is_not_seen_by_the_next_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite may answer COMMIT with "busy", and leaves the transaction open then."""
    catalog = load(embedded(tmp_path, None))
    assert isinstance(catalog, SqlCatalog)
    catalog.create_namespace("n")
    table = catalog.create_table("n.t", Schema())

    def busy(_: object) -> None:
        raise sqlite3.OperationalError("database is locked")

    with monkeypatch.context() as patched:
        patched.setattr(catalog.engine.dialect, "do_commit", busy)
        update = SetPropertiesUpdate(updates={"seen": "yes"})
        with pytest.raises(OperationalError):
            catalog.commit_table(table, (), (update,))
    assert "seen" not in catalog.load_table("n.t").properties
