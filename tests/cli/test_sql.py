"""SQL from the command line, one query or a session."""

import pytest
from confluent_kafka import Producer
from support.wait import DEADLINE_S


@pytest.fixture(scope="module")
def rows(lake):
    producer = Producer({"bootstrap.servers": lake.bootstrap})
    from streamlake.cli.topic import create

    create("cli-sql", partitions=2, config=[], table=True, value="string", bootstrap=lake.bootstrap)
    for i in range(25):
        producer.produce("cli-sql", f"v{i}", key=str(i))
    assert producer.flush(DEADLINE_S) == 0
    lake.wait_for_table("cli-sql", 25)


def test_one_query(run, rows):
    done = run("sql", 'SELECT count(*) AS n, max(_kafka.timestamp) IS NOT NULL AS t FROM "cli-sql"')
    assert done.returncode == 0, done.stderr
    assert "25" in done.stdout
    assert "True" in done.stdout


def test_namespace_and_time(run, rows):
    done = run("sql", 'SELECT _kafka.timestamp AS t, value FROM "default"."cli-sql" ORDER BY value LIMIT 1')
    assert done.returncode == 0, done.stderr
    assert "v0" in done.stdout


def test_a_wrong_query_is_a_clear_error(run, rows):
    done = run("sql", "SELECT * FROM nowhere")
    assert done.returncode == 1
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_session_survives_errors(run, rows):
    done = run("sql", text="SELECT nonsense;\nSELECT 40 +\n 2 AS answer;\n")
    assert done.returncode == 0, done.stderr
    assert "42" in done.stdout
    assert "nonsense" in done.stderr
