"""Engines are given the folder of a table and no catalog: they see the newest commit."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import StaticTable, Table
from pyiceberg.table.update import SetPropertiesUpdate
from support.fault_proxy import FaultProxy
from support.seaweedfs import SeaweedFS

from streamlake.catalogs import version_hint
from streamlake.catalogs.config import CatalogConfig, embedded
from streamlake.catalogs.kinds import load
from streamlake.core.disk import RealDisk, RealFile
from streamlake.iceberg_rest.sql_commit import Change, commit
from streamlake.lake import sql

ROWS = pa.schema([("id", pa.int64())])


class Disk(RealDisk):
    """Refuses to write hints while `full`."""

    full = False

    def open(self, path: str, *, create: bool = False) -> RealFile:
        if self.full and version_hint.NAME in path:
            raise OSError("no space left on device")
        return super().open(path, create=create)


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def catalog(tmp_path: Path, disk: Disk) -> Iterator[SqlCatalog]:
    catalog: Any = load(embedded(tmp_path, None), disk)
    catalog.create_namespace("n")
    yield catalog
    catalog.close()


@pytest.fixture
def table(catalog: SqlCatalog) -> Table:
    return catalog.create_table("n.t", ROWS)


def append(table: Table, *ids: int) -> None:
    table.append(pa.table({"id": pa.array(ids, pa.int64())}))


def folder(table: Table) -> str:
    return table.location().removeprefix("file://")


def hint(table: Table) -> str | None:
    path = Path(folder(table)) / "metadata" / "version-hint.text"
    return path.read_text() if path.exists() else None


def test_duckdb_and_pyiceberg_read_the_folder(table: Table) -> None:
    with sql.connect() as lake:
        for ids in ((1, 2), (3,)):
            append(table, *ids)
            for location in (folder(table), table.location()):
                found = lake.execute(f"SELECT count(*) FROM iceberg_scan('{location}')").fetchone()
                assert found == (max(ids),)
    assert StaticTable.from_metadata(table.location()).scan().to_arrow().num_rows == 3


def test_the_hint_follows_whatever_moves_a_table(catalog: SqlCatalog, table: Table) -> None:
    def expected() -> str:
        return catalog.load_table("n.t").metadata_location.rpartition("/")[2].removesuffix(".metadata.json")

    assert hint(table) == expected()
    append(table, 1)
    assert hint(table) == expected()
    commit(catalog, [Change(("n", "t"), (), (SetPropertiesUpdate(updates={"k": "v"}),), lambda _: None)])
    assert hint(table) == expected() and catalog.load_table("n.t").properties["k"] == "v"
    location = catalog.load_table("n.t").metadata_location
    catalog.drop_table("n.t")
    (Path(folder(table)) / "metadata" / "version-hint.text").unlink()
    catalog.register_table("n.t", location)
    assert hint(table) == expected()
    with catalog.create_table_transaction("n.u", ROWS) as creation:
        creation.set_properties({"k": "v"})
    assert hint(catalog.load_table("n.u"))


def test_a_table_that_is_made_again_gets_its_own(catalog: SqlCatalog, table: Table) -> None:
    for n in range(3):
        append(table, n)
    catalog.drop_table("n.t")
    assert StaticTable.from_metadata(table.location()).scan().to_arrow().num_rows == 3  # its files are there
    catalog.create_table("n.t", ROWS)
    assert StaticTable.from_metadata(table.location()).scan().to_arrow().num_rows == 0


def test_nothing_is_left_of_a_table_that_is_purged(catalog: SqlCatalog, table: Table) -> None:
    append(table, 1)
    catalog.purge_table("n.t")
    assert hint(table) is None


def test_a_commit_lands_without_its_hint(catalog: SqlCatalog, table: Table, disk: Disk) -> None:
    """A reader of the folder sees the commit before, until the next one."""
    append(table, 1)
    disk.full = True
    append(table, 2)
    assert catalog.load_table("n.t").scan().to_arrow().num_rows == 2
    assert StaticTable.from_metadata(table.location()).scan().to_arrow().num_rows == 1
    disk.full = False
    append(table, 3)
    assert StaticTable.from_metadata(table.location()).scan().to_arrow().num_rows == 3


def test_metadata_in_another_folder_has_none(catalog: SqlCatalog, tmp_path: Path) -> None:
    elsewhere = {"write.metadata.path": f"file://{tmp_path}/elsewhere"}
    table = catalog.create_table("n.u", ROWS, properties=elsewhere)
    append(table, 1)
    assert not list(tmp_path.rglob("version-hint.text*"))


def test_in_a_bucket_a_commit_writes_none(seaweedfs: SeaweedFS, tmp_path: Path) -> None:
    with FaultProxy(seaweedfs.s3_endpoint, "") as proxy:
        properties = {
            "uri": f"sqlite:///{tmp_path}/c.db", "warehouse": f"s3://{seaweedfs.folder()}", "s3.endpoint": proxy.endpoint,
            "s3.region": seaweedfs.region, "s3.access-key-id": seaweedfs.access_key,
            "s3.secret-access-key": seaweedfs.secret_key,
        }  # fmt: skip
        catalog = load(CatalogConfig("sql", "lake", properties))
        catalog.create_namespace("n")
        table = catalog.create_table("n.t", ROWS)
        before = proxy.requests.total()
        append(table, 1)
        assert proxy.requests.total() > before
        assert not [name for name in table.io.list_files(table.location()) if "hint" in name]
