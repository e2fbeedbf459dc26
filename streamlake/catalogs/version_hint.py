"""`version-hint.text`: which metadata file is the newest, for engines that are given a table's folder and no catalog.

DuckDB's `iceberg_scan('<folder>')` and PyIceberg's StaticTable read it. It is a hint and no more: the catalog decides
what is committed, and nothing here reads the file. On a local disk only: in a bucket it would be one more PUT for each
commit, where an engine can as well ask the REST catalog.
"""

import contextlib
import threading
from pathlib import PurePosixPath

import structlog
from pyiceberg.table import Table

from streamlake.catalogs.files.folders import path_of
from streamlake.catalogs.files.local import DISK, write_aside
from streamlake.core.errors import describe

NAME = "version-hint.text"
SUFFIX = ".metadata.json"

logger = structlog.get_logger(__name__)
_writing = threading.Lock()  # they write the same temporary file


def write(table: Table) -> None:
    """Of a table as it was just committed. Errors are logged: the commit has landed all the same.

    Safe if the machine dies before: the hint still names an older metadata file, which readers can read for as long as
    the table keeps it; the next commit corrects it, and a table of a topic has one at each start of the server. That is
    also why it is not synced. Of two commits at the same time the hint of the older one may be written last."""
    path, disk = _path(table), table.io.properties.get(DISK)
    if path is None or disk is None:
        return
    version = path_of(table.metadata_location).rpartition("/")[2].removesuffix(SUFFIX)
    try:
        with _writing:
            # Without a line end: DuckDB would take it for a part of the name.
            disk.rename(write_aside(disk, path, version.encode(), sync=False), path)
    except OSError as error:
        logger.warning(
            "the version hint of a table was not written", table=".".join(table.name()), reason=describe(error)
        )


def remove(table: Table) -> None:
    """Of a table whose files are gone."""
    path, disk = _path(table), table.io.properties.get(DISK)
    if path is not None and disk is not None:
        with contextlib.suppress(OSError):
            disk.unlink(path)


def _path(table: Table) -> str | None:
    """None if nobody would look for the table's metadata there, or it is not on a local disk."""
    location = table.metadata_location
    folder = PurePosixPath(path_of(location)).parent
    local = location.startswith(("/", "file:"))
    if not local or not location.endswith(SUFFIX) or folder != PurePosixPath(path_of(table.location())) / "metadata":
        return None
    return str(folder / NAME)
