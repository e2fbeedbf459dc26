"""Whatever is sent and however a table is configured: every record ends in the table or in its dead letters, once, and
engines can read both; or the configs were refused when they were set."""

import asyncio
import json
import random
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from pyiceberg.catalog.memory import InMemoryCatalog
from pyiceberg.exceptions import NoSuchTableError
from support.any_input import SEARCH, Source, configs, odd_schemas
from support.avro_random import RandomAvro
from support.table_world import TOPIC, FaultyCatalog, World

from streamlake.cluster.config.topic import check_topic_configs
from streamlake.core.errors import Invalid
from streamlake.lake.sql import connect
from streamlake.record.encode import encode_batch


@pytest.fixture(scope="module")
def duck() -> Iterator[duckdb.DuckDBPyConnection]:
    connection = connect()
    yield connection
    connection.close()


def positions(world: World, duck: Any, name: tuple[str, str]) -> list[tuple[int, int]]:
    """Of the rows of one table, as PyIceberg and DuckDB read it."""
    try:
        table = world.catalog.inner.load_table(name)
    except NoSuchTableError:
        return []
    rows = table.scan().to_arrow()
    location = table.metadata_location.removeprefix("file://")
    assert duck.execute("SELECT count(*) FROM iceberg_scan(?)", [location]).fetchone() == (len(rows),)
    if "last_offset" in rows.column_names:
        assert rows["offset"].equals(rows["last_offset"]), "no batch was bad"
        return list(zip(rows["partition"].to_pylist(), rows["offset"].to_pylist(), strict=True))
    facts = "_kafka_metadata" if world.settings.layout == "automq" else "_kafka"
    return [(row["partition"], row["offset"]) for row in rows[facts].to_pylist()]


def produce(world: World, source: Source) -> None:
    for partition, records in source.batches():
        base = world.log.end[partition]
        moved = [record._replace(offset=base + record.offset) for record in records]
        world.log._append(partition, base, len(moved), encode_batch(moved))
        world.log.data |= {(partition, record.offset) for record in moved}


async def lived(world: World, more: Callable[[], None]) -> None:
    for _ in range(2):
        more()
        life = world.life()
        await life.drain()
        more()
        await life.round()
        assert [life.table.reached.position(p) for p in range(2)] == world.log.end
        assert life.table.held.skipped.get("dead_letter", 0) + life.table.held.rows <= len(world.log.data)


@settings(max_examples=60, phases=SEARCH, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_every_record_is_a_row_or_a_dead_letter(duck: Any, data: st.DataObject) -> None:
    try:
        chosen = check_topic_configs(data.draw(configs()))
    except Invalid:
        event("refused")
        return
    rng = random.Random(data.draw(st.integers(0, 2**32)))
    avro = RandomAvro(rng)
    source = Source(data.draw, avro, dict(enumerate(odd_schemas(rng, avro, 3), 1)))
    world = World(2)
    world.configs = chosen
    world.registry.schemas = {id: json.dumps(schema) for id, schema in source.schemas.items()}
    with tempfile.TemporaryDirectory() as folder:
        catalog = InMemoryCatalog("lake", warehouse=f"file://{folder}")  # real files, whose names have a limit
        world.catalog = FaultyCatalog(catalog)
        asyncio.run(lived(world, lambda: produce(world, source)))
        name = (world.settings.namespace, world.settings.name or TOPIC)
        rows, dead = (positions(world, duck, (name[0], name[1] + ending)) for ending in ("", "__dlq"))
        event(f"rows: {bool(rows)}, dead letters: {bool(dead)}")
        assert sorted(rows + dead) == sorted(world.log.data)
        catalog.close()
