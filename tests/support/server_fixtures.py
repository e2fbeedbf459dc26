"""Fixtures around real servers, for the conftest.py of a folder that wants them: `from support.server_fixtures import *`."""

import itertools
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from support.server import Server

__all__ = ["new_server", "topic"]

_numbers = itertools.count()


@pytest.fixture
def topic() -> Callable[[], str]:
    """A name that no other test has."""
    return lambda: f"topic-{next(_numbers)}"


@pytest.fixture
def new_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """(config="", data_dir=None, environ=None) → a server of the test's own, not started; killed at the end."""
    made: list[Server] = []

    def make(config: str = "", data_dir: Path | None = None, environ: Mapping[str, str] | None = None) -> Server:
        made.append(Server(data_dir or tmp_path / "data", config, environ))
        return made[-1]

    yield make
    for server in made:
        if server.process is not None and server.process.poll() is None:
            server.process.send_signal(signal.SIGCONT)
            server.kill()
