"""The FileIO of all catalogs: it sends each location to what knows its store.

Local files are synced (local.py), and files in buckets are written by one request each (bucket_io.py). What neither
knows, such as hdfs:// or a key that only PyIceberg's own clients understand, stays with PyIceberg's FileIO. Chosen by
PyIceberg's property `py-io-impl`; paths and files are as PyIceberg would write them, so every engine reads them.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import structlog
from pyiceberg.io import PY_IO_IMPL, SCHEMA_TO_FILE_IO, FileIO, InputFile, OutputFile, load_file_io
from pyiceberg.typedef import EMPTY_DICT, Properties

from streamlake.catalogs.files import folders
from streamlake.catalogs.files.bucket_io import BucketFileIO
from streamlake.catalogs.files.connect import SCHEMES, why_not
from streamlake.catalogs.files.local import DISK, LocalFileIO
from streamlake.core.disk import Disk
from streamlake.core.errors import Invalid

IMPLEMENTATION = "streamlake.catalogs.files.file_io.StoreFileIO"

KNOWN = {*SCHEMES, *SCHEMA_TO_FILE_IO}

logger = structlog.get_logger(__name__)


def choose_for(properties: dict[str, Any], disk: Disk) -> None:
    """Give a catalog's tables this FileIO, if its properties choose no other."""
    properties.setdefault(PY_IO_IMPL, IMPLEMENTATION)
    properties[DISK] = disk


class StoreFileIO(FileIO):
    """Implements Folders, too."""

    def __init__(self, properties: Properties = EMPTY_DICT) -> None:
        super().__init__(properties)
        self._by_scheme: dict[str, FileIO] = {}

    def new_input(self, location: str) -> InputFile:
        return self._files(location).new_input(location)

    def new_output(self, location: str) -> OutputFile:
        return self._files(location).new_output(location)

    def delete(self, location: str | InputFile | OutputFile) -> None:
        self._files(location if isinstance(location, str) else location.location).delete(location)

    def list_files(self, folder: str) -> Iterator[str]:
        """See Folders."""
        known = folders.folders_of(self._files(folder))
        return iter(()) if known is None else known.list_files(folder)

    def delete_files(self, locations: Iterable[str]) -> None:
        """See Folders."""
        by_scheme: dict[str, list[str]] = defaultdict(list)
        for location in locations:
            by_scheme[urlsplit(location).scheme].append(location)
        for some in by_scheme.values():
            folders.delete_files(self._files(some[0]), some)

    def delete_folder(self, folder: str) -> None:
        """See Folders."""
        if known := folders.folders_of(self._files(folder)):
            known.delete_folder(folder)

    def _files(self, location: str) -> FileIO:
        scheme = urlsplit(location).scheme
        if scheme not in self._by_scheme:
            self._by_scheme[scheme] = self._made(scheme, location)
        return self._by_scheme[scheme]

    def _made(self, scheme: str, location: str) -> FileIO:
        if scheme in ("", "file"):
            return LocalFileIO(self.properties)
        if scheme in SCHEMES:
            reason = why_not(scheme, self.properties)
            if not reason:
                return BucketFileIO(self.properties)
            _tell(scheme, reason)
        if scheme not in SCHEMA_TO_FILE_IO:
            raise Invalid(f"{location}: no store {scheme}:// is known here; known are {', '.join(sorted(KNOWN))}")
        without = {key: value for key, value in self.properties.items() if key != PY_IO_IMPL}
        return load_file_io(without, location)


@lru_cache
def _tell(scheme: str, reason: str) -> None:
    """Once: a FileIO is made at each load of a table."""
    logger.info("tables go through PyIceberg's own client, which sends more requests", scheme=scheme, reason=reason)
