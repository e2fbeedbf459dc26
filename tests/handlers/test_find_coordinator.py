"""FindCoordinator: this broker, for groups."""

import pytest
from support.server import Server
from support.wire import Client, newest

from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.find_coordinator import FindCoordinatorRequest

NEWEST = newest(ApiKey.FIND_COORDINATOR)
TRANSACTION, SHARE = 1, 2


@pytest.mark.parametrize("version", [0, 3])
def test_one_group(client: Client, server: Server, group: str, version: int) -> None:
    answer = client.ask(ApiKey.FIND_COORDINATOR, version, FindCoordinatorRequest(group))
    assert (answer.error_code, answer.node_id, answer.host, answer.port) == (0, 0, "127.0.0.1", server.port)
    assert answer.error_message == ("NONE" if version else None)


def test_a_batch_of_groups(client: Client, server: Server) -> None:
    answer = client.ask(ApiKey.FIND_COORDINATOR, NEWEST, FindCoordinatorRequest(coordinator_keys=("a", "b")))
    assert [(c.key, c.error_code, c.error_message, c.node_id, c.port) for c in answer.coordinators] == [
        ("a", 0, "", 0, server.port),
        ("b", 0, "", 0, server.port),
    ]
    assert client.ask(ApiKey.FIND_COORDINATOR, NEWEST, FindCoordinatorRequest()).coordinators == ()


@pytest.mark.parametrize("kind", [TRANSACTION, SHARE, 9])
def test_what_is_not_there_yet(client: Client, kind: int) -> None:
    code = ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED if kind == TRANSACTION else ErrorCode.INVALID_REQUEST
    one = client.ask(ApiKey.FIND_COORDINATOR, 1, FindCoordinatorRequest("t", kind))
    assert (one.error_code, one.node_id) == (code, -1)
    assert "not supported yet" in one.error_message
    (batched,) = client.newest(
        ApiKey.FIND_COORDINATOR, FindCoordinatorRequest(key_type=kind, coordinator_keys=("t",))
    ).coordinators
    assert (batched.error_code, batched.node_id) == (code, -1)
