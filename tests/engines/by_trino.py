"""Trino: by the server's catalog, on tables in a bucket."""

import math
import tempfile
from pathlib import Path
from typing import Any
from uuid import UUID

import trino
from engines.engine import NAMESPACE, Dialect, Engine, Lake
from engines.queries import Ask
from pyiceberg.catalog.rest import RestCatalog
from support.trino import Trino as Server
from support.wait import wait_until


class TrinoDialect(Dialect):
    def is_nan(self, column: str) -> str:
        return f"is_nan({column})"

    def float(self, value: float) -> str:
        if math.isinf(value):
            return "infinity()" if value > 0 else "-infinity()"
        return "nan()" if math.isnan(value) else f"DOUBLE '{value!r}'"

    def binary(self, value: bytes) -> str:
        return f"X'{value.hex()}'"

    def uuid(self, value: UUID) -> str:
        return f"UUID '{value}'"

    def timestamp(self, value: Any) -> str:
        zone = " UTC" if value.tzinfo else ""
        return f"TIMESTAMP '{value.replace(tzinfo=None).isoformat(sep=' ', timespec='microseconds')}{zone}'"


DIALECT = TrinoDialect()


def catalog(lake: Lake) -> dict[str, str]:
    """As docs/guides/engines.md has it."""
    bucket = lake.bucket_server
    assert bucket is not None, "Trino reads no local files"
    return {
        "connector.name": "iceberg",
        "iceberg.catalog.type": "rest",
        "iceberg.rest-catalog.uri": lake.endpoint,
        "fs.native-s3.enabled": "true",
        "s3.endpoint": bucket.s3_endpoint,
        "s3.path-style-access": "true",
        "s3.region": bucket.region,
        "s3.aws-access-key": bucket.access_key,
        "s3.aws-secret-key": bucket.secret_key,
    }


class Trino(Engine):
    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        self.catalog = RestCatalog("lake", uri=lake.endpoint)
        self.place = tempfile.TemporaryDirectory(prefix="trino-")
        self.server = Server(Path(self.place.name), catalog(lake))
        self.server.__enter__()
        self.connection = trino.dbapi.connect(
            host="127.0.0.1", port=self.server.port, user="streamlake", catalog="lake", schema=NAMESPACE, timezone="UTC"
        )
        wait_until(self._has_nodes)

    def _has_nodes(self) -> bool:
        """The server says that it has started a moment before its only node can be given work."""
        try:
            self.connection.cursor().execute("SELECT count(*) FROM information_schema.schemata").fetchall()
        except trino.exceptions.TrinoQueryError as error:
            if error.error_name != "NO_NODES_AVAILABLE":
                raise
            return False
        return True

    def answer(self, ask: Ask) -> list[tuple[Any, ...]]:
        then = ""
        if ask.batches:
            table = self.catalog.load_table((NAMESPACE, ask.topic.name))
            then = f" FOR VERSION AS OF {self.lake.snapshot(table, ask.batches)}"
        cursor = self.connection.cursor()
        cursor.execute(DIALECT.select(ask, f'"{ask.topic.name}"{then}'))
        return [tuple(shown(value) for value in row) for row in cursor.fetchall()]

    def stop(self) -> None:
        self.server.stop()
        self.place.cleanup()


def shown(value: Any) -> Any:
    """The client's named rows as dicts."""
    if isinstance(value, trino.types.NamedRowTuple):
        names = value.__annotations__["names"]
        return {name: shown(part) for name, part in zip(names, value, strict=True)}
    if isinstance(value, list):
        return [shown(part) for part in value]
    if isinstance(value, dict):
        return {key: shown(part) for key, part in value.items()}
    return value
