"""DescribeQuorum (55): the metadata store, in the form of the quorum that Kafka's tools know.

Behavior: there is no quorum of controllers: metadata are in SQL, and every broker changes them. So all brokers that
serve are shown as voters, the one that is asked as their leader, and as offsets the revision of topics and configs that
it has seen. Another topic or partition than `__cluster_metadata`-0 is unknown.
Version notes: times from version 1; messages and where the nodes are from 2.
"""

from streamlake.handlers.context import Context, Exchange
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages.describe_quorum import (
    DescribeQuorumRequest,
    DescribeQuorumResponse,
    Listener,
    Node,
    ReplicaState,
    ResponsePartitionData,
    ResponseTopicData,
)

METADATA = ("__cluster_metadata", 0)
LISTENER = "PLAINTEXT"


async def handle(ctx: Context, exchange: Exchange) -> DescribeQuorumResponse:
    request: DescribeQuorumRequest = exchange.body
    asked = [(topic.topic_name, [p.partition_index for p in topic.partitions]) for topic in request.topics]
    if asked == [(METADATA[0], [METADATA[1]])]:
        topic = ResponseTopicData(METADATA[0], (_metadata(ctx),))
        nodes = (Node(b.node, (Listener(LISTENER, b.host, b.port),)) for b in ctx.brokers.serving())
        return DescribeQuorumResponse(error_message="", topics=(topic,), nodes=tuple(nodes))
    unknown = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    return DescribeQuorumResponse(
        error_message="",
        topics=tuple(
            ResponseTopicData(name, tuple(ResponsePartitionData(index, unknown, unknown.message) for index in indexes))
            for name, indexes in asked
        ),
    )


def _metadata(ctx: Context) -> ResponsePartitionData:
    revision, now_ms = ctx.topics.revision, ctx.clock.now_ms()
    return ResponsePartitionData(
        partition_index=METADATA[1],
        error_message="",
        leader_id=ctx.brokers.controller,
        leader_epoch=ctx.brokers.life.epoch,
        high_watermark=revision,
        current_voters=tuple(
            ReplicaState(b.node, None, revision, last_fetch_timestamp=now_ms, last_caught_up_timestamp=now_ms)
            for b in ctx.brokers.serving()
        ),
    )
