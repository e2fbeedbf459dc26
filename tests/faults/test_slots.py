"""Two servers on one PostgreSQL: groups follow their slots when a broker comes, and when one is killed."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support import postgres as support
from support.postgres import Postgres
from support.server import Server
from support.wait import wait_until
from support.wire import Client, Member

from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.describe_cluster import DescribeClusterRequest
from streamlake.protocol.messages.find_coordinator import FindCoordinatorRequest
from streamlake.protocol.messages.heartbeat import HeartbeatRequest
from streamlake.protocol.messages.list_groups import ListGroupsRequest
from streamlake.protocol.messages.metadata import MetadataRequest, MetadataRequestTopic

CONFIG = """
[server]
node_id = {node}
[storage]
metadata_url = '{metadata}'
url = '{objects}'
[tables]
enabled = false
[groups]
initial_rebalance_delay_ms = 0
"""
GROUPS = [f"group-{number}" for number in range(30)]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[int], tuple[Server, Client]]]:
    """Starts the server of this node."""
    if reason := support.missing():
        pytest.skip(reason)
    with ExitStack() as stack:
        postgres = stack.enter_context(Postgres())
        metadata, objects = postgres.url(postgres.database()), (tmp_path / "objects").as_uri()

        def start(node: int) -> tuple[Server, Client]:
            config = CONFIG.format(node=node, metadata=metadata, objects=objects)
            server = Server(tmp_path / str(node), config).start()
            stack.callback(server.kill)
            return server, stack.enter_context(Client(server.port))

        yield start


def coordinators(client: Client) -> dict[str, int]:
    """The node of each group, as this broker knows; -1 if there is none at present."""
    request = FindCoordinatorRequest(coordinator_keys=tuple(GROUPS))
    return {c.key: c.node_id for c in client.newest(ApiKey.FIND_COORDINATOR, request).coordinators}


def heartbeat(client: Client, member: Member) -> int:
    request = HeartbeatRequest(member.group, member.generation, member.id)
    return client.newest(ApiKey.HEARTBEAT, request).error_code


def listed(client: Client) -> set[str]:
    return {group.group_id for group in client.newest(ApiKey.LIST_GROUPS, ListGroupsRequest()).groups}


def test_groups_follow_their_slots_and_stay_stable(start: Callable[[int], tuple[Server, Client]]) -> None:
    _, first = start(0)
    members = [first.join_alone(group) for group in GROUPS]
    assert set(coordinators(first).values()) == {0}

    killed, second = start(1)
    wait_until(lambda: set(coordinators(first).values()) == {0, 1} and coordinators(first) == coordinators(second))
    where = coordinators(first)
    for node, here, there in ((0, first, second), (1, second, first)):
        mine = [member for member in members if where[member.group] == node]
        wait_until(lambda here=here, mine=mine: {heartbeat(here, member) for member in mine} == {0})
        assert {heartbeat(there, member) for member in mine} == {ErrorCode.NOT_COORDINATOR}
        assert listed(here) == {member.group for member in mine}

    killed.kill()
    wait_until(lambda: set(coordinators(first).values()) == {0})
    wait_until(lambda: {heartbeat(first, member) for member in members} == {0})
    assert listed(first) == set(GROUPS)


def test_clients_are_told_of_all_brokers_and_their_topics(start: Callable[[int], tuple[Server, Client]]) -> None:
    (one, first), (other, second) = start(0), start(1)
    both = [(0, "127.0.0.1", one.port), (1, "127.0.0.1", other.port)]

    def nodes(client: Client) -> list[tuple[int, str, int]]:
        brokers = client.newest(ApiKey.DESCRIBE_CLUSTER, DescribeClusterRequest()).brokers
        return [(b.broker_id, b.host, b.port) for b in brokers]

    wait_until(lambda: nodes(first) == nodes(second) == both)
    topic = second.create_topic(partitions=4)
    asked = MetadataRequest((MetadataRequestTopic(name=topic.name),), allow_auto_topic_creation=False)

    def leaders(client: Client) -> list[int]:
        (described,) = client.newest(ApiKey.METADATA, asked).topics
        return sorted(p.leader_id for p in described.partitions)

    wait_until(lambda: leaders(first) == leaders(second) == [0, 0, 1, 1])
    assert [b.node_id for b in first.newest(ApiKey.METADATA, asked).brokers] == [0, 1]
    assert other.stop() == 0
    wait_until(lambda: nodes(first) == both[:1])
    wait_until(lambda: leaders(first) == [0] * 4)
