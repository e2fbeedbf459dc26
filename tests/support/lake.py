"""Table topics as a user meets them: made by an admin client, read by DuckDB and PyIceberg."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourceType,
)
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import Table
from support.server import Server
from support.wait import DEADLINE_S, wait_until

from streamlake.lake import sql

TABLE = "streamlake.table."


def create_topic(server: Server, name: str, partitions: int = 1, **table: str) -> str:
    """A table topic if `table` says anything; underscores in its keys are dots of `streamlake.table.*`."""
    config = {TABLE + key.replace("_", "."): value for key, value in table.items()}
    if table:
        config = {TABLE + "enable": "true", TABLE + "commit.interval.ms": "200", **config}
    admin = AdminClient({"bootstrap.servers": server.bootstrap})
    admin.create_topics([NewTopic(name, partitions, config=config)])[name].result(DEADLINE_S)
    return name


def set_config(server: Server, topic: str, **configs: str) -> None:
    """Underscores in keys are dots."""
    set_exactly(server, topic, {key.replace("_", "."): value for key, value in configs.items()})


def set_exactly(server: Server, topic: str, configs: Mapping[str, str]) -> None:
    entries = [ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET) for key, value in configs.items()]
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
    admin = AdminClient({"bootstrap.servers": server.bootstrap})  # kept: without it the request is given up
    admin.incremental_alter_configs([resource])[resource].result(DEADLINE_S)


def wait_for_state(server: Server, topic: str, state: str) -> str:
    """Until the table reports this state; its message."""
    table: dict[str, Any] = {}

    def is_there() -> bool:
        nonlocal table
        table = server.tables()[topic]
        return bool(table["state"] == state)

    wait_until(is_there, lambda: f"{topic} is not {state}: {table}\n{server.log[-3000:]}")
    return str(table["message"])


def query(server: Server, statement: str) -> list[tuple[Any, ...]]:
    """DuckDB on the newest snapshots; tables are views as in `streamlake sql`."""
    lake = sql.connect()
    try:
        sql.refresh(lake, server.http)
        return lake.execute(statement).fetchall()
    finally:
        lake.close()


def load_table(server: Server, name: str) -> Table:
    """A table of the embedded default catalog, by PyIceberg; `name` without its namespace."""
    root: Path = server.data_dir.absolute()
    catalog = SqlCatalog("streamlake", uri=f"sqlite:///{root}/catalog.db", warehouse=f"file://{root}/warehouse")
    return catalog.load_table(("default", name))


def produce(server: Server, topic: str, values: Iterable[bytes | None], partition: int = 0) -> None:
    """All acknowledged when it returns."""
    failed: list[Any] = []
    producer = Producer({"bootstrap.servers": server.bootstrap})
    for value in values:
        producer.produce(topic, value, partition=partition, on_delivery=lambda error, _: error and failed.append(error))
        producer.poll(0)
    assert producer.flush(DEADLINE_S) == 0
    assert not failed, failed[0]


def log_start(server: Server, topic: str, partition: int = 0) -> int:
    """Where the log begins, as a client sees it."""
    admin = AdminClient({"bootstrap.servers": server.bootstrap})
    at = TopicPartition(topic, partition)
    return int(admin.list_offsets({at: OffsetSpec.earliest()})[at].result(DEADLINE_S).offset)
