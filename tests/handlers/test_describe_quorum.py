"""DescribeQuorum: what Kafka's tools are shown of the metadata store."""

from types import SimpleNamespace

import pytest
from support.server import Server
from support.wire import SERVED, Client

from streamlake.cluster.brokers import Brokers
from streamlake.cluster.store.fences import BrokerIdentity
from streamlake.cluster.store.membership import BeatView, BrokerInfo
from streamlake.cluster.store.schema import SERVING
from streamlake.handlers.describe_quorum import handle
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.describe_quorum import (
    DescribeQuorumRequest,
    RequestPartitionData,
    RequestTopicData,
)


def of(topic: str, *partitions: int) -> DescribeQuorumRequest:
    return DescribeQuorumRequest((RequestTopicData(topic, tuple(map(RequestPartitionData, partitions))),))


@pytest.mark.parametrize("version", SERVED[ApiKey.DESCRIBE_QUORUM])
def test_one_broker(client: Client, server: Server, version: int) -> None:
    answer = client.ask(ApiKey.DESCRIBE_QUORUM, version, of("__cluster_metadata", 0))
    (topic,) = answer.topics
    (found,) = topic.partitions
    assert (answer.error_code, found.error_code, found.leader_id) == (0, 0, 0)
    assert [voter.replica_id for voter in found.current_voters] == [0]
    assert all(voter.log_end_offset == found.high_watermark for voter in found.current_voters)
    if version >= 2:
        assert [(n.node_id, n.listeners[0].port) for n in answer.nodes] == [(0, server.port)]


@pytest.mark.parametrize("asked", [of("__cluster_metadata", 1), of("__cluster_metadata", 0, 0), of("other", 0)])
def test_there_is_nothing_else(client: Client, asked: DescribeQuorumRequest) -> None:
    (topic,) = client.newest(ApiKey.DESCRIBE_QUORUM, asked).topics
    assert {p.error_code for p in topic.partitions} == {ErrorCode.UNKNOWN_TOPIC_OR_PARTITION}


def test_of_nothing(client: Client) -> None:
    assert client.newest(ApiKey.DESCRIBE_QUORUM, DescribeQuorumRequest()).topics == ()


async def test_several_brokers() -> None:
    brokers = Brokers(BrokerIdentity("c", 2, 7), "two", 9002)
    brokers.seen(BeatView(0, (BrokerInfo(1, 1, 0, SERVING, "one", 9001),)))
    clock = SimpleNamespace(now_ms=lambda: 5)
    ctx = SimpleNamespace(brokers=brokers, topics=SimpleNamespace(revision=40), clock=clock)
    answer = await handle(ctx, SimpleNamespace(version=2, body=of("__cluster_metadata", 0)))
    ((found,),) = (topic.partitions for topic in answer.topics)
    assert (found.leader_id, found.leader_epoch, found.high_watermark) == (2, 7, 40)
    assert [(v.replica_id, v.log_end_offset) for v in found.current_voters] == [(1, 40), (2, 40)]
    assert [(n.node_id, n.listeners[0].host) for n in answer.nodes] == [(1, "one"), (2, "two")]
