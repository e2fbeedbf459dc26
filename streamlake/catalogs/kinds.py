"""THE list of catalogs by kind. To add one, write its module with a `load`, and name it in KINDS.

Importing this is light; loading a catalog imports pyiceberg, which the server process must not.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING

from streamlake.core.disk import Disk, RealDisk
from streamlake.core.errors import Invalid

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

    from streamlake.catalogs.config import CatalogConfig

# The module of each kind: its function `load(config, disk)` returns a pyiceberg catalog.
KINDS: Mapping[str, str] = {
    "sql": "streamlake.catalogs.sql",
    "rest": "streamlake.catalogs.rest",
}


def load(config: "CatalogConfig", disk: Disk | None = None) -> "Catalog":
    """The pyiceberg catalog of `config`; blocks on the network or disk. Raises Invalid for what can never work.

    `disk` holds the SQLite file and a local warehouse; other warehouses do not use it."""
    if config.kind not in KINDS:
        raise Invalid(f"catalog {config.name} is of kind {config.kind!r}: known are {', '.join(KINDS)}")
    catalog: Catalog = import_module(KINDS[config.kind]).load(config, disk or RealDisk())
    return catalog
