"""Two real servers that several of these modules share; tests that kill or starve one start their own."""

import itertools
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from support.seaweedfs import SeaweedFS
from support.server import Server

_numbers = itertools.count()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Without tables."""
    yield from _serve(tmp_path_factory.mktemp("faults"), "[tables]\nenabled = false\n")


@pytest.fixture(scope="session")
def table_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from _serve(tmp_path_factory.mktemp("fault-tables"), "")


@pytest.fixture
def topic() -> Callable[[], str]:
    return lambda: f"fault-topic-{next(_numbers)}"


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


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    with SeaweedFS(tmp_path_factory.mktemp("seaweedfs")) as started:
        yield started


def _serve(data_dir: Path, config: str) -> Iterator[Server]:
    server = Server(data_dir, config).start()
    yield server
    assert server.stop() == 0, server.log[-3000:]
