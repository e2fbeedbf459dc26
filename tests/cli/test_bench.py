"""`streamlake bench …` against a real server: short runs, what they print, and mistakes."""

import json

import pytest


def measured(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def topics(run):
    return run("topic", "list").stdout


def test_produce_until_there_were_so_many_records(run):
    found = measured(run("bench", "produce", "--records", "3000", "--record-bytes", "100", "--json"))
    assert (found["records"], found["bytes"]) == (3000, 300_000)
    assert found["requests"] >= 1
    assert found["mb_per_s"] > 0
    assert found["cpu_s"] > 0
    assert found["broker_cpu_s"] is not None  # it runs on this machine
    assert "streamlake-bench-" not in topics(run)


def test_produce_prints_a_table(run):
    done = run("bench", "produce", "--records", "1000", "--seconds", "5", "--compression", "lz4", "--acks", "1")
    assert done.returncode == 0, done.stderr
    for what in ("MB/s", "requests/s", "CPU time of the broker"):
        assert what in done.stdout


def test_ready_made_requests_have_the_batches_that_were_asked_for(run):
    options = ("--client", "raw", "--records", "2000", "--batch-records", "10", "--partitions", "2")
    found = measured(run("bench", "produce", *options, "--json"))
    assert found["records"] >= 2000
    assert found["requests"] * 10 == found["records"]


def test_latency_at_a_fixed_rate(run):
    found = measured(run("bench", "produce", "--rate", "200", "--seconds", "1", "--json"))
    assert 199 <= found["count"] <= 201  # the warm-up ends with a tick, or just before it
    assert 0 < found["p50_ms"] <= found["p99_ms"] <= found["p999_ms"] <= found["max_ms"]


@pytest.mark.parametrize("client", ["librdkafka", "raw"])
def test_fetch(run, client):
    found = measured(run("bench", "fetch", "--records", "5000", "--partitions", "2", "--client", client, "--json"))
    assert 0 < found["records"] <= 5001
    assert found["requests"] >= 1
    assert "streamlake-bench-" not in topics(run)


@pytest.mark.slow
def test_table(run):
    found = measured(run("bench", "table", "--records", "5000", "--json"))
    assert found["rows"] == 5001
    assert 500 <= found["bytes"] / 5000 <= 520
    assert 0 < found["first_s"] <= found["seconds"]
    assert found["rows_per_s"] > 0


@pytest.mark.slow
def test_e2e(run):
    found = measured(run("bench", "e2e", "--rate", "50", "--seconds", "2", "--commit-interval-ms", "200", "--json"))
    assert found["count"] == 100
    assert 0 < found["p50_ms"] <= found["max_ms"]


def test_mistakes_say_what_to_do(run):
    for arguments, code, says in [
        (["produce", "--client", "raw", "--compression", "lz4"], 2, "--compression"),
        (["produce", "--client", "raw", "--acks", "0"], 1, "--acks"),
        (["produce", "--rate", "0"], 1, "--rate"),
        (["produce", "--bootstrap", "127.0.0.1:1"], 3, "no Kafka broker answers at 127.0.0.1:1"),
        (["table", "--http", "http://127.0.0.1:1"], 3, "tables need StreamLake"),
        (["e2e", "--http", "http://127.0.0.1:1"], 3, "streamlake server"),
    ]:
        done = run("bench", *arguments)
        assert done.returncode == code, (arguments, done.stderr)
        assert says in done.stderr, (arguments, done.stderr)
        assert "Traceback" not in done.stderr
    assert "streamlake-bench-" not in topics(run)
