"""Tables from the command line."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from confluent_kafka import KafkaException, Producer
from support.avro import Subject, record
from support.lake import load_table, set_exactly
from support.wait import DEADLINE_S


def test_list_and_status(run, lake):
    assert run("topic", "create", "cli-table", "--table").returncode == 0
    producer = Producer({"bootstrap.servers": lake.bootstrap})
    for i in range(10):
        producer.produce("cli-table", str(i))
    assert producer.flush(DEADLINE_S) == 0
    lake.wait_for_table("cli-table", 10)
    listed = run("table", "list").stdout
    assert "default.cli-table" in listed
    status = run("table", "status", "cli-table").stdout
    assert "running" in status
    assert "metadata.json" in status
    (same,) = (t for t in json.loads(run("table", "list", "-o", "json").stdout) if t["topic"] == "cli-table")
    shown = json.loads(run("table", "status", "cli-table", "-o", "json").stdout)
    assert (shown["rows"], shown["namespace"]) == (10, "default") == (same["rows"], same["namespace"])


ORDER = record(("n", "long"), name="RedrivenOrder")


def test_dead_letters_are_shown_and_redriven(run, lake):
    """Records are produced before their schema is registered: dead letters, until somebody redrives them."""
    assert run("topic", "create", "cli-redrive", "--value", "avro", "--table").returncode == 0
    subject = Subject(lake, "cli-redrive")
    next_id = subject.register_elsewhere(record(("a", "long"), name="Some"), "cli-redrive-other") + 1
    producer = Producer({"bootstrap.servers": lake.bootstrap})
    for n in range(5):
        producer.produce("cli-redrive", b"\0" + next_id.to_bytes(4, "big") + bytes([2 * n]), key="k")
    producer.produce("cli-redrive", b"no schema")
    assert producer.flush(DEADLINE_S) == 0
    lake.wait_for_table("cli-redrive", 0, dead_letters=6)
    shown = run("table", "dlq", "cli-redrive").stdout
    assert "unknown_schema: 5 records" in shown and "invalid_value: 1 records" in shown
    assert f"schema {next_id} 0x" in shown and "no schema" in shown and "default.cli-redrive__dlq" in shown
    status = run("table", "status", "cli-redrive").stdout
    assert "the first record that can be a row" in status and "default.cli-redrive__dlq" in status
    assert "5 unknown_schema" in status
    assert subject.register_elsewhere(ORDER, "cli-redrive-value") == next_id
    done = run("table", "redrive", "cli-redrive")
    assert (done.returncode, done.stdout) == (0, "done: 5 dead letters are rows now, 1 stay dead letters\n")
    again = json.loads(run("table", "redrive", "cli-redrive", "--reason", "unknown_schema", "-o", "json").stdout)
    assert (again["state"], again["redriven"], again["still_dead"]) == ("done", 0, 0)
    left = json.loads(run("table", "dlq", "cli-redrive", "-o", "json").stdout)
    assert [(of["reason"], of["records"]) for of in left["reasons"]] == [("invalid_value", 1)]
    table = lake.wait_for_table("cli-redrive", 5, dead_letters=1)
    assert table["redrive"]["state"] == "done"
    rows = load_table(lake, "cli-redrive").scan().to_arrow()
    assert sorted(rows["n"].to_pylist()) == list(range(5))
    refused = run("table", "redrive", "cli-redrive", "--reason", "invalid_batch")
    assert refused.returncode == 1 and "cannot be told again from its dead letter" in refused.stderr
    assert run("table", "dlq", "cli-none").returncode == 1


def test_a_plan_before_the_table_is_there(run, lake):
    assert run("topic", "create", "cli-plan").returncode == 0
    producer = Producer({"bootstrap.servers": lake.bootstrap})
    for n in range(20):
        producer.produce("cli-plan", b'{"n": %d, "at": "x"}' % n if n else b"no JSON")
    assert producer.flush(DEADLINE_S) == 0
    flat = ("--set", "convert.value.type=json", "--set", "streamlake.table.transform.value.type=flatten")
    shown = run("table", "plan", "cli-plan", *flat, "--set", "partition.by=[truncate(n, 10)]")
    assert shown.returncode == 0, shown.stderr
    for text in (
        "default.cli-plan (new), catalog sql (kind sql)", "CREATE TABLE default.`cli-plan` (", "  n bigint,",
        "PARTITIONED BY (truncate(10, n))", "20 of 20 records: 19 rows, 1 invalid_value", "bytes a row in Parquet",
        "verdict    possible, but 1 of 20 sampled records are dead letters",
    ):  # fmt: skip
        assert text in shown.stdout, shown.stdout
    wrong = run("table", "plan", "cli-plan", *flat, "--set", "partition.by=[day(n)]", "-o", "json")
    assert wrong.returncode == 4
    assert json.loads(wrong.stdout)["problems"] == [
        "partition.by: day(n) is not possible: column n is long, to which day does not apply"
    ]
    assert run("table", "plan", "cli-plan", "--set", "convert.value.type=xml").returncode == 1
    assert run("table", "plan", "cli-nowhere").returncode == 1
    assert "cli-plan" not in lake.tables()
    # The same is tried when the configs are set.
    prefix = "streamlake.table."
    configs = {
        prefix + "enable": "true", prefix + "convert.value.type": "json", prefix + "transform.value.type": "flatten",
        prefix + "partition.by": "[day(n)]",
    }  # fmt: skip
    with pytest.raises(KafkaException, match=r"day\(n\) is not possible.*streamlake table plan cli-plan"):
        set_exactly(lake, "cli-plan", configs)
    assert "cli-plan" not in lake.tables()
    set_exactly(lake, "cli-plan", {**configs, prefix + "partition.by": "[truncate(n, 10)]"})
    lake.wait_for_table("cli-plan", 19, dead_letters=1)


def test_a_topic_that_is_no_table(run):
    run("topic", "create", "cli-plain")
    done = run("table", "status", "cli-plain")
    assert done.returncode == 1
    assert "streamlake.table.enable" in done.stderr


@pytest.fixture
def failed_table():
    """A server that has one table, which failed for a reason with brackets."""
    report = {
        "topic": "t", "table": "default.t", "state": "failed", "message": "[/why] partition by day(x): no such column",
        "rows": 0, "dead_letters": 2, "lag": 7, "last_commit": None, "metadata_location": None, "partitions": [],
        "dead_letter_table": {"table": "default.t__dlq", "metadata_location": None},
    }  # fmt: skip

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = json.dumps({"tables": [report]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_reasons_are_shown(run, failed_table):
    reason = "[/why] partition by day(x): no such column"
    listed = run("table", "list", "--http", failed_table).stdout
    assert "message" in listed and reason in listed
    status = run("table", "status", "t", "--http", failed_table).stdout
    assert reason in status and "failed" in status and "default.t__dlq" in status
