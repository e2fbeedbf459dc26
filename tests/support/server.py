"""A real StreamLake server in a process of its own, on free ports, as a user would start it."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from support.wait import DEADLINE_S, wait_until


def is_running(pid: int) -> bool:
    """Neither gone nor a zombie that nobody has waited for."""
    try:
        return "zombie" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def heed_interrupts() -> None:
    """For a command that a test interrupts, before it starts: a shell that runs tests in the background makes them, and
    all that they start, ignore Ctrl-C. The server need not be told."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Server:
    """`start` waits until it answers; `kill` is SIGKILL; `start` again recovers on the same directory and ports."""

    def __init__(self, data_dir: Path, config: str = "", environ: Mapping[str, str] | None = None) -> None:
        self.data_dir = data_dir
        data_dir.mkdir(parents=True, exist_ok=True)
        self.config = data_dir / "test.toml"
        self.config.write_text(config)
        self.environ = {**os.environ, **(environ or {})}
        self.port = self.http_port = 0
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def log(self) -> str:
        return (self.data_dir / "server.log").read_text(errors="replace")

    def start(self) -> "Server":
        ready = self.data_dir / "server.json"
        ready.unlink(missing_ok=True)
        with (self.data_dir / "server.log").open("ab") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, env=self.environ)
        deadline = time.monotonic() + DEADLINE_S
        while not ready.exists():
            if self.process.poll() is not None:
                raise RuntimeError(f"server exited with {self.process.returncode}:\n{self.log[-4000:]}")
            if time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"server not ready after {DEADLINE_S} s:\n{self.log[-4000:]}")
            time.sleep(0.02)
        addresses = json.loads(ready.read_text())
        self.port = int(addresses["bootstrap"].rpartition(":")[2])
        self.http_port = int(addresses["http"].rpartition(":")[2])
        return self

    def command(self) -> list[str]:
        command = [sys.executable, "-m", "streamlake.cli.main", "server", "--config", str(self.config)]
        return [
            *command, "--data-dir", str(self.data_dir), "--port", str(self.port), "--http-port", str(self.http_port),
        ]  # fmt: skip

    def stop(self) -> int:
        """Ctrl-C; its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=DEADLINE_S)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(timeout=DEADLINE_S)

    def worker_pid(self) -> int | None:
        pid = self.get("/v1/worker")["pid"]
        return None if pid is None else int(pid)

    def wait_for_worker(self) -> int:
        return wait_until(self.worker_pid, lambda: f"no table worker:\n{self.log[-3000:]}") or 0

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.http + path, timeout=DEADLINE_S) as response:
            return json.load(response)

    def tables(self) -> dict[str, dict[str, Any]]:
        return {t["topic"]: t for t in self.get("/v1/tables")["tables"]}

    def wait_for_table(self, topic: str, rows: int, dead_letters: int = 0) -> dict[str, Any]:
        """Until the table reports exactly this many rows; more than that is an error at once."""
        table: dict[str, Any] = {}

        def complete() -> dict[str, Any]:
            nonlocal table
            table = self.tables().get(topic, {})
            assert (table.get("rows") or 0) <= rows, f"{table.get('rows')} rows, {rows} expected"
            return table if table.get("rows") == rows and (table.get("dead_letters") or 0) == dead_letters else {}

        wanted = f"{topic}: {rows} rows and {dead_letters} dead letters expected"
        return wait_until(complete, lambda: f"{wanted}, have {table}\n{self.log[-3000:]}")


def serve(server: Server) -> Iterator[Server]:
    """For a fixture, `yield from serve(Server(…))`: running during the tests, and at the end it must stop cleanly."""
    server.start()
    yield server
    assert server.stop() == 0, server.log[-3000:]
