"""One server without table topics for the tests of the load library."""

from collections.abc import Iterator

import pytest
from support.server import Server


@pytest.fixture(scope="session")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("bench"), config="[tables]\nenabled = false\n").start()
    yield server
    assert server.stop() == 0, server.log[-3000:]
