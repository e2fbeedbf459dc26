"""Help everywhere, one line for errors, exit codes, and no more imported than a command needs."""

import os
import signal
import subprocess
import sys
import time

import pytest
from support.server import heed_interrupts
from support.wait import DEADLINE_S
from typer.main import get_command

from streamlake.cli.main import COMMANDS, app

GROUPS = ["", "server", "topic", "topic create", "topic list", "topic describe", "topic delete", "topic produce"]
GROUPS += [
    "topic consume",
    "cluster",
    "cluster up",
    "cluster brokers",
    "cluster status",
    "cluster drain",
    "cluster undrain",
    "cluster move",
    "table",
    "table list",
    "table status",
    "catalog",
    "catalog list",
    "catalog check",
    "sql",
    "demo",
    "bench",
    "bench produce",
]


@pytest.mark.parametrize("command", GROUPS)
def test_help(run, command):
    done = run(*command.split(), "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def test_help_keeps_its_brackets(run):
    text = run("server", "--help").stdout
    for default in ("[default: streamlake-data]", "[default: 127.0.0.1]", "[default: 9092]", "[default: 8081]"):
        assert default in " ".join(text.split())


def test_the_list_of_commands_says_what_each_says_of_itself():
    root = get_command(app)
    for name, help in COMMANDS.items():
        own = root.get_command(None, name).help
        assert own.startswith(help.rstrip(".")), name


def test_version_and_share(run):
    assert run("--version").stdout.startswith("streamlake 0.")
    done = run("--share")
    assert os.path.exists(os.path.join(done.stdout.strip(), "catalogs", "rest.toml"))


def test_an_error_is_one_line_without_a_traceback(run):
    done = run("topic", "list", "--bootstrap", "127.0.0.1:1")
    assert done.returncode == 3
    assert done.stderr == (
        "error: no Kafka broker answers (127.0.0.1:1: Connection refused): start one with `streamlake server`, or give "
        "--bootstrap\n"
    )


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["topic", "list"], 0),
        (["topic", "describe", "cli-none"], 1),
        (["table", "status", "cli-none"], 1),
        (["sql", "SELECT * FROM nowhere"], 1),
        (["topic", "list", "--bootstrap", "nonsense:x"], 2),
        (["topic", "list", "--no-such-option"], 2),
        (["topic", "create", "x", "--config", "nonsense"], 2),
        (["topc"], 2),
        (["table", "list", "--http", "127.0.0.1:1"], 3),
        (["sql", "SELECT 1", "--http", "127.0.0.1:1"], 3),
    ],
)
def test_exit_codes(run, arguments, code):
    done = run(*arguments)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    if code:
        assert done.stdout == "", "what is no data goes to stderr"


def test_a_misspelt_command_is_told_its_name(run):
    assert "Did you mean 'topic'" in run("topc").stderr


def imported_by(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_a_command_imports_no_other_commands():
    names = imported_by("import streamlake.cli.main")
    assert not {n for n in names if n.startswith("streamlake.")} - {"streamlake.cli", "streamlake.cli.main"}
    assert not names & {"pydantic", "rich", "msgspec", "asyncio", "importlib.metadata"}
    names = imported_by(
        "import streamlake.cli.main as m; m.get_command = __import__('typer').main.get_command(m.app).get_command(None, 'topic')"
    )
    assert not {
        n
        for n in names
        if "bench" in n or n in ("pyarrow", "duckdb", "pydantic", "confluent_kafka", "streamlake.broker.process")
    }


def test_only_a_prompt_imports_what_prompts_need(lake):
    names = imported_by(
        f"import sys\nsys.argv = ['streamlake', 'sql', 'SELECT 1', '--http', '{lake.http}']\n"
        "import streamlake.cli.main as m\ntry: m.main()\nexcept SystemExit as end: assert not end.code"
    )
    assert "duckdb" in names
    assert not names & {"prompt_toolkit", "pygments.lexers"}


def test_a_closed_pipe_and_an_interrupt_are_quiet(run, lake):
    assert run("topic", "create", "cli-quiet").returncode == 0
    assert run("topic", "produce", "cli-quiet", text="x\n" * 200_000).returncode == 0
    tool = f"{sys.executable} -m streamlake.cli.main topic consume cli-quiet -b {lake.bootstrap}"
    done = subprocess.run(
        ["bash", "-c", f"{tool} | head -1; echo ${{PIPESTATUS[0]}}"], capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert (done.stdout, done.stderr) == ("x\n0\n", "")
    process = subprocess.Popen(
        [*tool.split(), "--follow"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=heed_interrupts
    )
    assert process.stdout.readline() == b"x\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, stderr) == (130, b"")


def test_a_terminal_that_is_not_utf8_gets_escapes(run, lake):
    environ = {**lake.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-m", "streamlake.cli.main", "sql", "SELECT 'ö' AS x", "--http", lake.http],
        capture_output=True,
        env=environ,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 0, done.stderr
    assert rb"\xf6" in done.stdout
