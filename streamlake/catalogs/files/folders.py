"""Many files at once: what lies in a folder, and the removal of files and folders.

Iceberg's FileIO knows one file at a time. Maintenance and trials need more, in every store that has folders.
"""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Protocol, runtime_checkable

from pyarrow import fs
from pyiceberg.io import FileIO
from pyiceberg.io.pyarrow import PyArrowFileIO


@runtime_checkable
class Folders(Protocol):
    """A FileIO may be one, too. Raises OSError."""

    def list_files(self, folder: str) -> Iterator[str]:
        """The locations of all files below it, at any depth; none if there is no such folder."""
        ...

    def delete_files(self, locations: Iterable[str]) -> None:
        """Those that do not exist are no error. After an error some may be deleted."""
        ...

    def delete_folder(self, folder: str) -> None:
        """With all that is below it. No error if there is no such folder."""
        ...


class ArrowFolders:
    """Of a store that PyArrow reaches."""

    def __init__(self, files: PyArrowFileIO) -> None:
        self._files = files

    def list_files(self, folder: str) -> Iterator[str]:
        """See Folders."""
        store, path = self._place(folder)
        for found in store.get_file_info(fs.FileSelector(path, allow_not_found=True, recursive=True)):
            if found.type == fs.FileType.File:
                yield folder.rstrip("/") + found.path.removeprefix(path.rstrip("/"))

    def delete_files(self, locations: Iterable[str]) -> None:
        """See Folders."""
        for location in locations:
            with contextlib.suppress(FileNotFoundError):
                self._files.delete(location)

    def delete_folder(self, folder: str) -> None:
        """See Folders."""
        store, path = self._place(folder)
        with contextlib.suppress(FileNotFoundError):
            store.delete_dir(path)

    def _place(self, folder: str) -> tuple[fs.FileSystem, str]:
        scheme, netloc, path = self._files.parse_location(folder, self._files.properties)
        return self._files.fs_by_scheme(scheme, netloc), path


def folders_of(files: FileIO) -> Folders | None:
    """None if nobody knows how to list what is there: the configuration chose some other FileIO."""
    if isinstance(files, Folders):
        return files
    return ArrowFolders(files) if isinstance(files, PyArrowFileIO) else None


def delete_files(files: FileIO, locations: Iterable[str]) -> None:
    """In few requests where the store can do that. See Folders."""
    if folders := folders_of(files):
        folders.delete_files(locations)
        return
    for location in locations:
        with contextlib.suppress(FileNotFoundError):
            files.delete(location)


def path_of(location: str) -> str:
    """Without the scheme, of which some stores have several: s3://lake/t and s3a://lake/t are one file."""
    return PyArrowFileIO.parse_location(location)[2]
