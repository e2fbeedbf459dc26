"""Topics as tables in the default catalog, end to end, read by DuckDB and PyIceberg."""

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, ConfigResource, NewPartitions, NewTopic, ResourceType
from support import lake
from support.avro import Subject, record
from support.log_check import Ledger
from support.server import Server
from support.wait import DEADLINE_S, wait_until

NewServer = Callable[..., Server]
NewTopicName = Callable[[], str]
AVRO = {"convert_value_type": "by_schema_id", "transform_value_type": "flatten"}
TIMESTAMP = {"type": "long", "logicalType": "timestamp-micros"}
EVENT = record(("id", "long"), ("region", "string"), ("ts", TIMESTAMP))
DAY = dt.timedelta(days=1)
BASE = dt.datetime(2026, 3, 1, 22, 30, tzinfo=dt.UTC)


def events(count: int) -> list[dict[str, Any]]:
    return [
        {"id": i, "region": ("eu", "us", "äü")[i % 3], "ts": BASE + i * dt.timedelta(hours=1)} for i in range(count)
    ]


def test_a_new_optional_field_is_a_new_column_and_old_rows_are_null_in_it(server: Server, topic: NewTopicName) -> None:
    name = lake.create_topic(server, topic(), **AVRO)
    subject = Subject(server, name)
    old = record(("id", "int"), ("name", "string"))
    new = record(("id", "long"), ("name", "string"), ("note", ["null", "string"], None))
    lake.produce(server, name, [subject.value(old, {"id": i, "name": f"n{i}"}) for i in range(3)])
    server.wait_for_table(name, 3)
    before = lake.load_table(server, name)
    assert [f.name for f in before.schema().fields] == ["id", "name", "_kafka"]
    lake.produce(server, name, [subject.value(new, {"id": 2**40, "name": "n", "note": "new"})])
    lake.produce(server, name, [subject.value(old, {"id": 4, "name": "late writer"})])
    server.wait_for_table(name, 5)

    expected = [(0, "n0", None), (1, "n1", None), (2, "n2", None), (2**40, "n", "new"), (4, "late writer", None)]
    assert lake.query(server, f'SELECT id, name, note FROM "{name}" ORDER BY _kafka."offset"') == expected
    after = lake.load_table(server, name)
    assert [f.name for f in after.schema().fields] == ["id", "name", "_kafka", "note"]
    assert [after.schema().find_field(f.name).field_id for f in before.schema().fields] == [
        f.field_id for f in before.schema().fields
    ]
    assert str(after.schema().find_field("id").field_type) == "long", "int was widened"
    rows = sorted(after.scan().to_arrow().to_pylist(), key=lambda r: r["_kafka"]["offset"])
    assert [(r["id"], r["name"], r["note"]) for r in rows] == expected


def test_partition_specs(server: Server, topic: NewTopicName) -> None:
    """Files lie in their partitions, and filters find the rows."""
    sent = events(60)
    expected = {(e["id"], e["region"], e["ts"]) for e in sent}
    for by, fields, folder in (
        ("[day(ts)]", ["day"], "ts_day=2026-03-02"),
        ("[hour(ts)]", ["hour"], "ts_hour=2026-03-02-00"),
        ("[bucket(id, 4), region]", ["bucket[4]", "identity"], "/region=eu"),
        ("[truncate(region, 1), month(_kafka.timestamp)]", ["truncate[1]", "month"], "region_trunc_1=e"),
    ):
        name = lake.create_topic(server, topic(), partition_by=by, **AVRO)
        subject = Subject(server, name)
        lake.produce(server, name, [subject.value(EVENT, event) for event in sent])
        server.wait_for_table(name, len(sent))
        table = lake.load_table(server, name)
        assert [str(f.transform) for f in table.spec().fields] == fields
        paths = [task.file.file_path for task in table.scan().plan_files()]
        assert any(folder in path for path in paths), paths[:3]
        rows = lake.query(server, f'SELECT id, region, ts FROM "{name}"')
        assert len(rows) == len(sent) and set(rows) == expected
        day = dt.datetime(2026, 3, 2, tzinfo=dt.UTC)
        of_day = table.scan(f"ts >= '{day.isoformat()}' and ts < '{(day + DAY).isoformat()}'").to_arrow()
        assert of_day.num_rows == sum(day <= e["ts"] < day + DAY for e in sent) == 24
        assert {r["region"] for r in table.scan("region == 'äü'").to_arrow().to_pylist()} == {"äü"}


