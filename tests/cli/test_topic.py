"""Topics from the command line."""


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


def test_mistakes_say_what_to_do(run):
    run("topic", "create", "cli-b")
    for arguments, says in [
        (["create", "cli-b"], "exists"),
        (["create", "no/slash"], "letters, digits"),
        (["create", "cli-c", "--config", "retention.mss=1"], "retention.ms"),
        (["create", "cli-c", "--config", "nonsense"], "KEY=VALUE"),
        (["create", "cli-c", "--table", "--value", "xml"], "avro"),
        (["describe", "cli-none"], "unknown topic"),
        (["delete", "cli-none"], "does not exist"),
        (["list", "--bootstrap", "nonsense"], "host:port"),
    ]:
        done = run("topic", *arguments)
        assert done.returncode == 1, arguments
        assert says in done.stderr, (arguments, done.stderr)
        assert "Traceback" not in done.stderr
