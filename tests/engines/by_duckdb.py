"""DuckDB: on the newest metadata file of a table, and attached to the server's catalog."""

from typing import Any

from engines.engine import NAMESPACE, Dialect, Engine, Lake, rows_of
from engines.queries import Ask
from support.lake import load_table

from streamlake.lake import sql

DIALECT = Dialect()


def attach(connection: Any, lake: Lake) -> None:
    """As `lake`."""
    how = "AUTHORIZATION_TYPE 'none'"
    if bucket := lake.bucket_server:
        connection.execute(
            f"CREATE SECRET (TYPE s3, KEY_ID '{bucket.access_key}', SECRET '{bucket.secret_key}', USE_SSL false, "
            f"ENDPOINT '{bucket.s3_endpoint.removeprefix('http://')}', URL_STYLE 'path', REGION '{bucket.region}')"
        )
        how += ", ACCESS_DELEGATION_MODE 'none'"
    connection.execute(f"ATTACH 'streamlake' AS lake (TYPE iceberg, ENDPOINT '{lake.endpoint}', {how})")


class _DuckDB(Engine):
    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        self.connection = sql.connect()

    def answer(self, ask: Ask) -> list[tuple[Any, ...]]:
        statement = DIALECT.select(ask, self.source(ask))
        return rows_of(self.connection.execute(statement).to_arrow_table())

    def source(self, ask: Ask) -> str:
        raise NotImplementedError

    def stop(self) -> None:
        self.connection.close()


class OnMetadata(_DuckDB):
    def source(self, ask: Ask) -> str:
        table = load_table(self.lake.server, ask.topic.name)
        then = f", snapshot_from_id = {self.lake.snapshot(table, ask.batches)}" if ask.batches else ""
        return f"iceberg_scan('{table.metadata_location}'{then})"


class Attached(_DuckDB):
    def __init__(self, lake: Lake) -> None:
        super().__init__(lake)
        attach(self.connection, lake)

    def source(self, ask: Ask) -> str:
        then = ""
        if ask.batches:
            then = f" AT (VERSION => {self.lake.snapshot(load_table(self.lake.server, ask.topic.name), ask.batches)})"
        return f'lake."{NAMESPACE}"."{ask.topic.name}"{then}'
