"""The engines, and by which way each comes in: ENGINES. What an engine needs is imported when it is started."""

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass

from engines.engine import Engine, Lake
from support.maven import Missing


def starts(module: str, name: str) -> Callable[[Lake], Engine]:
    def start(lake: Lake) -> Engine:
        try:
            found: Callable[[Lake], Engine] = getattr(importlib.import_module(f"engines.{module}"), name)
        except ImportError as error:
            raise Missing(f"{error}: `make engines-all` has an environment with it") from None
        return found(lake)

    return start


@dataclass(frozen=True, slots=True)
class EngineKind:
    """`start` raises Missing if something cannot be had here. `slow`: not in `make test`."""

    title: str
    start: Callable[[Lake], Engine]
    slow: bool = False
    in_bucket: bool = False  # its tables lie in a bucket


ENGINES = (
    EngineKind("DuckDB, metadata file", starts("by_duckdb", "OnMetadata")),
    EngineKind("DuckDB, attached", starts("by_duckdb", "Attached")),
    EngineKind("PyIceberg, REST", starts("by_pyiceberg", "ByRest")),
    EngineKind("PyIceberg, SQL", starts("by_pyiceberg", "BySql"), slow=True),
    EngineKind("Polars", starts("by_polars", "Polars")),
    EngineKind("chdb", starts("by_chdb", "ClickHouse")),
    EngineKind("Daft", starts("by_daft", "Daft"), slow=True),
    EngineKind("Spark, REST", starts("by_spark", "ByRest"), slow=True),
    EngineKind("Spark, JDBC", starts("by_spark", "ByJdbc"), slow=True),
    EngineKind("Trino", starts("by_trino", "Trino"), slow=True, in_bucket=True),
)


def chosen() -> list[EngineKind]:
    """Those that start in seconds, or what ENGINES in the environment says: all, or words of titles, with commas."""
    wanted = os.environ.get("ENGINES", "")
    if not wanted:
        return [kind for kind in ENGINES if not kind.slow]
    words = [word.strip().lower() for word in wanted.split(",")]
    found = [kind for kind in ENGINES if wanted == "all" or any(word in kind.title.lower() for word in words)]
    if not found:
        raise ValueError(f"ENGINES={wanted}: there is no such engine, only all, {', '.join(k.title for k in ENGINES)}")
    return found
