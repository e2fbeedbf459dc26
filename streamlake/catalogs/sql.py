"""The SQL catalog on SQLite: the embedded default, and any SQLAlchemy URL that pyiceberg takes.

A power cut must not revert a commit, so SQLite runs with synchronous=FULL. A warehouse on a
local disk gets the FileIO that syncs.
"""

from pathlib import Path
from typing import Any

from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.io import PY_IO_IMPL
from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from streamlake.catalogs import durable_io
from streamlake.catalogs.config import CatalogConfig
from streamlake.core.disk import Disk
from streamlake.core.errors import Invalid

BUSY_TIMEOUT_MS = 10_000


def load(config: CatalogConfig, disk: Disk) -> SqlCatalog:
    """Open it; makes the SQLite file and its tables at first use. Raises Invalid."""
    properties = dict(config.properties)
    try:
        url = make_url(properties["uri"])
    except ArgumentError:
        raise Invalid(f"catalog {config.name}: uri is not a database URL such as sqlite:////lake/catalog.db") from None
    if "warehouse" not in properties:
        raise Invalid(f"catalog {config.name}: [properties] has no warehouse, the location of its tables")
    if is_local(properties["warehouse"]):
        properties.setdefault(PY_IO_IMPL, durable_io.IMPLEMENTATION)
        properties[durable_io.DISK] = disk
    sqlite = url.get_backend_name() == "sqlite"
    if sqlite and url.database:
        disk.makedirs(str(Path(url.database).absolute().parent))
    catalog = SqlCatalog(config.name, **properties)
    event.listen(catalog.engine, "checkin", _end_transaction)
    if sqlite:
        event.listen(catalog.engine, "connect", _set_durable)
        catalog.engine.dispose()  # connections from before the listener
    return catalog


def is_local(location: str) -> bool:
    return location.startswith("file:") or "://" not in location


def _end_transaction(connection: Any, _: Any) -> None:
    """A COMMIT that failed may leave its transaction open, and SQLAlchemy hands the connection on as it is: the next
    load would see what was never committed, take it for landed, and let retention delete the records behind it."""
    if connection is not None:  # it broke
        connection.rollback()


def _set_durable(connection: Any, _: Any) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
