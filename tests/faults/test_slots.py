"""A server on PostgreSQL that shares it with a neighbour: here the test, which writes what another broker would."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from support import postgres as support
from support.postgres import Postgres
from support.server import Server, serve
from support.wait import wait_until
from support.wire import Client

from streamlake.cluster.store.slots import slot_of
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.describe_cluster import DescribeClusterRequest
from streamlake.protocol.messages.find_coordinator import Coordinator, FindCoordinatorRequest
from streamlake.protocol.messages.heartbeat import HeartbeatRequest
from streamlake.protocol.messages.list_groups import ListGroupsRequest
from streamlake.protocol.messages.metadata import MetadataRequest, MetadataRequestTopic

NEIGHBOUR, PORT = 7, 19092
CONFIG = "[storage]\nmetadata_url = '{url}'\n[tables]\nenabled = false\n[groups]\ninitial_rebalance_delay_ms = 0\n"


@pytest.fixture
def store() -> Iterator[str]:
    """The URL of a metadata store."""
    if reason := support.missing():
        pytest.skip(reason)
    with Postgres() as server:
        yield server.url(server.database())


@pytest.fixture
def server(store: str, tmp_path: Path) -> Iterator[Server]:
    yield from serve(Server(tmp_path, CONFIG.format(url=store)))


def neighbour(store: str, *statements: str) -> None:
    with psycopg.connect(store) as connection:
        for statement in statements:
            connection.execute(statement)  # type: ignore[call-overload]


REGISTERED = f"INSERT INTO broker (node, epoch, host, port, state) VALUES ({NEIGHBOUR}, 1, 'there', {PORT}, 'running')"
CHANGED = "UPDATE cluster SET revision = revision + 1"


def assigned(group: str, node: int) -> tuple[str, str, str]:
    mine = f"WHERE id = {slot_of(group)}"
    lock = f"SELECT 1 FROM slot {mine} FOR UPDATE"
    return lock, f"UPDATE slot SET node = {node}, epoch = epoch + 1 {mine}", CHANGED


def coordinator(client: Client, group: str) -> Coordinator:
    (found,) = client.newest(ApiKey.FIND_COORDINATOR, FindCoordinatorRequest(coordinator_keys=(group,))).coordinators
    return found


def heartbeat(client: Client, group: str, member_id: str, generation: int) -> int:
    request = HeartbeatRequest(group, generation, member_id)
    return client.newest(ApiKey.HEARTBEAT, request).error_code


def test_groups_follow_their_slots(store: str, server: Server) -> None:
    with Client(server.port) as client:
        moves, stays = (client.join_alone(group) for group in ("moves", "stays"))
        assert slot_of("moves") != slot_of("stays")
        neighbour(store, REGISTERED, *assigned("moves", NEIGHBOUR))
        wait_until(lambda: coordinator(client, "moves").node_id == NEIGHBOUR)
        assert (coordinator(client, "moves").host, coordinator(client, "moves").port) == ("there", PORT)
        assert heartbeat(client, "moves", moves.id, moves.generation) == ErrorCode.NOT_COORDINATOR
        assert (coordinator(client, "stays").node_id, coordinator(client, "stays").port) == (0, server.port)
        assert heartbeat(client, "stays", stays.id, stays.generation) == 0
        assert [g.group_id for g in client.newest(ApiKey.LIST_GROUPS, ListGroupsRequest()).groups] == ["stays"]

        neighbour(store, *assigned("moves", 0))
        wait_until(lambda: heartbeat(client, "moves", moves.id, moves.generation) == 0)
        assert coordinator(client, "moves").node_id == 0


def test_clients_are_told_of_neighbours_and_their_topics(store: str, server: Server) -> None:
    with Client(server.port) as client:
        topic = "INSERT INTO topic (id, name) VALUES (gen_random_uuid(), 'made-there')"
        neighbour(store, REGISTERED, topic, CHANGED)

        def nodes() -> list[tuple[int, str, int]]:
            brokers = client.newest(ApiKey.DESCRIBE_CLUSTER, DescribeClusterRequest()).brokers
            return [(b.broker_id, b.host, b.port) for b in brokers]

        wait_until(lambda: nodes() == [(0, "127.0.0.1", server.port), (NEIGHBOUR, "there", PORT)])
        asked = MetadataRequest((MetadataRequestTopic(name="made-there"),), allow_auto_topic_creation=False)
        wait_until(lambda: client.newest(ApiKey.METADATA, asked).topics[0].error_code == 0)
        assert [b.node_id for b in client.newest(ApiKey.METADATA, asked).brokers] == [0, NEIGHBOUR]
        neighbour(store, f"UPDATE broker SET state = 'left' WHERE node = {NEIGHBOUR}")
        wait_until(lambda: [node for node, _, _ in nodes()] == [0])
