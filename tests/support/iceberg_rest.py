"""Iceberg's reference REST catalog, on SQLite and local files: `with IcebergRest(directory) as rest: rest.uri`."""

from pathlib import Path

from support.java_server import JavaServer


class IcebergRest(JavaServer):
    def __init__(self, directory: Path) -> None:
        self.warehouse = f"file://{directory / 'warehouse'}"
        super().__init__("iceberg_rest", directory, [str(directory / "catalog.db"), self.warehouse])
        self.uri = f"http://127.0.0.1:{self.port}"
