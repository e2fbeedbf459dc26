"""One server without table topics for the tests of the load library."""

from collections.abc import Iterator

import pytest
from support.server import Server, serve


@pytest.fixture(scope="session")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from serve(Server(tmp_path_factory.mktemp("bench"), "[tables]\nenabled = false\n"))
