"""Files on a local disk that survive a power cut.

PyIceberg's own local output truncates in place and never syncs, while the catalog's SQLite file does sync: after a
power cut a committed table could point to empty files. Here every file is written whole to a temporary name, synced,
renamed and its directory synced before `close` returns. Reading and deleting are PyIceberg's.
"""

import contextlib
import os
from functools import partial

from pyiceberg.io import InputFile, OutputFile, OutputStream
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.typedef import EMPTY_DICT, Properties

from streamlake.catalogs.files.upload import Upload
from streamlake.core.disk import Disk, RealDisk

DISK = "streamlake.disk"  # a catalog property that passes another Disk


class LocalFileIO(PyArrowFileIO):
    def __init__(self, properties: Properties = EMPTY_DICT) -> None:
        super().__init__(properties)
        self._disk: Disk = properties.get(DISK) or RealDisk()

    def new_output(self, location: str) -> OutputFile:  # type: ignore[override]  # PyIceberg narrows it to its PyArrowFile
        return LocalOutputFile(location, self._disk, self)


class LocalOutputFile(OutputFile):
    def __init__(self, location: str, disk: Disk, files: LocalFileIO) -> None:
        super().__init__(location)
        self._path = files.parse_location(location)[2]
        self._disk = disk
        self._files = files

    def __len__(self) -> int:
        return self._disk.size(self._path)

    def exists(self) -> bool:
        try:
            self._disk.size(self._path)
        except FileNotFoundError:
            return False
        return True

    def to_input_file(self) -> InputFile:
        return self._files.new_input(self.location)

    def create(self, overwrite: bool = False) -> OutputStream:
        if not overwrite and self.exists():
            raise FileExistsError(f"{self.location} exists already")
        return Upload(partial(publish, self._disk, self._path, overwrite=overwrite))


def publish(disk: Disk, path: str, data: bytes, overwrite: bool) -> None:
    """Make `path` hold `data`, durably and never in part. Raises FileExistsError unless `overwrite`."""
    directory = os.path.dirname(path)
    disk.makedirs(directory)
    # The bytes are on the disk before the name points to them: a power cut leaves the old state or the new one.
    temporary = write_aside(disk, path, data, sync=True)
    if overwrite:
        disk.rename(temporary, path)
    else:
        disk.link(temporary, path)
        disk.unlink(temporary)
    # Whoever closed this file may commit a table that refers to it, so the name itself must survive a power cut too.
    disk.sync_dir(directory)


def write_aside(disk: Disk, path: str, data: bytes, *, sync: bool) -> str:
    """A file beside `path` that holds `data`, and takes its name next: readers of `path` see all of it or nothing. No
    two may be written for one path at the same time."""
    temporary = f"{path}.tmp"
    with contextlib.suppress(FileNotFoundError):
        disk.unlink(temporary)  # of an attempt that died; it may be longer
    file = disk.open(temporary, create=True)
    try:
        file.pwrite((data,), 0)
        if sync:
            file.sync()
    finally:
        file.close()
    return temporary
