"""Topics from the command line."""

import json


def test_create_list_describe_delete(run):
    done = run("topic", "create", "cli-a", "--partitions", "3", "--config", "retention.ms=60000")
    assert done.returncode == 0, done.stderr
    assert "3 partitions" in done.stdout
    assert "cli-a" in run("topic", "list").stdout
    described = run("topic", "describe", "cli-a").stdout
    assert "retention.ms" in described
    assert "60000" in described
    assert run("topic", "delete", "cli-a").returncode == 0
    assert "cli-a" not in run("topic", "list").stdout


def test_json(run):
    assert run("topic", "create", "cli-json", "-p", "2", "-c", "retention.ms=60000").returncode == 0
    (listed,) = (t for t in json.loads(run("topic", "list", "-o", "json").stdout) if t["topic"] == "cli-json")
    described = json.loads(run("topic", "describe", "cli-json", "-o", "json").stdout)
    assert (listed["partitions"], described["id"]) == (2, listed["id"])
    assert described["configs"] == {"retention.ms": "60000"}
    assert described["partitions"][1] == {"partition": 1, "leader": 0, "epoch": 0, "log_start": 0, "end": 0} | {
        "epoch": described["partitions"][1]["epoch"]
    }


def test_mistakes_say_what_to_do(run):
    run("topic", "create", "cli-b")
    for arguments, code, says in [
        (["create", "cli-b"], 1, "error: topic cli-b exists already\n"),
        (["create", "no/slash"], 1, "letters, digits"),
        (["create", "cli-c", "--config", "retention.mss=1"], 1, "retention.ms"),
        (["create", "cli-c", "--config", "nonsense"], 2, "KEY=VALUE"),
        (["create", "cli-c", "--table", "--value", "xml"], 2, "avro"),
        (["describe", "cli-none"], 1, "topic cli-none does not exist"),
        (["delete", "cli-none"], 1, "does not exist"),
        (["list", "--bootstrap", "nonsense:x"], 2, "host:port"),
    ]:
        done = run("topic", *arguments)
        assert done.returncode == code, (arguments, done.stderr)
        assert says in done.stderr, (arguments, done.stderr)
        assert "Traceback" not in done.stderr
