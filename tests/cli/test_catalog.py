"""`streamlake catalog`: what it prints and how it ends."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.server import heed_interrupts
from support.wait import DEADLINE_S

Run = Callable[..., "subprocess.CompletedProcess[str]"]
CONFIG = """
[tables]
catalog = "lake"
[catalogs.lake]
kind = "sql"
properties.uri = "sqlite:///{folder}/lake.db"
properties.warehouse = "file://{folder}/warehouse"
[catalogs.away]
kind = "rest"
properties.uri = "http://127.0.0.1:{port}"
properties.token = "s3cr3t-token"
"""


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "streamlake.toml"
    path.write_text(CONFIG.format(folder=tmp_path, port=9))
    return str(path)


def test_list(run: Run, config: str) -> None:
    shown = run("catalog", "list", "-c", config)
    assert [line.split()[:2] for line in shown.stdout.splitlines()[1:]] == [
        ["away", "rest"],
        ["lake", "sql"],
        ["sql", "sql"],
    ]
    assert "[catalogs.lake]" in shown.stdout
    listed = json.loads(run("catalog", "list", "-c", config, "-o", "json").stdout)
    assert [entry["catalog"] for entry in listed if entry["default"]] == ["lake"]


def test_check_of_a_good_one(run: Run, config: str, tmp_path: Path) -> None:
    done = run("catalog", "check", "-c", config)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line[:7].strip() for line in lines] == ["ok"] * 8
    assert [line[7:21].strip() for line in lines][-3:] == ["tag", "history", "drop"]
    assert list((tmp_path / "warehouse").iterdir()) == []
    answer = json.loads(run("catalog", "check", "lake", "-c", config, "-o", "json").stdout)
    assert (answer["catalog"], {step["passed"] for step in answer["steps"]}) == ("lake", {True})


def test_check_of_one_that_is_away(run: Run, config: str) -> None:
    done = run("catalog", "check", "away", "-c", config)
    assert done.returncode == 4
    assert done.stderr == "error: the catalog away does not do all that tables need: 1 of 7 steps failed\n"
    first, *others = done.stdout.splitlines()
    assert first.startswith("FAILED credentials   ConnectionError: ")
    assert first.endswith("check uri in [catalogs.away], and that the catalog runs")
    assert [line.split(maxsplit=1)[0] for line in others] == ["-"] * 6
    assert "s3cr3t" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["lak"], "there is no catalog 'lak'; did you mean lake?"),
        (["sql", "--data-dir", "/nowhere/data"], "/nowhere/data does not exist: start the server once, or give its"),
    ],
)
def test_mistakes_are_one_line(run: Run, config: str, arguments: list[str], says: str) -> None:
    done = run("catalog", "check", *arguments, "-c", config)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {says}")
    assert done.stderr.count("\n") == 1


def test_it_can_be_interrupted(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        path = tmp_path / "streamlake.toml"
        path.write_text(CONFIG.format(folder=tmp_path, port=silent.getsockname()[1]))
        command = [sys.executable, "-m", "streamlake.cli.main", "catalog", "check", "away", "-c", str(path)]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heed_interrupts)
        silent.settimeout(DEADLINE_S)
        connection, _ = silent.accept()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=DEADLINE_S)
        connection.close()
    assert (process.returncode, errors) == (130, "")
