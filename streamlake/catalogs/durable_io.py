"""A FileIO for a local warehouse whose files survive a power cut.

pyiceberg's own local output truncates in place and never syncs, while the catalog's SQLite file does sync: after a
power cut a committed table could point to empty files. Here every file is written whole to a temporary name, synced,
renamed and its directory synced before `close` returns. Reading and deleting are pyiceberg's. Chosen through
pyiceberg's `py-io-impl` property; the catalog property `streamlake.disk` passes another Disk.
"""

import contextlib
import io
import os
from types import TracebackType
from typing import Any

from pyiceberg.io import PY_IO_IMPL, InputFile, OutputFile, OutputStream
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.typedef import EMPTY_DICT, Properties

from streamlake.core.disk import Disk, RealDisk
from streamlake.core.errors import Invalid

DISK = "streamlake.disk"
IMPLEMENTATION = "streamlake.catalogs.durable_io.DurableFileIO"


def choose_for(properties: dict[str, Any], disk: Disk, names: bool = False) -> None:
    """Give a catalog's tables this FileIO if its warehouse is on a local disk, and its properties choose no other.
    `names`: a warehouse without a scheme is a name that the catalog knows, not a path."""
    location = str(properties.get("warehouse") or "s3://")
    if location.startswith("file:") or ("://" not in location and not names):
        properties.setdefault(PY_IO_IMPL, IMPLEMENTATION)
        properties[DISK] = disk


class DurableFileIO(PyArrowFileIO):
    def __init__(self, properties: Properties = EMPTY_DICT) -> None:
        super().__init__(properties)
        self._disk: Disk = properties.get(DISK) or RealDisk()

    def new_output(self, location: str) -> OutputFile:  # type: ignore[override]  # pyiceberg narrows it to its PyArrowFile
        return DurableOutputFile(location, self._disk, self)


class DurableOutputFile(OutputFile):
    def __init__(self, location: str, disk: Disk, files: DurableFileIO) -> None:
        super().__init__(location)
        scheme, _, self._path = files.parse_location(location)
        if scheme != "file":
            raise Invalid(f"{location} is not on a local disk: remove py-io-impl from the catalog's properties")
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
        return DurableStream(self._disk, self._path, overwrite)


class DurableStream(io.BytesIO):
    """Collects the bytes; `close` makes them a file, unless the `with` block raised: then nothing appears."""

    def __init__(self, disk: Disk, path: str, overwrite: bool) -> None:
        super().__init__()
        self._disk = disk
        self._path = path
        self._overwrite = overwrite

    def close(self) -> None:
        if self.closed:
            return
        data = self.getbuffer()
        try:
            publish(self._disk, self._path, data, self._overwrite)
        finally:
            data.release()
            super().close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            super().close()
        self.close()


def publish(disk: Disk, path: str, data: Any, overwrite: bool) -> None:
    """Make `path` hold `data`, durably and never in part. Raises FileExistsError unless `overwrite`."""
    directory = os.path.dirname(path)
    disk.makedirs(directory)
    temporary = f"{path}.tmp"
    with contextlib.suppress(FileNotFoundError):
        disk.unlink(temporary)  # of an attempt that died; it may be longer
    file = disk.open(temporary, create=True)
    try:
        file.pwrite((data,), 0)
        # The bytes are on the disk before the name points to them: a power cut leaves the old state or the new one.
        file.sync()
    finally:
        file.close()
    if overwrite:
        disk.rename(temporary, path)
    else:
        disk.link(temporary, path)
        disk.unlink(temporary)
    # Whoever closed this file may commit a table that refers to it, so the name itself must survive a power cut too.
    disk.sync_dir(directory)
