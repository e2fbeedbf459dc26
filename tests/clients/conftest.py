"""One server for all client tests; each test has topics of its own."""

import itertools
from collections.abc import Callable, Iterator

import pytest
from support.server import Server

_numbers = itertools.count()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("clients"), config="[tables]\nenabled = false\n").start()
    yield server
    assert server.stop() == 0, server.log[-3000:]


@pytest.fixture
def topic() -> Callable[..., str]:
    return lambda: f"client-topic-{next(_numbers)}"
