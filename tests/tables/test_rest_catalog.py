"""A topic as a table in an Iceberg REST catalog with its files on S3, read back by PyIceberg and DuckDB."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support import lake, rest_lake
from support.avro import Subject, record
from support.log_check import Ledger, read_log
from support.seaweedfs import SeaweedFS
from support.server import Server

from streamlake.lake import sql


@pytest.mark.slow
def test_a_topic_in_a_rest_catalog(seaweedfs: SeaweedFS, new_server: Callable[..., Server], tmp_path: Path) -> None:
    config = rest_lake.server_config(seaweedfs, tmp_path)
    server = new_server(config, environ=rest_lake.environ(seaweedfs)).start()
    lake.create_topic(server, "orders", 2, namespace="shop", convert_value_type="string")
    ledger = Ledger(server, "orders", 2)
    ledger.produce(500)
    ledger.settle()
    server.wait_for_table("orders", 500)
    assert server.stop() == 0
    server.start()
    ledger.produce(500)
    ledger.settle()
    report = server.wait_for_table("orders", 1000)
    assert report["table"] == "shop.orders"

    table = rest_lake.catalog(seaweedfs).load_table("shop.orders")
    assert report["metadata_location"] == table.metadata_location
    assert table.metadata_location.startswith("s3://")
    rows = table.scan().to_arrow().to_pylist()
    log = ledger.check(server)
    assert len(rows) == len(log) == 1000
    assert {(r["_kafka"]["partition"], r["_kafka"]["offset"]): r["value"].encode() for r in rows} == log

    duck = sql.connect()
    endpoint = seaweedfs.s3_endpoint.removeprefix("http://")
    duck.execute(
        f"CREATE SECRET (TYPE s3, KEY_ID '{seaweedfs.access_key}', SECRET '{seaweedfs.secret_key}', "
        f"ENDPOINT '{endpoint}', USE_SSL false, URL_STYLE 'path', REGION '{seaweedfs.region}')"
    )
    assert duck.execute(
        f"SELECT count(*), count(DISTINCT value) FROM iceberg_scan('{table.metadata_location}')"
    ).fetchall() == [(1000, 1000)]
    assert server.stop() == 0
    assert seaweedfs.secret_key not in server.log


@pytest.mark.slow
def test_avro_and_dead_letters_in_a_rest_catalog(
    seaweedfs: SeaweedFS, new_server: Callable[..., Server], tmp_path: Path
) -> None:
    config = rest_lake.server_config(seaweedfs, tmp_path)
    server = new_server(config, environ=rest_lake.environ(seaweedfs)).start()
    avro = {"convert_value_type": "by_schema_id", "transform_value_type": "flatten"}
    lake.create_topic(server, "events", namespace="shop", partition_by="[bucket(id, 4)]", **avro)
    subject = Subject(server, "events")
    old, new = record(("id", "long")), record(("id", "long"), ("note", ["null", "string"], None))
    values = [subject.value(old, {"id": 1}), b"bad", subject.value(new, {"id": 2, "note": "n"})]
    lake.produce(server, "events", values)
    report = server.wait_for_table("events", 2, 1)
    assert len(read_log(server, "events")) == 3
    catalog = rest_lake.catalog(seaweedfs)
    rows = catalog.load_table("shop.events").scan().to_arrow().to_pylist()
    assert {(r["id"], r["note"]) for r in rows} == {(1, None), (2, "n")}
    assert report["dead_letter_table"]["table"] == "shop.events__dlq"
    (dead,) = catalog.load_table("shop.events__dlq").scan().to_arrow().to_pylist()
    assert (dead["offset"], dead["reason"], dead["value"]) == (1, "invalid_value", b"bad")
    assert server.stop() == 0
