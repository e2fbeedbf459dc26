"""One real server for all tests of handlers; each test has topics and groups of its own."""

import itertools
from collections.abc import Callable, Iterator

import pytest
from support.server import Server, serve
from support.txn_client import TxnClient
from support.wire import Client, Topic

CONFIG = """
[tables]
enabled = false
[groups]
initial_rebalance_delay_ms = 0
session_timeout_min_ms = 1
"""

_numbers = itertools.count()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("handlers"), CONFIG)
    yield from serve(server)
    assert "a request failed" not in server.log


@pytest.fixture(scope="session")
def strict_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that neither creates topics on demand nor deletes any: configs of its file."""
    kafka = "[kafka]\nauto.create.topics.enable = false\ndelete.topic.enable = false\n"
    yield from serve(Server(tmp_path_factory.mktemp("strict"), CONFIG + kafka))


@pytest.fixture
def strict_client(strict_server: Server) -> Iterator[Client]:
    with Client(strict_server.port) as client:
        yield client


@pytest.fixture
def connect(server: Server) -> Iterator[Callable[[], Client]]:
    """Another connection, as often as it is called."""
    opened: list[Client] = []

    def connect() -> Client:
        opened.append(Client(server.port))
        return opened[-1]

    yield connect
    for client in opened:
        client.close()


@pytest.fixture
def client(connect: Callable[[], Client]) -> Client:
    return connect()


@pytest.fixture
def topic(client: Client) -> Topic:
    """With one partition."""
    return client.create_topic()


@pytest.fixture
def group() -> str:
    """A name that no other test has."""
    return f"group-{next(_numbers)}"


@pytest.fixture
def txn(client: Client) -> TxnClient:
    """A producer with a transactional id of its own."""
    txn = TxnClient(client)
    assert txn.init() == 0
    return txn
