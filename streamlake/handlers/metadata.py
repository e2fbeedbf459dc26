"""Metadata (3): brokers, topics and their leaders.

Behavior: a topic that does not exist is created if both the broker (auto.create.topics.enable) and the request allow
it. Every partition is led by the broker that has it open; replicas are that broker alone, because the object store
keeps the copies.
Version notes: version 0 says "all topics" with an empty list, later ones with null. Topic ids from version 10.
"""

from streamlake.cluster.topics import TopicInfo
from streamlake.core.errors import Exists, StreamLakeError
from streamlake.handlers.context import Context, Exchange, default_partitions, failure, find_topic
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages.metadata import (
    MetadataRequest,
    MetadataResponse,
    MetadataResponseBroker,
    MetadataResponsePartition,
    MetadataResponseTopic,
)


async def handle(ctx: Context, exchange: Exchange) -> MetadataResponse:
    request: MetadataRequest = exchange.body
    node = ctx.node
    if request.topics is None or (exchange.version == 0 and not request.topics):
        topics = [describe(ctx, topic) for topic in ctx.topics.all()]
    else:
        topics = []
        for wanted in request.topics:
            topic = find_topic(ctx, wanted.name or "", wanted.topic_id)
            # A request by id has no name, and before version 12 an answer must have one.
            name = wanted.name if wanted.name is not None or exchange.version >= 12 else ""
            if topic is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION and wanted.name is not None:
                topic = await _create(ctx, wanted.name, request.allow_auto_topic_creation)
            if isinstance(topic, ErrorCode):
                topics.append(MetadataResponseTopic(error_code=topic, name=name, topic_id=wanted.topic_id))
            else:
                topics.append(describe(ctx, topic))
    return MetadataResponse(
        brokers=(MetadataResponseBroker(node_id=node.node_id, host=node.host, port=node.port),),
        cluster_id=node.cluster_id,
        controller_id=node.node_id,
        topics=tuple(topics),
    )


def describe(ctx: Context, topic: TopicInfo) -> MetadataResponseTopic:
    node_id = ctx.node.node_id
    partitions = []
    for info in topic.partitions:
        partition = ctx.logs.get(topic.id, info.index)
        partitions.append(
            MetadataResponsePartition(
                error_code=ErrorCode.NONE if partition else ErrorCode.LEADER_NOT_AVAILABLE,
                partition_index=info.index,
                leader_id=node_id if partition else -1,
                leader_epoch=partition.leader_epoch if partition else -1,
                replica_nodes=(node_id,),
                isr_nodes=(node_id,),
            )
        )
    return MetadataResponseTopic(name=topic.name, topic_id=topic.id, partitions=tuple(partitions))


async def _create(ctx: Context, name: str, allowed: bool) -> TopicInfo | ErrorCode:
    if not (allowed and ctx.broker_configs.value("auto.create.topics.enable")):
        return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    try:
        topic = await ctx.topics.create(name, default_partitions(ctx), {})
        await ctx.settled()
        return topic
    except Exists:
        return find_topic(ctx, name, None)  # another request was faster
    except StreamLakeError as error:
        return failure(error, invalid=ErrorCode.INVALID_TOPIC_EXCEPTION).code
