"""Properties of a table that a client may not give it.

PyIceberg takes a table's properties for those of its catalog when it reads and writes the table's files. So whoever may
set them could have this server load a class of their choice, or send signed requests to a host of their choice. How
files are reached is said by the configuration of the catalog alone.
"""

from collections.abc import Iterable, Mapping

from pyiceberg.io import PY_IO_IMPL
from pyiceberg.table.update import SetPropertiesUpdate, TableUpdate

from streamlake.catalogs.files.connect import OF_STORES
from streamlake.catalogs.files.local import DISK
from streamlake.iceberg_rest.errors import bad_request

_KEYS = (PY_IO_IMPL, DISK)
_PREFIXES = (*OF_STORES, "hdfs.", "hf.")


def check(properties: Mapping[str, str]) -> None:
    """Raises Problem."""
    if refused := sorted(key for key in properties if key in _KEYS or key.startswith(_PREFIXES)):
        raise bad_request(
            f"{', '.join(refused)}: how files are reached is a matter of the catalog's configuration, not of a table"
        )


def check_updates(updates: Iterable[TableUpdate]) -> None:
    """Raises Problem."""
    for update in updates:
        if isinstance(update, SetPropertiesUpdate):
            check(update.updates)
