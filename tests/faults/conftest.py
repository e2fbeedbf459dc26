"""Two real servers that several of these modules share; tests that kill or starve one start their own."""

from collections.abc import Iterator

import pytest
from support.server import Server, serve
from support.server_fixtures import *  # noqa: F403


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Without tables."""
    yield from serve(Server(tmp_path_factory.mktemp("faults"), "[tables]\nenabled = false\n"))


@pytest.fixture(scope="session")
def table_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from serve(Server(tmp_path_factory.mktemp("fault-tables")))
