"""Help everywhere, one red line for errors."""

import pytest

COMMANDS = ["", "server", "topic", "topic create", "topic list", "topic describe", "topic delete"]
COMMANDS += ["table", "table list", "table status", "sql", "demo"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help(run, command):
    done = run(*command.split(), "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def test_version(run):
    assert run("--version").stdout.startswith("streamlake ")


def test_an_error_is_one_line_without_a_traceback(run):
    done = run("topic", "list", "--bootstrap", "127.0.0.1:1")
    assert done.returncode == 1
    assert "error:" in done.stderr
    assert "Traceback" not in done.stderr
