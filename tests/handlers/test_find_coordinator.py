"""FindCoordinator: the broker that has the key's slot."""

from types import SimpleNamespace

import pytest
from support.server import Server
from support.wire import Client, newest

from streamlake.cluster.brokers import Brokers
from streamlake.cluster.store.fences import BrokerIdentity
from streamlake.cluster.store.membership import BeatView, BrokerInfo
from streamlake.cluster.store.schema import LEFT, SERVING
from streamlake.handlers.find_coordinator import handle
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.find_coordinator import FindCoordinatorRequest

NEWEST = newest(ApiKey.FIND_COORDINATOR)
GROUP, TRANSACTION, SHARE = 0, 1, 2


@pytest.mark.parametrize(("version", "kind"), [(0, GROUP), (3, GROUP), (1, TRANSACTION), (3, TRANSACTION)])
def test_one_key(client: Client, server: Server, group: str, version: int, kind: int) -> None:
    answer = client.ask(ApiKey.FIND_COORDINATOR, version, FindCoordinatorRequest(group, kind))
    assert (answer.error_code, answer.node_id, answer.host, answer.port) == (0, 0, "127.0.0.1", server.port)
    assert answer.error_message == ("NONE" if version else None)


def test_a_batch_of_groups(client: Client, server: Server) -> None:
    answer = client.ask(ApiKey.FIND_COORDINATOR, NEWEST, FindCoordinatorRequest(coordinator_keys=("a", "b")))
    assert [(c.key, c.error_code, c.error_message, c.node_id, c.port) for c in answer.coordinators] == [
        ("a", 0, "", 0, server.port),
        ("b", 0, "", 0, server.port),
    ]
    assert client.ask(ApiKey.FIND_COORDINATOR, NEWEST, FindCoordinatorRequest()).coordinators == ()


@pytest.mark.parametrize("kind", [SHARE, 9])
def test_what_is_not_there_yet(client: Client, kind: int) -> None:
    code = ErrorCode.INVALID_REQUEST
    one = client.ask(ApiKey.FIND_COORDINATOR, 1, FindCoordinatorRequest("t", kind))
    assert (one.error_code, one.node_id) == (code, -1)
    assert "not supported yet" in one.error_message
    (batched,) = client.newest(
        ApiKey.FIND_COORDINATOR, FindCoordinatorRequest(key_type=kind, coordinator_keys=("t",))
    ).coordinators
    assert (batched.error_code, batched.node_id) == (code, -1)


async def test_other_brokers_coordinate_too() -> None:
    brokers = Brokers(BrokerIdentity("c", 1, 1), "one", 9001)
    others = BrokerInfo(2, 1, 0, SERVING, "two", 9002), BrokerInfo(3, 1, 0, LEFT, "three", 9003)
    brokers.seen(BeatView(0, others))
    nodes = {"ours": 1, "theirs": 2, "left": 3, "unseen": 4}
    ctx = SimpleNamespace(brokers=brokers, slots=SimpleNamespace(coordinator_of=nodes.get))
    request = FindCoordinatorRequest(coordinator_keys=(*nodes, "nobody"))
    answer = await handle(ctx, SimpleNamespace(version=NEWEST, body=request))
    available = [(c.key, c.node_id, c.host, c.port) for c in answer.coordinators if c.error_code == 0]
    assert available == [("ours", 1, "one", 9001), ("theirs", 2, "two", 9002)]
    others = [(c.key, c.error_code, c.node_id, c.port) for c in answer.coordinators if c.error_code]
    code = ErrorCode.COORDINATOR_NOT_AVAILABLE
    assert others == [(key, code, -1, -1) for key in ("left", "unseen", "nobody")]
