"""`streamlake server` as a child process that never outlives the program that started it.

The child reads a pipe that only this process can write to. When this process ends, in whatever way, the pipe closes and
the server stops itself (`--until-stdin-closes`): no handler has to run here. It has a session of its own, so that
Ctrl-C in a terminal, or an interrupted notebook cell, reaches the program alone.
"""

import ast
import json
import os
import re
import subprocess
import sys
import time
import weakref
from io import FileIO
from pathlib import Path
from typing import Any, cast

from streamlake.core.errors import Invalid, Unavailable

LOG_FILE = "server.log"
READY_FILE = "server.json"  # as broker/process.py writes it
SETTINGS_PREFIX = "STREAMLAKE_"
START_TIMEOUT_S = 120.0  # it takes a second, and many on a machine that is busy
STOP_TIMEOUT_S = 75.0  # more than a server takes: server.drain_timeout_s and server.shutdown_timeout_s
POLL_S = 0.01
LOG_LINES_SHOWN = 15
LOG_BYTES_READ = 16 * 1024
_REFUSED = re.compile(r"^(?:error: |.*\bnot started +reason=)(.*)$", re.MULTILINE)

# A process that is forked from this one has a copy of each pipe, and would keep the servers running after our end.
_pipes: "weakref.WeakSet[FileIO]" = weakref.WeakSet()


def _close_pipes() -> None:
    for pipe in list(_pipes):
        pipe.close()


os.register_at_fork(after_in_child=_close_pipes)


class ChildServer:
    """Runs when it is made; `bootstrap` and `http` are its addresses. Unavailable, Invalid.

    Its settings are `config` and the defaults, never STREAMLAKE_* variables: a shell that is set up for another server
    must not send what is meant for this one there."""

    def __init__(self, data_dir: Path, config: Path | None = None, ports: tuple[int, int] = (0, 0)) -> None:
        """`ports`: for Kafka and HTTP; 0 takes a free one."""
        self._data_dir, self._parent = data_dir, os.getpid()
        self.log_file = data_dir / LOG_FILE
        try:
            data_dir.mkdir(parents=True, exist_ok=True)
            with self.log_file.open("ab") as log:
                self._log_start = log.tell()
                self._process = _launch(data_dir, config, ports, log)
        except OSError as error:
            raise Invalid(f"{data_dir} cannot be used as a data directory: {error.strerror}") from None
        try:
            addresses = self._wait_until_ready()
        except BaseException:
            self.stop()
            raise
        self.bootstrap: str = addresses["bootstrap"]
        self.http: str = addresses["http"]

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_ours(self) -> bool:
        """Not so in a process that was forked from the one that started it: there it must not be stopped."""
        return os.getpid() == self._parent

    def stop(self) -> None:
        """End it cleanly, or kill it if that takes too long. Either way a later start has all acknowledged records."""
        cast(FileIO, self._process.stdin).close()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def why_it_ended(self) -> str | None:
        """What the server says of it; None while it runs."""
        code = self._process.poll()
        if code is None:
            return None
        log = self._log()
        if refused := _REFUSED.findall(log):
            return f"{_unquoted(refused[-1])} (log: {self.log_file})"
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        return f"the server ended {how}. {self._log_end(log)}"

    def _wait_until_ready(self) -> dict[str, Any]:
        deadline = time.perf_counter() + START_TIMEOUT_S
        while not (addresses := self._announced()):
            if reason := self.why_it_ended():
                raise Unavailable(reason)
            if time.perf_counter() > deadline:
                raise Unavailable(f"the server is not ready after {START_TIMEOUT_S:g} s. {self._log_end(self._log())}")
            time.sleep(POLL_S)  # noqa: TID251 - a program waits here, not an event loop
        return addresses

    def _announced(self) -> dict[str, Any]:
        """The addresses, once this server says them: the file may be another's, which uses the directory."""
        try:
            addresses: dict[str, Any] = json.loads((self._data_dir / READY_FILE).read_text())
        except FileNotFoundError:
            return {}
        return addresses if addresses["pid"] == self.pid else {}

    def _log(self) -> str:
        """The end of what it has logged since its start."""
        with self.log_file.open("rb") as log:
            log.seek(max(self._log_start, self.log_file.stat().st_size - LOG_BYTES_READ))
            return log.read().decode(errors="replace").strip()

    def _log_end(self, log: str) -> str:
        lines = log.splitlines()[-LOG_LINES_SHOWN:]
        return "\n".join([f"The end of its log, {self.log_file}:", *(lines or ["(it is empty)"])])


def _unquoted(text: str) -> str:
    """The log has values with spaces as Python writes them."""
    return str(ast.literal_eval(text)) if text.startswith(("'", '"')) else text


def _launch(data_dir: Path, config: Path | None, ports: tuple[int, int], log: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "streamlake.cli.main", "server", "--data-dir", str(data_dir)]
    command += ["--port", str(ports[0]), "--http-port", str(ports[1]), "--until-stdin-closes"]
    if config is not None:
        command += ["--config", str(config)]
    environ = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS_PREFIX)}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environ, bufsize=0, start_new_session=True
    )
    _pipes.add(cast(FileIO, process.stdin))
    return process
