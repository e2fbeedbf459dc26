"""One server for all client tests; each test has topics of its own."""

import itertools
from collections.abc import Callable, Iterator

import pytest
from support.server import Server, serve

_numbers = itertools.count()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from serve(Server(tmp_path_factory.mktemp("clients"), "[tables]\nenabled = false\n"))


@pytest.fixture
def topic() -> Callable[..., str]:
    return lambda: f"client-topic-{next(_numbers)}"
