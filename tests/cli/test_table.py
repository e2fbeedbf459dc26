"""Tables from the command line."""

from confluent_kafka import Producer
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
    assert "metadata.json" in status.replace("\n", "")


def test_a_topic_that_is_no_table(run):
    run("topic", "create", "cli-plain")
    done = run("table", "status", "cli-plain")
    assert done.returncode == 1
    assert "streamlake.table.enable" in done.stderr
