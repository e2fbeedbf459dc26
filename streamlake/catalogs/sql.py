"""The SQL catalog on SQLite, the embedded default, and on PostgreSQL.

A power cut must not revert a commit, so SQLite runs with synchronous=FULL. Tables on a local disk get a version hint.
"""

from pathlib import Path
from typing import Any

from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import CommitTableResponse, Table
from pyiceberg.table.update import TableRequirement, TableUpdate
from sqlalchemy import event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from streamlake.catalogs import version_hint
from streamlake.catalogs.config import CatalogConfig
from streamlake.catalogs.files import file_io
from streamlake.core.disk import Disk
from streamlake.core.errors import Invalid

BUSY_TIMEOUT_MS = 10_000
CONNECT_TIMEOUT_S = 10
UNANSWERED_TIMEOUT_MS = 60_000  # of what was sent to PostgreSQL: a server that vanished must not hang a thread


def load(config: CatalogConfig, disk: Disk) -> SqlCatalog:
    """Open it; makes the SQLite file and its tables at first use. Raises Invalid."""
    properties = dict(config.properties)
    try:
        url = make_url(properties["uri"])
    except ArgumentError:
        raise Invalid(f"catalog {config.name}: uri is not a database URL such as sqlite:////lake/catalog.db") from None
    file_io.choose_for(properties, disk)
    sqlite = url.get_backend_name() == "sqlite"
    if sqlite and url.database:
        disk.makedirs(str(Path(url.database).absolute().parent))
    elif not sqlite:
        properties["uri"] = _with_deadlines(url).render_as_string(hide_password=False)
    catalog = HintingSqlCatalog(config.name, **properties)
    event.listen(catalog.engine, "checkin", _end_transaction)
    if sqlite:
        event.listen(catalog.engine, "connect", _set_durable)
        catalog.engine.dispose()  # connections from before the listener
    return catalog


class HintingSqlCatalog(SqlCatalog):
    """Writes the version hint after everything that moves a table to another metadata file."""

    def create_table(self, *args: Any, **kwargs: Any) -> Table:
        return self._hinted(super().create_table(*args, **kwargs))

    def register_table(self, *args: Any, **kwargs: Any) -> Table:
        return self._hinted(super().register_table(*args, **kwargs))

    def commit_table(
        self, table: Table, requirements: tuple[TableRequirement, ...], updates: tuple[TableUpdate, ...]
    ) -> CommitTableResponse:
        done = super().commit_table(table, requirements, updates)
        self._hinted(Table(table.name(), done.metadata, done.metadata_location, table.io, self))
        return done

    def purge_table(self, identifier: Any) -> None:
        table = self.load_table(identifier)
        super().purge_table(identifier)
        version_hint.remove(table)

    def _hinted(self, table: Table) -> Table:
        version_hint.write(table)
        return table


def _with_deadlines(url: URL) -> URL:
    """By the driver that is installed here, and with an end to every wait, unless the URL says otherwise."""
    limits = {"connect_timeout": str(CONNECT_TIMEOUT_S), "tcp_user_timeout": str(UNANSWERED_TIMEOUT_MS)}
    missing = {key: value for key, value in limits.items() if key not in url.query}
    return url.set(drivername="postgresql+psycopg").update_query_dict(missing)


def _end_transaction(connection: Any, _: Any) -> None:
    """A COMMIT that failed may leave its transaction open, and SQLAlchemy hands the connection on as it is: the next
    load would see what was never committed, take it for landed, and let retention delete the records behind it."""
    if connection is not None:  # it broke
        connection.rollback()


def _set_durable(connection: Any, _: Any) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
