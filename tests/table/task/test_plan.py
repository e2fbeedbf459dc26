"""What a table would be: nothing is written, and what would go wrong is told before."""

import json
from typing import Any

from pyiceberg.exceptions import NoSuchTableError
from support.table_records import record
from support.table_world import BAD, World, drain, good, value

from streamlake.catalogs.capabilities import Capabilities
from streamlake.core.errors import NotFound
from streamlake.table.task.plan import read_sample
from streamlake.table.task.tables import Tables


async def planned(world: World, most: int = 100) -> dict[str, Any]:
    """As the worker answers it, by way of JSON."""
    found = await Tables(world.work(), world.catalogs()).plan(world.spec(), most)
    return json.loads(json.dumps(found))


async def test_a_sample_is_tried_and_nothing_is_written() -> None:
    world = World(3, partition_by="[bucket(n, 4), day(_kafka.timestamp)]")
    world.log.produce(0, [*good(range(20)), BAD])
    world.log.produce(1, good(range(5)))
    world.log.abort(1, good([1]))
    found = await planned(world)
    assert (found["table"], found["exists"], found["catalog"]) == (
        "default.orders", False, {"name": "lake", "kind": "sql"},
    )  # fmt: skip
    assert found["ddl"] == (
        "CREATE TABLE default.orders (\n  n bigint,\n  _kafka struct<topic: string, partition: int, offset: bigint, "
        "timestamp: timestamp, timestamp_type: string, key: string, headers: array<struct<key: string, value: binary>>>"
        "\n) USING iceberg\nPARTITIONED BY (bucket(4, n), days(_kafka.timestamp))"
    )
    sample = found["sample"]
    assert (sample["records"], sample["of"], sample["rows"]) == (26, 28, 25)
    assert sample["dead_letters"] == {"invalid_value": 1}
    assert sample["examples"]["invalid_value"].startswith("partition 0 offset 20: starts with byte 0x01")
    assert found["cost"]["bytes_per_row"] > 0 and found["cost"]["commits_per_hour_max"] == 3_600_000
    assert (found["problems"], found["verdict"]) == ([], "possible, but 1 of 26 sampled records are dead letters")
    assert world.catalog.commits == 0 and world.files == {}
    for suffix in ("", "__dlq"):
        try:
            world.load(suffix)
        except NoSuchTableError:
            continue
        raise AssertionError("a plan made a table")


async def test_the_newest_records_are_the_sample() -> None:
    world = World(2)
    for n in range(30):
        world.log.produce(0, good([n]))
    world.log.produce(1, good([99]))
    sample = await read_sample(world.spec(), world.log, world.executor, 8)
    assert sorted(zip(*(sample.records[name].to_pylist() for name in ("partition", "offset")), strict=True)) == [
        (0, 26), (0, 27), (0, 28), (0, 29), (1, 0),
    ]  # fmt: skip
    assert sample.positions == 31


async def test_without_records_the_newest_schema_tells() -> None:
    world = World()
    found = await planned(world)
    assert [column["name"] for column in found["columns"]] == ["n", "note", "_kafka"]
    assert (found["sample"]["records"], found["verdict"]) == (0, "possible")
    world.registry.gone = {1, 2}
    found = await planned(world)
    assert "columns" not in found and found["verdict"] == "possible"
    assert "no schema to plan by: the schema registry has no subject orders-value" in found["warnings"][0]


async def test_another_partition_of_a_table_that_exists() -> None:
    world = World(partition_by="[n]")
    world.log.produce(0, good([1, 2]))
    await world.life().drain()
    assert "partition_was" not in await planned(world)
    world.configs["streamlake.table.partition.by"] = "[bucket(n, 4)]"
    found = await planned(world)
    assert found["partition_was"] == "n" and "PARTITIONED BY (bucket(4, n))" in found["ddl"]
    world.configs["streamlake.table.partition.by"] = "[day(n)]"
    found = await planned(world)
    assert found["verdict"].startswith("not possible: partition.by: day(n) is not possible: column n is long")


