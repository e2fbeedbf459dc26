"""A real StreamLake server in a process of its own, on free ports, as a user would start it."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

START_TIMEOUT_S = 60


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
        deadline = time.monotonic() + START_TIMEOUT_S
        while not ready.exists():
            if self.process.poll() is not None:
                raise RuntimeError(f"server exited with {self.process.returncode}:\n{self.log[-4000:]}")
            if time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"server not ready after {START_TIMEOUT_S} s:\n{self.log[-4000:]}")
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
        return self.process.wait(timeout=60)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(timeout=60)

    def worker_pid(self) -> int | None:
        pid = self.get("/v1/worker")["pid"]
        return None if pid is None else int(pid)

    def wait_for_worker(self) -> int:
        deadline = time.monotonic() + START_TIMEOUT_S
        while (pid := self.worker_pid()) is None:
            assert time.monotonic() < deadline, f"no table worker:\n{self.log[-3000:]}"
            time.sleep(0.05)
        return pid

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.http + path, timeout=10) as response:
            return json.load(response)

    def tables(self) -> dict[str, dict[str, Any]]:
        return {t["topic"]: t for t in self.get("/v1/tables")["tables"]}

    def wait_for_table(self, topic: str, rows: int, dead_letters: int = 0, timeout_s: float = 60) -> dict[str, Any]:
        """Until the table reports exactly this many rows; more than that is an error at once."""
        deadline = time.monotonic() + timeout_s
        table: dict[str, Any] = {}
        while time.monotonic() < deadline:
            table = self.tables().get(topic, {})
            assert (table.get("rows") or 0) <= rows, f"{table.get('rows')} rows, {rows} expected"
            if table.get("rows") == rows and (table.get("dead_letters") or 0) == dead_letters:
                return table
            time.sleep(0.1)
        raise AssertionError(
            f"{topic}: {rows} rows and {dead_letters} dead letters expected, have {table}\n{self.log[-3000:]}"
        )
