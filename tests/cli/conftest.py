"""One server with a table worker for the command line's tests, and a way to run commands as a user does."""

import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from support.server import Server, serve
from support.wait import DEADLINE_S


@pytest.fixture(scope="session")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    config = '[kafka]\n"streamlake.table.commit.interval.ms" = 200\n'
    yield from serve(Server(tmp_path_factory.mktemp("cli"), config))


@pytest.fixture
def run(lake: Server) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `streamlake …` against the server; wide, so that nothing wraps."""
    environ = {**lake.environ, "STREAMLAKE_BOOTSTRAP": lake.bootstrap, "STREAMLAKE_HTTP": lake.http, "COLUMNS": "200"}

    def run(*arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "streamlake.cli.main", *arguments]
        return subprocess.run(command, input=text, capture_output=True, text=True, timeout=DEADLINE_S, env=environ)

    return run
