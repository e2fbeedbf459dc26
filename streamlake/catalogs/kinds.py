"""Load a catalog by kind. Importing this is light; loading imports pyiceberg, which the server process must not."""

from typing import TYPE_CHECKING

from streamlake.catalogs.config import CatalogConfig
from streamlake.core.disk import Disk, RealDisk
from streamlake.core.errors import Invalid

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog


def load(config: CatalogConfig, disk: Disk | None = None) -> "Catalog":
    """The pyiceberg catalog of `config`; blocks on the network or disk. Raises Invalid for what can never work.

    `disk` holds the SQLite file and a local warehouse; other warehouses do not use it."""
    if config.kind == "sql":
        from streamlake.catalogs import sql

        return sql.load(config, disk or RealDisk())
    if config.kind == "rest":
        from streamlake.catalogs import rest

        return rest.load(config, disk or RealDisk())
    raise Invalid(f"catalog {config.name} is of kind {config.kind!r}: known are sql and rest")
