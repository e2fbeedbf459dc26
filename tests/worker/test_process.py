"""The table worker as a process: whatever it waits for, it ends when the server tells it to, or is gone."""

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import UUID

import pytest
from support.wait import DEADLINE_S

from streamlake.catalogs.config import CatalogConfig
from streamlake.table.task.control import FromServer, TableSpec, WorkerSettings, encode
from streamlake.worker.process import _control

SPEC = TableSpec("orders", UUID(int=7), 1, {}, False, 1, 1)  # a table that needs the catalog
pytestmark = pytest.mark.whole


@pytest.fixture
def nowhere() -> Iterator[int]:
    """A port that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield int(listener.getsockname()[1])


def start(nowhere: int, uri: str, **properties: str) -> tuple[socket.socket, "subprocess.Popen[bytes]"]:
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "streamlake.worker.process", str(theirs.fileno())]
    process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stderr=subprocess.PIPE)
    theirs.close()
    settings = WorkerSettings(
        bootstrap_host="127.0.0.1",
        bootstrap_port=nowhere,
        node_id=0,
        registry_url=f"http://127.0.0.1:{nowhere}",
        cluster_id="c",
        memory_bytes=1 << 24,
        round_bytes=1 << 20,
        log_level="info",
        log_json=False,
        catalogs={"lake": CatalogConfig("rest", "lake", {"uri": uri, **properties})},
        default_catalog="lake",
    )
    ours.sendall(encode(settings) + encode(FromServer(tables=[SPEC])))
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


class Telltale(BaseHTTPRequestHandler):
    """A catalog whose errors quote what it was given."""

    def do_GET(self) -> None:
        message = f"cannot accept {self.headers['Authorization']}"
        body = json.dumps({"error": {"message": message, "type": "Oops", "code": 500}}).encode()
        self.send_response(500)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_secrets_are_neither_reported_nor_logged(nowhere: int) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Telltale) as telltale:
        threading.Thread(target=telltale.serve_forever, daemon=True).start()
        ours, process = start(nowhere, f"http://127.0.0.1:{telltale.server_port}", token="s3cr3t-token")
        assert process.stderr is not None
        logged = process.stderr.readline()
        ours.settimeout(DEADLINE_S)
        reported = ours.makefile("rb").readline()
        ours.close()
        logged += process.communicate(timeout=DEADLINE_S)[1]
        telltale.shutdown()
    for text in (logged, reported):
        assert b"cannot accept Bearer [secret]" in text
        assert b"s3cr3t" not in text


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