def test_lists_and_maps_whose_items_become_a_wider_union(server: Server, topic: NewTopicName) -> None:
    name = lake.create_topic(server, topic(), **AVRO)
    subject = Subject(server, name)

    def schema(items: Any) -> Any:
        return record(("tags", {"type": "array", "items": items}), ("sizes", {"type": "map", "values": items}))

    old, new = schema(["null", "string"]), schema(["null", "string", "long"])
    lake.produce(server, name, [subject.value(old, {"tags": ["a", None], "sizes": {"x": "b"}})])
    server.wait_for_table(name, 1)
    lake.produce(server, name, [subject.value(new, {"tags": ["c", 5], "sizes": {"x": 6, "y": "d"}})])
    lake.produce(server, name, [subject.value(old, {"tags": [], "sizes": {}})])
    server.wait_for_table(name, 3)
    statement = f'SELECT tags, tags_long, sizes, sizes_long FROM "{name}" ORDER BY _kafka."offset"'
    assert lake.query(server, statement) == [
        (["a", None], None, {"x": "b"}, None),
        (["c", None], [None, 5], {"x": None, "y": "d"}, {"x": 6, "y": None}),
        ([], None, {}, None),
    ]
    rows = lake.load_table(server, name).scan().to_arrow().to_pylist()
    (row,) = [row for row in rows if row["tags_long"] is not None]
    assert (row["tags"], row["tags_long"]) == (["c", None], [None, 5])
    assert (dict(row["sizes"]), dict(row["sizes_long"])) == ({"x": None, "y": "d"}, {"x": 6, "y": None})


def test_a_partition_spec_that_changes(server: Server, topic: NewTopicName) -> None:
    """Files keep the spec that they were written with, and readers find the rows of all."""
    name = lake.create_topic(server, topic(), partition_by="[region]", **AVRO)
    subject = Subject(server, name)
    sent = events(20)
    values = [subject.value(EVENT, event) for event in sent]
    for rounds, by in enumerate(("[region]", "[day(ts), bucket(id, 4)]", "[]", "[region]"), start=1):
        lake.set_config(server, name, streamlake_table_partition_by=by)
        lake.produce(server, name, values)
        server.wait_for_table(name, rounds * len(sent))
    table = lake.load_table(server, name)
    specs = [[str(field.transform) for field in spec.fields] for spec in table.specs().values()]
    assert specs == [["identity"], ["day", "bucket[4]"], []]
    assert table.spec().spec_id == 0
    assert {task.file.spec_id for task in table.scan().plan_files()} == {0, 1, 2}
    some = sent[7]
    found = table.scan(f"region == '{some['region']}' and id == {some['id']}").to_arrow()
    assert found.num_rows == 4
    where = f"region = '{some['region']}' AND id = {some['id']} AND ts = TIMESTAMPTZ '{some['ts'].isoformat()}'"
    assert lake.query(server, f'SELECT count(*) FROM "{name}" WHERE {where}') == [(4,)]
    assert lake.query(server, f'SELECT count(*), count(DISTINCT id) FROM "{name}"') == [(80, 20)]


