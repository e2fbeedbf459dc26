"""SQL from the command line: queries and scripts. The prompt: test_sql_shell.py."""

import os
import re
import signal
import subprocess
import sys
import uuid

import pytest
from confluent_kafka import Producer
from support.server import heed_interrupts
from support.wait import DEADLINE_S, wait_until


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
    assert "Table with name nowhere does not exist" in done.stderr
    assert "duckdb_" not in done.stderr
    assert '"default"."cli-sql"' in done.stderr
    assert "Traceback" not in done.stderr


def test_results_are_data(run):
    done = run("sql", "SELECT '[/foo]' AS \"[a]\", '[red]b' AS b, E'\\x1b[31m' AS c, 'x y' AS d")
    assert done.returncode == 0, done.stderr
    for text in ("[a]", "[/foo]", "[red]b", r"\x1b[31m", "x y"):
        assert text in done.stdout


def test_statements_one_by_one(run, rows):
    done = run(
        "sql", "CREATE TABLE t AS SELECT 41 AS n; UPDATE t SET n = n + 1; SELECT n AS answer FROM t; SHOW TABLES"
    )
    assert done.returncode == 0, done.stderr
    assert "42" in done.stdout
    assert "cli-sql" in done.stdout


def test_a_script_ends_at_its_first_error(run, rows, tmp_path):
    script = 'SELECT 40 +\n 2 AS answer;\nSELECT count(*) AS n FROM "cli-sql"; SELECT "[/x]";\nSELECT \'late\''
    (tmp_path / "script.sql").write_text(script)
    for done in (
        run("sql", text=script),
        run("sql", "-f", "-", text=script),
        run("sql", "-f", tmp_path / "script.sql"),
    ):
        assert done.returncode == 1
        assert done.stdout.split() == ["answer", "42", "n", "25"]
        assert done.stderr.startswith("error: Binder Error: ") and "[/x]" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_statement_that_is_complete_does_not_wait_for_the_next(lake, rows):
    command = [sys.executable, "-m", "streamlake.cli.main", "sql", "-o", "csv", "--http", lake.http]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        for answer in ("42", "43"):
            process.stdin.write(f"SELECT {answer}\nAS n;\n")
            process.stdin.flush()
            assert (process.stdout.readline(), process.stdout.readline()) == ("n\n", f"{answer}\n")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["-f", "no-such-file.sql"], 1, "no-such-file.sql cannot be read: No such file"),
        (["-f", __file__, "SELECT 1"], 2, "a query and --file: give one of them"),
        (["SELECT 'a"], 1, "unterminated quoted string"),
        (["SELEC 1"], 1, 'syntax error at or near "SELEC"'),
        (["-o", "xml", "SELECT 1"], 2, "'xml' is not one of 'text', 'csv', 'json'"),
    ],
)
def test_mistakes(run, arguments, code, words):
    done = run("sql", *arguments)
    assert done.returncode == code, done.stderr
    assert words in " ".join(done.stderr.split()) and "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_statement_without_an_end_is_refused(run):
    done = run("sql", text="SELECT 1, " * 200_000)
    assert done.returncode == 1
    assert "is a semicolon missing?" in done.stderr


def test_the_wrong_port_is_told(run, lake):
    done = run("sql", "SELECT 1", "--http", lake.bootstrap)
    assert done.returncode == 3
    assert "give --http" in done.stderr and "Traceback" not in done.stderr


def test_a_topic_that_is_no_table(run):
    assert run("topic", "create", "cli-plain").returncode == 0
    done = run("sql", 'SELECT * FROM "cli-plain"')
    assert done.returncode == 1
    assert "A topic is a table if its config streamlake.table.enable is true" in done.stderr


def test_tables_of_no_topic_and_writing(run, rows):
    create = "CREATE TABLE sql.default.cli_own AS SELECT 42 AS answer"
    done = run("sql", create)
    assert done.returncode == 1 and "read-only" in done.stderr
    done = run("sql", "--write", create)
    assert done.returncode == 0, done.stderr
    assert run("sql", "-o", "csv", "FROM cli_own").stdout == "answer\n42\n"
    assert "cli_own" in run("sql", "SHOW TABLES").stdout.split()


