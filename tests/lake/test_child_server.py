"""A server that a program starts: what it says when it does not come up, and that it never outlives the program."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.server import is_running
from support.wait import DEADLINE_S, wait_until

import streamlake
from streamlake.core.errors import Invalid, Unavailable
from streamlake.lake.child_server import ChildServer
from streamlake.lake.http import get_json

START = """
import json, os, signal, sys, time
import streamlake
from streamlake.cli.topic import create
from streamlake.lake.http import get_json
lake = streamlake.local()
create("t", partitions=1, config=[], table=True, value="string", bootstrap=lake.bootstrap)  # a table needs the worker
while not (worker := get_json(lake.http_url, "/v1/worker")["pid"]):
    time.sleep(0.05)
print(json.dumps([lake._server.pid, worker, str(lake.data_dir)]), flush=True)
"""
ENDS = {
    "the end of the program": "",
    "an exception": "raise ValueError('x')",
    "sys.exit": "sys.exit(3)",
    "no more reference": "del lake; sys.stdin.read()",
    "os._exit": "os._exit(0)",
    "SIGKILL": "os.kill(os.getpid(), signal.SIGKILL)",
    "SIGTERM": "os.kill(os.getpid(), signal.SIGTERM)",
    "SIGKILL, with a fork that goes on": """
if os.fork() == 0:
    os.close(1)
    time.sleep(600)
os.kill(os.getpid(), signal.SIGKILL)
""",
}


@pytest.mark.parametrize("end", ENDS.values(), ids=list(ENDS))
def test_no_process_is_left(end, tmp_path):
    program = subprocess.Popen(
        [sys.executable, "-c", START + end],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # its process group is what this test ends
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    try:
        assert program.stdout is not None
        lines = iter(program.stdout.readline, b"")
        pid, worker, directory = next(json.loads(line) for line in lines if line.startswith(b"["))
        wait_until(lambda: not is_running(pid) and not is_running(worker), lambda: f"{pid} or {worker} runs")
        if "os._exit" not in end and "kill" not in end:
            wait_until(lambda: not Path(directory).exists())
    finally:
        os.killpg(program.pid, signal.SIGKILL)
        program.wait(timeout=DEADLINE_S)


def test_a_fork_that_ends_stops_nothing():
    with streamlake.local() as lake:
        program = os.fork()
        if program == 0:
            try:
                lake.stop()
            finally:
                os._exit(0)
        os.waitpid(program, 0)
        assert get_json(lake.http_url, "/healthz")["status"] == "ok"


def test_an_interrupt_reaches_the_program_only():
    with streamlake.local() as lake:
        assert os.getsid(lake._server.pid) == lake._server.pid != os.getsid(0)


def test_a_directory_that_another_server_uses_is_one_line(tmp_path):
    first = ChildServer(tmp_path)
    try:
        with pytest.raises(Unavailable) as refused:
            ChildServer(tmp_path)
        assert get_json(first.http, "/healthz")["status"] == "ok"
    finally:
        first.stop()
    assert str(refused.value).startswith(f"another server uses {tmp_path}: stop it first")
    assert "\n" not in str(refused.value) and str(tmp_path / "server.log") in str(refused.value)


def test_a_config_that_is_refused_is_one_line(tmp_path):
    with pytest.raises(Unavailable, match=r"did you mean num\.partitions") as refused:
        streamlake.local(tmp_path, kafka={"num.partition": 1})
    assert "\n" not in str(refused.value) and "server.log" in str(refused.value)


def test_data_that_were_damaged_say_what_is_missing(tmp_path):
    ChildServer(tmp_path).stop()
    (tmp_path / "metadata.db").rename(tmp_path / "elsewhere")
    with pytest.raises(Unavailable, match=r"metadata\.db is missing, and .*bring it back"):
        ChildServer(tmp_path)


def test_a_server_that_ends_without_a_word_shows_its_log(tmp_path, monkeypatch):
    (tmp_path / "server.log").write_text("of an earlier start\n")
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nseq -f 'line %g' 100\nexit 3\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(Unavailable) as ended:
        ChildServer(tmp_path)
    first, *lines = str(ended.value).splitlines()
    assert first == f"the server ended with exit code 3. The end of its log, {tmp_path}/server.log:"
    assert lines == [f"line {n}" for n in range(86, 101)]


def test_a_server_that_never_gets_ready_is_ended(tmp_path, monkeypatch):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho $$ > pid\nexec cat\n")
    python.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr("streamlake.lake.child_server.START_TIMEOUT_S", 0.5)
    with pytest.raises(Unavailable, match=r"not ready after 0.5 s.*\n\(it is empty\)"):
        ChildServer(tmp_path)
    assert not is_running(int((tmp_path / "pid").read_text()))


def test_a_server_that_does_not_stop_is_killed(tmp_path, monkeypatch):
    server = ChildServer(tmp_path)
    os.kill(server.pid, signal.SIGSTOP)
    monkeypatch.setattr("streamlake.lake.child_server.STOP_TIMEOUT_S", 0.1)
    server.stop()
    assert not is_running(server.pid)


def test_a_server_that_dies_is_named_by_the_next_call():
    with streamlake.local() as lake:
        os.kill(lake._server.pid, signal.SIGKILL)
        wait_until(lake._server.why_it_ended)
        with pytest.raises(
            Unavailable, match=r"(?s)the server ended by signal 9\. The end of its log, .*server\.log:\n.*ready"
        ):
            lake.sql("SELECT 1")


def test_a_place_that_cannot_be_a_directory(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Invalid, match=r"file cannot be used as a data directory: (File exists|Not a directory)"):
        streamlake.local(tmp_path / "file")
