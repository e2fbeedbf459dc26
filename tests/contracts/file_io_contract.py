"""What PyIceberg and our own code count on in a FileIO; each kind of store runs it.

Subclass with fixtures `files`, and `folder`: a location where nothing is yet.
"""

import pyarrow.parquet as pq
import pytest
from pyarrow import table
from pyiceberg.io import FileIO

from streamlake.catalogs.files.folders import Folders, folders_of

LARGE_BYTES = 3 << 20  # more than is read of a file at once


class FileIOContract:
    @pytest.fixture
    def files(self) -> FileIO:
        raise NotImplementedError

    @pytest.fixture
    def folder(self) -> str:
        raise NotImplementedError

    @pytest.fixture
    def folders(self, files: FileIO) -> Folders:
        found = folders_of(files)
        assert found is not None
        return found

    @pytest.mark.parametrize("overwrite", [True, False])
    def test_what_is_written_is_read(self, files: FileIO, folder: str, overwrite: bool) -> None:
        output = files.new_output(f"{folder}/a/b c/ts_day=2013-01-01/ü.avro")
        assert not output.exists()
        with output.create(overwrite=overwrite) as stream:
            assert stream.write(b"hello ") == 6
            assert stream.tell() == 6
            stream.write(memoryview(b"world"))
        assert output.exists() and len(output) == 11
        source = output.to_input_file()
        assert source.location == output.location
        assert source.exists() and len(source) == 11
        for seekable in (True, False):
            with source.open(seekable) as opened:
                assert opened.read() == b"hello world"

    def test_a_file_without_bytes(self, files: FileIO, folder: str) -> None:
        with files.new_output(f"{folder}/empty").create():
            pass
        source = files.new_input(f"{folder}/empty")
        assert source.exists() and len(source) == 0
        assert source.open().read() == source.open(seekable=False).read() == b""

    def test_what_is_not_there(self, files: FileIO, folder: str) -> None:
        source = files.new_input(f"{folder}/no/such.avro")
        assert not source.exists()
        for look in (lambda: len(source), source.open, lambda: source.open(seekable=False)):
            with pytest.raises(FileNotFoundError, match=r"such\.avro"):
                look()

    def test_a_file_that_must_not_be_there_yet(self, files: FileIO, folder: str) -> None:
        self.write(files, f"{folder}/f", b"first")
        with pytest.raises(FileExistsError, match="exists already"):
            self.write(files, f"{folder}/f", b"second", overwrite=False)
        assert files.new_input(f"{folder}/f").open().read() == b"first"
        self.write(files, f"{folder}/f", b"third")
        assert files.new_input(f"{folder}/f").open().read() == b"third"

    def test_a_block_that_raises_writes_nothing(self, files: FileIO, folder: str) -> None:
        output = files.new_output(f"{folder}/half")
        with pytest.raises(ZeroDivisionError), output.create() as stream:
            stream.write(b"half")
            raise ZeroDivisionError
        assert not output.exists()

    def test_a_large_file_is_read_here_and_there(self, files: FileIO, folder: str) -> None:
        data = bytes(range(256)) * (LARGE_BYTES // 256)
        self.write(files, f"{folder}/large", data)
        with files.new_input(f"{folder}/large").open() as stream:
            assert stream.read(10) == data[:10]
            assert stream.seek(-7, 2) == len(data) - 7
            assert stream.read() == data[-7:]
            assert stream.read(1) == b""
            stream.seek(1_000_003)
            assert stream.tell() == 1_000_003
            assert stream.read(300_000) == data[1_000_003:1_300_003]
            stream.seek(5)
            assert stream.read() == data[5:]
        assert files.new_input(f"{folder}/large").open(seekable=False).read() == data

    def test_arrow_writes_and_reads_parquet(self, files: FileIO, folder: str) -> None:
        """As PyIceberg does it for data files."""
        rows = table({"id": list(range(300_000)), "text": [f"row {n * 7919}" for n in range(300_000)]})
        with files.new_output(f"{folder}/rows.parquet").create(overwrite=True) as sink:
            pq.write_table(rows, sink, compression="none", use_dictionary=False)
        assert len(files.new_input(f"{folder}/rows.parquet")) > LARGE_BYTES
        with files.new_input(f"{folder}/rows.parquet").open() as source:
            assert pq.ParquetFile(source).read(["id"]) == rows.select(["id"])

    def test_a_file_is_deleted(self, files: FileIO, folder: str) -> None:
        self.write(files, f"{folder}/f", b"x")
        self.write(files, f"{folder}/g", b"x")
        files.delete(f"{folder}/f")
        files.delete(files.new_input(f"{folder}/g"))
        assert not files.new_input(f"{folder}/f").exists() and not files.new_input(f"{folder}/g").exists()

    def test_folders_are_listed_and_deleted(self, files: FileIO, folders: Folders, folder: str) -> None:
        inside = [f"{folder}/t/data/day=1/a.parquet", f"{folder}/t/data/b.parquet", f"{folder}/t/metadata/c.avro"]
        beside = f"{folder}/t2/data/a.parquet"  # begins with the same letters
        for location in (*inside, beside):
            self.write(files, location, b"x")
        for name in (f"{folder}/t", f"{folder}/t/"):
            assert sorted(folders.list_files(name)) == sorted(inside)
        assert list(folders.list_files(f"{folder}/no-such")) == []
        folders.delete_folder(f"{folder}/t")
        assert [files.new_input(location).exists() for location in (*inside, beside)] == [False] * 3 + [True]
        folders.delete_folder(f"{folder}/t")  # nothing there any more

    def test_many_files_are_deleted(self, files: FileIO, folders: Folders, folder: str) -> None:
        locations = [f"{folder}/{n}" for n in range(5)]
        for location in locations[1:]:
            self.write(files, location, b"x")
        folders.delete_files(locations[:4])  # one of them is not there
        assert list(folders.list_files(folder)) == locations[4:]

    def write(self, files: FileIO, location: str, data: bytes, *, overwrite: bool = True) -> None:
        with files.new_output(location).create(overwrite=overwrite) as stream:
            stream.write(data)
