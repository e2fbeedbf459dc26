"""Two real servers that several of these modules share; tests that kill or starve one start their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.server import Server
from support.server_fixtures import *  # noqa: F403


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Without tables."""
    yield from _serve(tmp_path_factory.mktemp("faults"), "[tables]\nenabled = false\n")


@pytest.fixture(scope="session")
def table_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from _serve(tmp_path_factory.mktemp("fault-tables"), "")


def _serve(data_dir: Path, config: str) -> Iterator[Server]:
    server = Server(data_dir, config).start()
    yield server
    assert server.stop() == 0, server.log[-3000:]