def test_rows_of_many_partitions_share_a_file(server: Server, topic: NewTopicName) -> None:
    name = lake.create_topic(server, topic(), 8, convert_value_type="string", commit_interval_ms="1000")
    ledger = Ledger(server, name, 8)
    ledger.produce(400)
    ledger.settle()
    server.wait_for_table(name, 400)
    table = lake.load_table(server, name)
    files = list(table.scan().plan_files())
    assert len(files) <= 3, "a file for each of eight partitions"
    rows = lake.query(server, f'SELECT _kafka.partition, _kafka."offset", value FROM "{name}"')
    assert {(p, o): v.encode() for p, o, v in rows} == ledger.check(server)


def test_text_and_bytes_with_everything_that_kafka_knows_of_a_record(server: Server, topic: NewTopicName) -> None:
    for kind, value, bad in (("string", "wörld", 1), ("raw", b"\xff\x00", 0)):
        name = lake.create_topic(server, topic(), convert_value_type=kind, convert_key_type=kind)
        producer = Producer({"bootstrap.servers": server.bootstrap})
        encoded = value.encode() if isinstance(value, str) else value
        headers = [("a", b"1"), ("a", None), ("é", b"")]
        producer.produce(name, encoded, encoded, headers=headers, timestamp=1_772_404_200_123)
        producer.produce(name, None, b"key")
        producer.produce(name, b"", None)
        producer.produce(name, b"\xff\xfe not text", b"key")
        assert producer.flush(DEADLINE_S) == 0
        server.wait_for_table(name, 4 - bad, bad)
        rows = lake.query(
            server,
            f"SELECT value, _kafka.key, _kafka.headers, _kafka.topic, _kafka.timestamp, _kafka.timestamp_type "
            f'FROM "{name}" ORDER BY _kafka."offset"',
        )
        first = rows[0]
        assert first[:2] == (value, value)
        assert [(h["key"], h["value"]) for h in first[2]] == headers
        assert first[3:] == (name, dt.datetime(2026, 3, 1, 22, 30, 0, 123_000, dt.UTC), "CreateTime")
        null_key = "key" if kind == "string" else b"key"
        assert rows[1][:2] == (None, null_key)
        assert rows[2][:2] == ("" if kind == "string" else b"", None)


def test_a_topic_with_data_becomes_a_table(server: Server, topic: NewTopicName) -> None:
    """Also its old records, and a second time after the table was switched off for a while."""
    name = lake.create_topic(server, topic(), 3)
    ledger = Ledger(server, name, 3)
    ledger.produce(300)
    ledger.settle()
    assert name not in server.tables()
    configs = {
        "streamlake_table_enable": "true",
        "streamlake_table_convert_value_type": "string",
        "streamlake_table_commit_interval_ms": "200",
    }
    lake.set_config(server, name, **configs)
    server.wait_for_table(name, 300)
    lake.set_config(server, name, streamlake_table_enable="false")
    ledger.produce(300)
    ledger.settle()
    assert name not in server.tables()
    lake.set_config(server, name, streamlake_table_enable="true")
    ledger.produce(300)
    ledger.settle()
    server.wait_for_table(name, 900)
    rows = lake.query(server, f'SELECT _kafka.partition, _kafka."offset", value FROM "{name}"')
    assert {(p, o): v.encode() for p, o, v in rows} == ledger.check(server)


def test_a_topic_that_grows(server: Server, topic: NewTopicName) -> None:
    name = lake.create_topic(server, topic(), 1, convert_value_type="string")
    lake.produce(server, name, [b"a"])
    server.wait_for_table(name, 1)
    admin = AdminClient({"bootstrap.servers": server.bootstrap})
    admin.create_partitions([NewPartitions(name, 3)])[name].result(DEADLINE_S)
    for partition in range(3):
        lake.produce(server, name, [b"b", b"c"], partition)
    server.wait_for_table(name, 7)
    found = lake.query(server, f'SELECT _kafka.partition, count(*) FROM "{name}" GROUP BY 1 ORDER BY 1')
    assert found == [(0, 3), (1, 2), (2, 2)]


