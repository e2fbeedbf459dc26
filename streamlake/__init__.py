"""StreamLake: Kafka topics that are Apache Iceberg tables, on object storage."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from streamlake.lake.local import LocalLake


def local(
    data_dir: "str | os.PathLike[str] | None" = None, kafka: "Mapping[str, str | int | bool] | None" = None
) -> "LocalLake":
    """Start a server in a process of its own, on free ports: docs/guides/python.md.

    `data_dir` keeps the data; without one they are in a temporary directory, which is removed at the end. `kafka` are
    Kafka's broker configs, as under [kafka] of a configuration file. Raises the errors of streamlake/core/errors.py.

        with streamlake.local() as lake:
            ...  # lake.bootstrap, lake.registry_url, lake.wait_for("orders", 3), lake.sql("FROM orders")
    """
    # Imported here: `import streamlake` costs nothing, and every module of the server runs it.
    from pathlib import Path

    from streamlake.lake.local import LocalLake

    return LocalLake(None if data_dir is None else Path(data_dir), kafka or {})
