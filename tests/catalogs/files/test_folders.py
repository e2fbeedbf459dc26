"""How stores list and delete is in contracts/file_io_contract.py; here is what chooses among them."""

from pathlib import Path

import pytest
from pyiceberg.io.pyarrow import PyArrowFileIO
from support.table_world import MemoryIO

from streamlake.catalogs.files.file_io import StoreFileIO
from streamlake.catalogs.files.folders import ArrowFolders, delete_files, folders_of, path_of


def test_who_lists() -> None:
    files = StoreFileIO()
    assert folders_of(files) is files
    assert isinstance(folders_of(PyArrowFileIO()), ArrowFolders)
    assert folders_of(MemoryIO({"memory": {}})) is None


def test_files_are_deleted_by_any_fileio(tmp_path: Path) -> None:
    memory = {"a": b"", "b": b"", "c": b""}
    delete_files(MemoryIO({"memory": memory}), ["a", "gone", "b"])
    assert list(memory) == ["c"]
    (tmp_path / "a").write_bytes(b"")
    delete_files(PyArrowFileIO(), [f"{tmp_path}/gone", f"{tmp_path}/a"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("location", ["s3://lake/t/f", "s3a://lake/t/f"])
def test_a_path_has_no_scheme(location: str) -> None:
    assert path_of(location) == "lake/t/f"


@pytest.mark.parametrize("location", ["file:///lake/f", "file:/lake/f", "/lake/f"])
def test_a_local_path(location: str) -> None:
    assert path_of(location) == "/lake/f"
