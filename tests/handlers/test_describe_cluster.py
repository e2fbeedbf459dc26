"""DescribeCluster: the brokers, and one that changes the cluster."""

from types import SimpleNamespace

import pytest
from support.server import Server
from support.wire import Client, ends

from streamlake.cluster.brokers import Brokers
from streamlake.cluster.store.fences import BrokerIdentity
from streamlake.cluster.store.membership import BeatView, BrokerInfo
from streamlake.cluster.store.schema import FENCED, SERVING
from streamlake.core.errors import Unavailable
from streamlake.handlers import metadata, operations
from streamlake.handlers.describe_cluster import handle
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.describe_cluster import DescribeClusterRequest
from streamlake.protocol.messages.metadata import MetadataRequest

CONTROLLERS = 2


@pytest.mark.parametrize("version", ends(ApiKey.DESCRIBE_CLUSTER))
def test_the_brokers(client: Client, server: Server, version: int) -> None:
    answer = client.ask(ApiKey.DESCRIBE_CLUSTER, version, DescribeClusterRequest())
    assert (answer.error_code, answer.controller_id, answer.endpoint_type) == (0, 0, 1)
    assert [(b.broker_id, b.host, b.port) for b in answer.brokers] == [(0, "127.0.0.1", server.port)]
    assert len(answer.cluster_id) == 22


def test_there_are_no_separate_controllers(client: Client) -> None:
    answer = client.newest(ApiKey.DESCRIBE_CLUSTER, DescribeClusterRequest(endpoint_type=CONTROLLERS))
    assert (answer.error_code, answer.brokers) == (ErrorCode.MISMATCHED_ENDPOINT_TYPE, ())
    assert "no separate controller" in answer.error_message
    answer = client.newest(ApiKey.DESCRIBE_CLUSTER, DescribeClusterRequest(endpoint_type=9))
    assert answer.error_code == ErrorCode.UNSUPPORTED_ENDPOINT_TYPE


@pytest.mark.parametrize("version", ends(ApiKey.DESCRIBE_CLUSTER))
def test_operations_are_told_if_asked_for(client: Client, version: int) -> None:
    for asked, told in ((True, operations.CLUSTER), (False, operations.NOT_ASKED)):
        answer = client.ask(ApiKey.DESCRIBE_CLUSTER, version, DescribeClusterRequest(asked))
        assert answer.cluster_authorized_operations == told


async def test_all_that_serve() -> None:
    """Metadata says the same."""
    brokers = Brokers(BrokerIdentity("c", 2, 1), "two", 9002)
    brokers.seen(BeatView(0, (BrokerInfo(1, 1, 0, SERVING, "one", 9001),)))
    ctx = SimpleNamespace(brokers=brokers)
    told = await handle(ctx, SimpleNamespace(version=1, body=DescribeClusterRequest()))
    assert (told.cluster_id, told.controller_id) == ("c", 2)
    assert [(b.broker_id, b.host, b.port) for b in told.brokers] == [(1, "one", 9001), (2, "two", 9002)]
    told = await metadata.handle(ctx, SimpleNamespace(version=13, body=MetadataRequest(topics=())))
    assert (told.cluster_id, told.controller_id) == ("c", 2)
    assert [(b.node_id, b.host, b.port) for b in told.brokers] == [(1, "one", 9001), (2, "two", 9002)]


@pytest.mark.parametrize("fails", [False, True])
async def test_brokers_that_do_not_serve_if_asked_for(fails: bool) -> None:
    brokers = Brokers(BrokerIdentity("c", 2, 1), "two", 9002)
    known = {1: BrokerInfo(1, 1, 0, FENCED, "one", 9001), 2: BrokerInfo(2, 1, 0, SERVING, "two", 9002)}

    async def status() -> SimpleNamespace:
        if fails:
            raise Unavailable("the metadata store is away")
        return SimpleNamespace(view=SimpleNamespace(brokers=known))

    ctx = SimpleNamespace(brokers=brokers, administration=SimpleNamespace(status=status))
    told = await handle(ctx, SimpleNamespace(version=2, body=DescribeClusterRequest(include_fenced_brokers=True)))
    assert told.error_code == (ErrorCode.REQUEST_TIMED_OUT if fails else 0)
    assert [(b.broker_id, b.is_fenced) for b in told.brokers] == ([] if fails else [(2, False), (1, True)])