def test_ctrl_c_ends_a_query(lake):
    command = [sys.executable, "-m", "streamlake.cli.main", "sql", "-o", "csv", "--http", lake.http]
    endless = "SELECT 'begun' AS x; SELECT count(*) FROM range(100_000_000_000) a, range(1000) b"
    with subprocess.Popen(
        [*command, endless], stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=heed_interrupts
    ) as process:
        try:
            assert (process.stdout.readline(), process.stdout.readline()) == (b"x\n", b"begun\n")
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=DEADLINE_S) == 130
            assert process.stderr.read() == b""
        finally:
            process.kill()


def test_before_the_first_commit(run):
    assert (
        run("topic", "create", "cli-early", "--table", "-c", "streamlake.table.commit.interval.ms=900000").returncode
        == 0
    )
    done = run("sql", 'SELECT * FROM "cli-early"')
    assert done.returncode == 1
    assert "table default.cli-early has no commit yet" in done.stderr
    assert "its topic has no records yet" in done.stderr
    assert "--wait" in done.stderr


def test_rows_that_no_commit_has_yet(run):
    run("topic", "create", "cli-fresh", "--table", "-c", "streamlake.table.commit.interval.ms=900000")
    for n in range(1, 4):
        assert run("topic", "produce", "cli-fresh", text="x\n").returncode == 0
        wait_until(lambda: run("sql", 'SELECT count(*) AS n FROM "cli-fresh"').stdout.split() == ["n", str(n)])  # noqa: B023


def test_wait_sees_all_that_was_produced_before(run):
    run("topic", "create", "cli-wait", "--table")
    for n in range(1, 4):
        assert run("topic", "produce", "cli-wait", text="x\n" * 100).returncode == 0
        done = run("sql", "--wait", 'SELECT count(*) AS n FROM "cli-wait"')
        assert done.returncode == 0, done.stderr
        assert str(100 * n) in done.stdout


def test_wait_has_an_end_and_sees_a_table_that_comes_late(run, lake):
    run("topic", "create", "cli-late", "--table")
    worker = lake.wait_for_worker()
    os.kill(worker, signal.SIGSTOP)
    try:
        run("topic", "produce", "cli-late", text="x\n")
        done = run("sql", "--wait", "--wait-s", "0.5", 'SELECT * FROM "cli-late"')
    finally:
        os.kill(worker, signal.SIGCONT)
    assert done.returncode == 3, done.stdout + done.stderr
    assert re.search(
        r"after 0.5 s table default.cli-late does not yet hold all of its topic: \w+, 1 record", done.stderr
    )
    assert run("sql", "--wait", 'SELECT value FROM "cli-late"').stdout.split() == ["value", "x"]


@pytest.mark.parametrize("written", ['"{0}"', '"default"."{0}"'])
def test_dotted_topics(run, written):
    name = f"shop.orders.v{uuid.uuid4().hex[:6]}"
    run("topic", "create", name, "--table")
    run("topic", "produce", name, text="x\n")
    done = run("sql", "--wait", f"SELECT value FROM {written.format(name)}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["value", "x"]
    done = run("sql", f"SELECT value FROM {name}")
    assert done.returncode == 1
    assert f'double quotes: "{name}"' in done.stderr


TABLES = {  # topic → namespace, name, how it is written
    "cli-n1": ("cli.one", "same", '"cli.one".same'),
    "cli-n2": ("cli", "one.same", '"cli"."one.same"'),
    "cli-n3": ("cli.two", "same", '"cli.two"."same"'),
    "cli-n4": ("main", "same", "main.same"),
    "cli-n5": ("system", "same", "memory.system.same"),
    "cli-case": ("default", "", '"cli-case"'),
    "CLI-case": ("default", "", '"CLI-case"'),
}


@pytest.mark.slow
def test_two_namespaces_and_both_cases(run, lake):
    from streamlake.cli.topic import create

    producer = Producer({"bootstrap.servers": lake.bootstrap})
    for topic, (namespace, name, _) in TABLES.items():
        config = [f"streamlake.table.namespace={namespace}", f"streamlake.table.name={name}"]
        create(topic, config=config, table=True, value="string", bootstrap=lake.bootstrap)
        producer.produce(topic, f"of {topic}")
    assert producer.flush(DEADLINE_S) == 0
    for topic, (_, _, written) in TABLES.items():
        done = run("sql", "--wait", f"SELECT value FROM {written}")
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[1].strip() == f"of {topic}", written
    done = run("sql", 'SELECT * FROM "Cli-Case"')
    assert done.returncode == 1
    assert "differ only in case" in done.stderr