async def test_changes_of_debezium() -> None:
    world = World(convert_value_type="json", transform_value_type="flatten_debezium", partition_by="[_op]")
    world.log.produce(0, [b'{"op":"c","after":{"n":1}}', None, b'{"n":1}'])
    found = await planned(world)
    sample = found["sample"]
    assert (sample["records"], sample["rows"], sample["tombstones"]) == (3, 1, 1)
    assert sample["dead_letters"] == {"invalid_envelope": 1}
    assert [column["name"] for column in found["columns"]] == ["n", "_rest", "_op", "_op_ts", "_source", "_kafka"]
    assert "PARTITIONED BY (_op)" in found["ddl"]
    world = World(transform_value_type="flatten_debezium")
    found = await planned(world)  # without records, by the newest schema, which is none of Debezium
    assert found["verdict"] == "not possible: not an envelope of Debezium: its schema has no text `op`"
    world.registry.schemas[3] = json.dumps(record(("after", record(("n", "long"), name="V")), ("op", "string")))
    assert [column["name"] for column in (await planned(world))["columns"]] == ["n", "_op", "_kafka"]


async def test_a_partition_that_can_never_be_is_a_problem_and_one_that_may_come_a_warning() -> None:
    world = World(partition_by="[day(n), day(missing)]")
    world.log.produce(0, good([1]))
    found = await planned(world)
    assert found["problems"] == ["partition.by: day(n) is not possible: column n is long, to which day does not apply"]
    assert found["warnings"] == ["not partitioned by day(missing) yet: the table has no column missing"]
    assert found["verdict"].startswith("not possible: partition.by")


async def test_what_the_catalog_and_the_columns_do_not_keep() -> None:
    world = World()
    world.capabilities = Capabilities(keeps_history=False)
    nanos = {"type": "long", "logicalType": "timestamp-nanos"}
    inner = {"type": "record", "name": "Inner", "fields": [{"name": "at", "type": ["null", nanos]}]}
    fields = [{"name": "n", "type": "long"}, {"name": "list", "type": {"type": "array", "items": inner}}]
    world.registry.schemas[3] = json.dumps({"type": "record", "name": "Order", "fields": fields})
    world.log.produce(0, [value(2, schema_id=3) + b"\0"])
    found = await planned(world)
    assert found["losses"] == ["list.at: nanoseconds are rounded down to microseconds"]
    assert "no history of tables" in found["warnings"][0]


async def test_a_table_that_is_there_shows_what_would_change() -> None:
    world = World()
    world.log.produce(0, good([1]))
    await drain(world)
    world.log.produce(0, good([2], 2))
    found = await planned(world)
    assert found["exists"] is True
    assert [(c["name"], c["change"]) for c in found["columns"]] == [("n", ""), ("_kafka", ""), ("note", "added")]
    other = World(catalog=world.catalog.inner, topic="others", name="orders")
    other.log.produce(0, good([1]))
    problems = (await planned(other))["problems"]
    assert problems == ["default.orders is the table of topic orders: set streamlake.table.name"]


async def test_a_table_that_cannot_be_written_to() -> None:
    world = World()
    world.log.produce(0, good([1]))
    world.catalog.inner.create_namespace("default")
    world.catalog.inner.create_table("default.orders", world_schema(), properties={"format-version": "1"})
    found = await planned(world)
    assert found["verdict"] == "not possible: table default.orders has format version 1: StreamLake writes version 2"


def world_schema() -> Any:
    from pyiceberg.schema import Schema
    from pyiceberg.types import LongType, NestedField

    return Schema(NestedField(1, "n", LongType()))


async def test_a_topic_that_is_gone() -> None:
    world = World()

    async def gone(*_: object) -> dict[int, Any]:
        raise NotFound("there is no such topic")

    world.log.positions = gone  # type: ignore[method-assign]
    try:
        await planned(world)
    except NotFound:
        return
    raise AssertionError("no error")
