"""The table worker as a process: whatever it waits for, it ends when the server tells it to, or is gone."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.wait import DEADLINE_S

from streamlake.table.task.control import FromServer, WorkerSettings, encode
from streamlake.worker.process import _control

pytestmark = pytest.mark.whole


@pytest.fixture
def nowhere() -> Iterator[int]:
    """A port that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield int(listener.getsockname()[1])


def start(nowhere: int, uri: str) -> tuple[socket.socket, "subprocess.Popen[bytes]"]:
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "streamlake.worker.process", str(theirs.fileno())]
    process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stderr=subprocess.PIPE)
    theirs.close()
    settings = WorkerSettings(
        bootstrap_host="127.0.0.1",
        bootstrap_port=nowhere,
        registry_url=f"http://127.0.0.1:{nowhere}",
        cluster_id="c",
        memory_bytes=1 << 24,
        round_bytes=1 << 20,
        log_level="info",
        log_json=False,
        catalog_kind="rest",
        catalog_name="rest",
        catalog_properties={"uri": uri},
    )
    ours.sendall(encode(settings) + encode(FromServer(tables=[])))
    return ours, process


@pytest.mark.parametrize("hangs", [False, True], ids=["refused", "silent"])
def test_it_does_not_outlive_a_server_while_it_waits_for_a_catalog(nowhere: int, hangs: bool) -> None:
    """An orphan would hold its memory, and its place before the catalog, for ever."""
    ours, process = start(nowhere, f"http://127.0.0.1:{nowhere if hangs else 9}")
    if not hangs:
        assert process.stderr is not None
        while b"cannot be opened, retrying" not in process.stderr.readline():
            assert process.poll() is None
    ours.close()
    try:
        assert process.wait(timeout=DEADLINE_S) == 0
    finally:
        process.kill()


def test_it_stops_when_told_while_it_waits_for_a_catalog(nowhere: int) -> None:
    ours, process = start(nowhere, "http://127.0.0.1:9")
    assert process.stderr is not None
    while b"cannot be opened, retrying" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    try:
        assert process.wait(timeout=DEADLINE_S) == 0
    finally:
        process.kill()
        ours.close()


def test_what_is_no_message_ends_it(nowhere: int) -> None:
    ours, process = start(nowhere, "http://127.0.0.1:9")
    ours.sendall(b"what is this?\n")
    try:
        assert process.wait(timeout=DEADLINE_S) == 1
    finally:
        process.kill()
        ours.close()


def test_only_the_server_starts_it() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "streamlake.worker.process"], capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert done.returncode == 1
    assert done.stderr == "this is started by the server: run `streamlake server`\n"


@pytest.mark.parametrize("arguments", [["x"], ["1", "2"], ["-1"], ["4000"], ["9" * 30], ["a file"]])
def test_what_is_no_pair(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "file").open("w") as file:
        given = [str(file.fileno()) if argument == "a file" else argument for argument in arguments]
        monkeypatch.setattr(sys, "argv", ["worker", *given])
        with pytest.raises(SystemExit, match="started by the server"):
            _control()


def test_a_server_that_is_gone_before_it_said_anything() -> None:
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "streamlake.worker.process", str(theirs.fileno())]
    process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
    theirs.close()
    ours.close()
    assert process.wait(timeout=DEADLINE_S) == 1
