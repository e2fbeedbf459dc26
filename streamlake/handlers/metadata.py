"""Metadata (3): brokers, topics and their leaders.

Behavior: a topic that does not exist is created if both the broker (auto.create.topics.enable) and the request allow
it. Brokers are those that serve, as of this broker's last look, and answer. Every partition is led by the broker that
has it open, under the epoch that the metadata store holds; while it is closed, by the broker that is to open it. The
leader is the only replica, because the object store keeps the copies.
A topic that is unknown here is looked for in the metadata store first: another broker may just have made it.
A topic that stands twice in a request is answered once. Kafka's internal topics are not here (internal_topics.py).
Version notes: version 0 says "all topics" with an empty list, later ones with null. Answers have topic ids from version
10, requests from 12: one with an id before that, or with neither name nor id, is refused as a whole. Operations (8 and
newer) if asked for.
"""

from collections.abc import Sequence

import msgspec

from streamlake.cluster.store.topic_rows import TopicInfo
from streamlake.cluster.topics import check_name
from streamlake.core.errors import Exists, Invalid, StreamLakeError
from streamlake.handlers import operations
from streamlake.handlers.context import Context, Exchange, default_partitions, find_topic
from streamlake.handlers.error_codes import TOPIC_NAME, failure
from streamlake.handlers.internal_topics import RESERVED
from streamlake.handlers.leaders import leader_of
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages.metadata import (
    MetadataRequest,
    MetadataRequestTopic,
    MetadataResponse,
    MetadataResponseBroker,
    MetadataResponsePartition,
    MetadataResponseTopic,
)


async def handle(ctx: Context, exchange: Exchange) -> MetadataResponse:
    request: MetadataRequest = exchange.body
    allowed = operations.TOPIC if request.include_topic_authorized_operations else operations.NOT_ASKED
    if request.topics is None or (exchange.version == 0 and not request.topics):
        topics = [describe(ctx, topic, allowed) for topic in ctx.topics.all()]
    elif refused := _refusal(exchange.version, request.topics):
        rows = [MetadataResponseTopic(refused, t.name or "", t.topic_id) for t in request.topics]
        return MetadataResponse(topics=tuple(rows), error_code=refused)
    else:
        if any(isinstance(_find(ctx, wanted), ErrorCode) for wanted in request.topics):
            await ctx.catch_up()
        topics = []
        for wanted in dict.fromkeys(request.topics):
            topic = _find(ctx, wanted)
            if wanted.topic_id is not None:
                unknown = MetadataResponseTopic(name=None, topic_id=wanted.topic_id)
            else:
                unknown = MetadataResponseTopic(name=wanted.name, topic_authorized_operations=allowed)
            if topic is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION and request.allow_auto_topic_creation:
                topic = await _create(ctx, wanted.name or "")
            if isinstance(topic, ErrorCode):
                topics.append(msgspec.structs.replace(unknown, error_code=topic))
            else:
                topics.append(describe(ctx, topic, allowed))
    return MetadataResponse(
        brokers=tuple(MetadataResponseBroker(node_id=b.node, host=b.host, port=b.port) for b in ctx.brokers.serving()),
        cluster_id=ctx.brokers.cluster_id,
        controller_id=ctx.brokers.controller,
        topics=tuple(topics),
        cluster_authorized_operations=(
            operations.CLUSTER if request.include_cluster_authorized_operations else operations.NOT_ASKED
        ),
    )


def _refusal(version: int, topics: Sequence[MetadataRequestTopic]) -> ErrorCode:
    if version < 12 and any(t.name is None or t.topic_id is not None for t in topics):
        return ErrorCode.INVALID_REQUEST
    if any(t.name is None and t.topic_id is None for t in topics):
        return ErrorCode.UNKNOWN_SERVER_ERROR  # as in Kafka, which has no word for it
    return ErrorCode.NONE


def _find(ctx: Context, wanted: MetadataRequestTopic) -> TopicInfo | ErrorCode:
    """By id if it is given: it counts more than a name."""
    return find_by_name(ctx, wanted.name or "") if wanted.topic_id is None else find_topic(ctx, "", wanted.topic_id)


def find_by_name(ctx: Context, name: str) -> TopicInfo | ErrorCode:
    """INVALID_TOPIC_EXCEPTION if no topic can have this name."""
    topic = find_topic(ctx, name, None)
    if isinstance(topic, ErrorCode):
        try:
            check_name(name)
        except Invalid:
            return ErrorCode.INVALID_TOPIC_EXCEPTION
    return topic


def describe(ctx: Context, topic: TopicInfo, allowed: int = operations.NOT_ASKED) -> MetadataResponseTopic:
    partitions = []
    for info in topic.partitions:
        leader = leader_of(ctx, topic, info.index)
        assigned = ctx.brokers.node if info.node is None else info.node
        replicas = (leader.node if leader.node >= 0 else assigned,)
        partitions.append(
            MetadataResponsePartition(
                error_code=ErrorCode.NONE if leader.node >= 0 else ErrorCode.LEADER_NOT_AVAILABLE,
                partition_index=info.index,
                leader_id=leader.node,
                leader_epoch=leader.epoch,
                replica_nodes=replicas,
                isr_nodes=replicas,
            )
        )
    return MetadataResponseTopic(
        name=topic.name, topic_id=topic.id, partitions=tuple(partitions), topic_authorized_operations=allowed
    )


async def _create(ctx: Context, name: str) -> TopicInfo | ErrorCode:
    if name in RESERVED or not ctx.broker_configs.value("auto.create.topics.enable"):
        return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    try:
        return await ctx.topics.create(name, default_partitions(ctx), {})
    except Exists:
        return find_topic(ctx, name, None)  # another request was faster
    except StreamLakeError as error:
        return failure(error, TOPIC_NAME).code
