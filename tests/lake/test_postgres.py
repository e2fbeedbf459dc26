"""PostgreSQL from its wheel: its data outlive it, and it never outlives us."""

import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from support.wait import wait_until

from streamlake.core.errors import Invalid
from streamlake.lake import postgres as module
from streamlake.lake.postgres import Postgres

pytestmark = pytest.mark.whole


@pytest.fixture
def directory() -> Iterator[Path]:
    """Where `nobody` may go, as whom PostgreSQL runs for root."""
    with tempfile.TemporaryDirectory(prefix="cluster-") as name:
        Path(name).chmod(0o755)
        yield Path(name) / "data"


def sql(server: Postgres, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(server.url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def test_data_are_there_again_after_a_stop_and_after_a_crash(directory: Path) -> None:
    server = Postgres(directory)
    sql(server, "CREATE TABLE t (x int)")
    sql(server, "INSERT INTO t VALUES (1)")
    server.stop()
    assert not server.is_running
    server = Postgres(directory)
    sql(server, "INSERT INTO t VALUES (2)")
    assert server._process is not None
    server._process.send_signal(signal.SIGQUIT)  # as a crash: nothing is written at the end
    server._process.wait()
    server.start()
    assert sql(server, "SELECT x FROM t ORDER BY x") == [(1,), (2,)]
    assert sql(server, "SHOW fsync") == [("on",)]
    server.stop()


def test_it_ends_with_the_program_that_started_it(directory: Path) -> None:
    code = f"""
from pathlib import Path
from streamlake.lake.postgres import Postgres
server = Postgres(Path({str(directory)!r}))
print(server._process.pid, flush=True)
input()
"""
    program = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert program.stdout is not None
    pid = int(program.stdout.readline())
    os.kill(pid, 0)
    program.kill()
    program.wait()
    wait_until(lambda: not _lives(pid))


def test_without_the_wheel_an_error_says_what_to_install(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Invalid, match=r"pip install 'streamlake-server\[cluster\]'"):
        Postgres(directory)


def test_what_is_wrong_is_told_with_the_end_of_its_log(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Postgres(directory).stop()
    (directory / "data" / "PG_VERSION").write_text("9\n")
    with pytest.raises(module.Unavailable, match="PostgreSQL did not start"):
        Postgres(directory)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs it as somebody else")
def test_a_directory_that_its_user_cannot_enter(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with pytest.raises(Invalid, match="nobody, cannot enter"):
        Postgres(tmp_path / "postgres")


def _lives(pid: int) -> bool:
    """Whether it runs; who has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
