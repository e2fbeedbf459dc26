"""One server with the default catalog for all; tests that stop one start their own."""

from collections.abc import Iterator

import pytest
from support.server import Server, serve
from support.server_fixtures import *  # noqa: F403


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from serve(Server(tmp_path_factory.mktemp("tables")))
