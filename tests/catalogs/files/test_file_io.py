from pathlib import Path

import pytest
from contracts.file_io_contract import FileIOContract
from pyiceberg.catalog import load_catalog
from pyiceberg.io import load_file_io
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.schema import Schema
from support.seaweedfs import SeaweedFS

from streamlake.catalogs.config import CatalogConfig
from streamlake.catalogs.files.file_io import IMPLEMENTATION, StoreFileIO, choose_for
from streamlake.catalogs.kinds import load
from streamlake.core.disk import RealDisk
from streamlake.core.errors import Invalid


def bucket_properties(server: SeaweedFS, endpoint: str = "") -> dict[str, str]:
    return {
        "s3.endpoint": endpoint or server.s3_endpoint,
        "s3.region": server.region,
        "s3.access-key-id": server.access_key,
        "s3.secret-access-key": server.secret_key,
    }


class TestLocal(FileIOContract):
    @pytest.fixture
    def files(self) -> StoreFileIO:
        return StoreFileIO()

    @pytest.fixture(params=["file://{}", "{}"])
    def folder(self, request: pytest.FixtureRequest, tmp_path: Path) -> str:
        return request.param.format(tmp_path / "lake")


class TestS3(FileIOContract):
    @pytest.fixture
    def files(self, seaweedfs: SeaweedFS) -> StoreFileIO:
        return StoreFileIO(bucket_properties(seaweedfs))

    @pytest.fixture(params=["s3", "s3a", "s3n"])
    def folder(self, request: pytest.FixtureRequest, seaweedfs: SeaweedFS) -> str:
        return f"{request.param}://{seaweedfs.folder()}"


def test_schemes_of_one_store_are_one_place(seaweedfs: SeaweedFS) -> None:
    files, folder = StoreFileIO(bucket_properties(seaweedfs)), seaweedfs.folder()
    with files.new_output(f"s3a://{folder}/f").create() as stream:
        stream.write(b"x")
    assert files.new_input(f"s3://{folder}/f").open().read() == b"x"


def test_files_of_several_stores_are_deleted_together(seaweedfs: SeaweedFS, tmp_path: Path) -> None:
    files = StoreFileIO(bucket_properties(seaweedfs))
    locations = [f"s3://{seaweedfs.folder()}/f", f"s3a://{seaweedfs.bucket()}/f", f"{tmp_path}/f"]
    for location in locations:
        with files.new_output(location).create() as stream:
            stream.write(b"x")
    files.delete_files(locations)
    assert not any(files.new_input(location).exists() for location in locations)


def test_pyiceberg_loads_it_by_its_own_key() -> None:
    assert isinstance(load_file_io({"py-io-impl": IMPLEMENTATION}), StoreFileIO)


def test_a_fileio_that_the_configuration_chooses_stays() -> None:
    properties = {"py-io-impl": "pyiceberg.io.pyarrow.PyArrowFileIO"}
    choose_for(properties, RealDisk())
    assert isinstance(load_file_io(properties), PyArrowFileIO)


@pytest.mark.parametrize(
    ("location", "properties"),
    [("oss://bucket/f", {}), ("s3://bucket/f", {"s3.role-arn": "arn:aws:iam::1:role/r", "s3.region": "eu-west-1"})],
)
def test_what_only_pyiceberg_knows_stays_with_it(location: str, properties: dict[str, str]) -> None:
    files = StoreFileIO({"py-io-impl": IMPLEMENTATION, "s3.endpoint": "http://127.0.0.1:1", **properties})
    assert isinstance(files._files(location), PyArrowFileIO)


def test_a_store_that_nobody_knows_is_an_error_that_names_it() -> None:
    with pytest.raises(
        Invalid, match=r"nowhere://bucket/f: no store nowhere:// is known here; known are abfs, .*, s3,"
    ):
        StoreFileIO().new_input("nowhere://bucket/f")


def test_a_reader_without_our_fileio_reads_the_same_table(seaweedfs: SeaweedFS, tmp_path: Path) -> None:
    """Paths and files are PyIceberg's own."""
    import pyarrow as pa

    properties = {"uri": f"sqlite:///{tmp_path}/c.db", "warehouse": f"s3://{seaweedfs.folder()}"}
    properties |= bucket_properties(seaweedfs)
    catalog = load(CatalogConfig("sql", "lake", properties))
    catalog.create_namespace("n")
    table = catalog.create_table("n.t", pa.schema([("id", pa.int64())]))
    assert isinstance(table.io, StoreFileIO)
    table.append(pa.table({"id": [1, 2, 3]}))
    theirs = load_catalog("lake", **{"type": "sql", **properties}).load_table("n.t")
    assert isinstance(theirs.io, PyArrowFileIO)
    assert theirs.scan().to_arrow()["id"].to_pylist() == [1, 2, 3]
    assert catalog.load_table("n.t").scan().to_arrow()["id"].to_pylist() == [1, 2, 3]


def test_a_local_table_is_written_through_the_disk_that_syncs(tmp_path: Path) -> None:
    synced: list[str] = []

    class Disk(RealDisk):
        def sync_dir(self, path: str) -> None:
            synced.append(path)
            super().sync_dir(path)

    config = CatalogConfig("sql", "lake", {"uri": f"sqlite:///{tmp_path}/c.db", "warehouse": f"file://{tmp_path}/w"})
    catalog = load(config, Disk())
    catalog.create_namespace("n")
    catalog.create_table("n.t", Schema())
    assert f"{tmp_path}/w/n/t/metadata" in synced
