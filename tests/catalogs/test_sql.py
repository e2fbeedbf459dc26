import sqlite3
from pathlib import Path

import pytest
from contracts.catalog_contract import CatalogContract
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.schema import Schema
from pyiceberg.table.update import SetPropertiesUpdate
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from streamlake.catalogs.config import CatalogConfig, embedded
from streamlake.catalogs.durable_io import DurableFileIO
from streamlake.catalogs.kinds import load
from streamlake.core.errors import Invalid


class TestSqlCatalog(CatalogContract):
    @pytest.fixture
    def catalog(self, tmp_path: Path) -> Catalog:
        return load(embedded(tmp_path, None))


def test_a_commit_survives_a_power_cut(tmp_path: Path) -> None:
    """SQLite syncs each commit, and table files go through the FileIO that syncs."""
    catalog = load(embedded(tmp_path, None))
    assert isinstance(catalog, SqlCatalog)
    with catalog.engine.connect() as connection:
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 2  # FULL
        assert connection.execute(text("PRAGMA busy_timeout")).scalar() == 10_000
    catalog.create_namespace("n")

    assert isinstance(catalog.create_table("n.t", Schema()).io, DurableFileIO)


def test_a_warehouse_elsewhere_keeps_pyicebergs_file_io(tmp_path: Path) -> None:
    assert "py-io-impl" not in load(embedded(tmp_path, "s3://lake/warehouse")).properties


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ({"uri": "not a url", "warehouse": "file:///x"}, "not a database URL"),
        ({"uri": "sqlite:///x.db"}, "has no warehouse"),
    ],
)
def test_what_can_never_work_is_invalid(properties: dict[str, str], message: str) -> None:
    with pytest.raises(Invalid, match=message):
        load(CatalogConfig("sql", "lake", properties))


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