@pytest.mark.slow
def test_a_restart_in_between(new_server: NewServer) -> None:
    server = new_server().start()
    lake.create_topic(server, "t", 2, convert_value_type="string")
    ledger = Ledger(server, "t", 2)
    for end in (server.stop, server.kill):
        ledger.produce(500)
        ledger.settle()
        end()
        server.start()
    ledger.produce(100)
    ledger.settle()
    server.wait_for_table("t", 1100)
    rows = lake.query(server, 'SELECT _kafka.partition, _kafka."offset", value FROM t')
    assert {(p, o): v.encode() for p, o, v in rows} == ledger.check(server)
    summaries = [s.summary for s in lake.load_table(server, "t").snapshots()]
    assert len(summaries) >= 2
    assert server.stop() == 0


def test_automq_names(server: Server, topic: NewTopicName) -> None:
    """A script written for AutoMQ makes the same table."""
    name = topic()
    admin = AdminClient({"bootstrap.servers": server.bootstrap})
    configs = {
        "automq.table.topic.enable": "true",
        "automq.table.topic.commit.interval.ms": "200",
        "automq.table.topic.schema.type": "schema",
        "automq.table.topic.namespace": "old_shop",
        "automq.table.topic.partition.by": "[day(ts)]",
        "streamlake.table.layout": "automq",
    }
    admin.create_topics([NewTopic(name, 1, config=configs)])[name].result(DEADLINE_S)
    resource = ConfigResource(ResourceType.TOPIC, name)
    described = {k: v.value for k, v in admin.describe_configs([resource])[resource].result(DEADLINE_S).items()}
    assert described["streamlake.table.enable"] == "true"
    assert described["streamlake.table.convert.value.type"] == "by_schema_id"
    assert described["streamlake.table.transform.value.type"] == "flatten"
    subject = Subject(server, name)
    lake.produce(server, name, [subject.value(EVENT, event) for event in events(30)])
    report = server.wait_for_table(name, 30)
    assert report["table"] == f"old_shop.{name}"
    columns = [row[0] for row in lake.query(server, f'DESCRIBE old_shop."{name}"')]
    assert columns == ["id", "region", "ts", "_kafka_header", "_kafka_key", "_kafka_metadata"]
    assert lake.query(server, f'SELECT count(*), max(_kafka_metadata."offset") FROM old_shop."{name}"') == [(30, 29)]


def test_retention_waits_for_the_table(new_server: NewServer) -> None:
    """retention.ms=1 is over before any commit. Without a table the records go; with one each arrives first."""
    server = new_server("[storage]\nretention_interval_s = 0.05\nupload_interval_s = 0.1\nupload_bytes = 65536\n")
    server.start()
    lake.create_topic(server, "plain")
    lake.create_topic(server, "t", 2, convert_value_type="string", commit_interval_ms="1000")
    for name in ("plain", "t"):
        lake.set_config(server, name, retention_ms="1")
    for _ in range(10):
        lake.produce(server, "t", [b"x" * 1000] * 100, 0)
        lake.produce(server, "t", [b"x" * 1000] * 100, 1)
        lake.produce(server, "plain", [b"x" * 1000] * 100)
    server.wait_for_table("t", 2000)
    rows = lake.query(
        server,
        'SELECT _kafka.partition, min(_kafka."offset"), count(DISTINCT _kafka."offset") FROM t GROUP BY 1 ORDER BY 1',
    )
    assert rows == [(0, 0, 1000), (1, 0, 1000)]
    assert server.tables()["t"]["skipped"].get("deleted", 0) == 0
    assert lake.log_start(server, "plain") > 0, "retention runs"
    lake.produce(server, "t", [b"y"], 0)  # a later commit shows the table's progress once more: the hold follows
    lake.produce(server, "t", [b"y"], 1)
    server.wait_for_table("t", 2002)
    wait_until(lambda: lake.log_start(server, "t") > 0)
    assert server.stop() == 0
