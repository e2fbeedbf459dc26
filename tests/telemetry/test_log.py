"""Logs for people and for machines, on stderr; the level is kept."""

import json
import subprocess
import sys

import pytest
from support.wait import DEADLINE_S

PROGRAM = """
import structlog
from streamlake.telemetry import log
log.configure({level!r}, json={json})
structlog.get_logger("x").info("hello", n=1)
try:
    raise ValueError("boom")
except ValueError:
    structlog.get_logger("x").exception("went wrong")
"""


def run(level: str, as_json: bool) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(level=level, json=as_json)],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_json_lines() -> None:
    out, err = run("info", True)
    assert out == ""
    first, second = [json.loads(line) for line in err.splitlines()]
    assert (first["event"], first["n"], first["level"]) == ("hello", 1, "info")
    assert "ValueError: boom" in second["exception"]


def test_console_lines_and_level() -> None:
    _, err = run("error", False)
    assert "hello" not in err
    assert "went wrong" in err
    assert "boom" in err


def test_tracebacks_do_not_print_local_variables() -> None:
    program = PROGRAM.replace("try:", "try:\n    password = 'hunter2'").replace(
        'ValueError("boom")', "ValueError('boom')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program.format(level="info", json=False)],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert done.stderr.count("hunter2") == 0
    assert "boom" in done.stderr


def test_a_log_that_cannot_be_written_stops_nobody() -> None:
    program = PROGRAM.format(level="info", json=False) + "\nprint('went on')\n"
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=full, text=True, timeout=DEADLINE_S
        )
    assert done.stdout == "went on\n"


SECRET = """
import logging, structlog
from streamlake.telemetry import log
log.configure(json={json}, hide=lambda text: text.replace("s3" + "cr3t", "[secret]"))
try:
    raise ValueError("refused s3" + "cr3t")
except ValueError as error:
    structlog.get_logger("x").warning("no catalog", reason="token s3" + "cr3t", exc_info=error)
logging.getLogger("library").warning("used s3" + "cr3t")
"""


@pytest.mark.parametrize("as_json", [True, False])
def test_secrets_are_hidden_in_lines_tracebacks_and_what_libraries_log(as_json: bool) -> None:
    command = [sys.executable, "-c", SECRET.format(json=as_json)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)
    for text in ("token [secret]", "ValueError: refused [secret]", "library: used [secret]"):
        assert text in done.stderr
    assert "s3cr3t" not in done.stderr
