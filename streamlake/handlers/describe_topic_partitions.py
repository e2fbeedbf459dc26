"""DescribeTopicPartitions (75, KIP-966): Metadata for topics, in pages.

Behavior: topics by name order, from the cursor on, until the limit of partitions; the answer carries the next cursor.
There are no eligible leaders besides the in-sync replica: empty arrays, as Kafka sends them, and not null, over which
its clients stumble. What may be done with a topic is always told.
"""

from collections.abc import Iterable

from streamlake.handlers import operations
from streamlake.handlers.context import Context, Exchange
from streamlake.handlers.metadata import describe, find_by_name
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages.describe_topic_partitions import (
    Cursor,
    DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsResponse,
    DescribeTopicPartitionsResponsePartition,
    DescribeTopicPartitionsResponseTopic,
)

PARTITIONS_MAX = 2000


async def handle(ctx: Context, exchange: Exchange) -> DescribeTopicPartitionsResponse:
    request: DescribeTopicPartitionsRequest = exchange.body
    names = sorted({t.name for t in request.topics} or {t.name for t in ctx.topics.all()})
    first, skip = "", 0
    if request.cursor is not None:
        first, skip = request.cursor.topic_name, request.cursor.partition_index
        if skip < 0 or (request.topics and first not in names):
            return _refused(names)
    room = min(max(request.response_partition_limit, 1), PARTITIONS_MAX)
    answers: list[DescribeTopicPartitionsResponseTopic] = []
    for name in names:
        if name < first:
            continue
        start = skip if name == first else 0
        if room == 0:
            return DescribeTopicPartitionsResponse(topics=tuple(answers), next_cursor=Cursor(name, start))
        topic = find_by_name(ctx, name)
        if isinstance(topic, ErrorCode):
            unknown = DescribeTopicPartitionsResponseTopic(
                error_code=topic, name=name, topic_authorized_operations=operations.TOPIC
            )
            answers.append(unknown)
            continue
        described = describe(ctx, topic)
        page = described.partitions[start : start + room]
        room -= len(page)
        answers.append(
            DescribeTopicPartitionsResponseTopic(
                name=name,
                topic_id=topic.id,
                partitions=tuple(
                    DescribeTopicPartitionsResponsePartition(
                        error_code=p.error_code,
                        partition_index=p.partition_index,
                        leader_id=p.leader_id,
                        leader_epoch=p.leader_epoch,
                        replica_nodes=p.replica_nodes,
                        isr_nodes=p.isr_nodes,
                        eligible_leader_replicas=(),
                        last_known_elr=(),
                    )
                    for p in page
                ),
                topic_authorized_operations=operations.TOPIC,
            )
        )
        if start + len(page) < len(described.partitions):
            cursor = Cursor(name, start + len(page))
            return DescribeTopicPartitionsResponse(topics=tuple(answers), next_cursor=cursor)
    return DescribeTopicPartitionsResponse(topics=tuple(answers))


def _refused(names: Iterable[str]) -> DescribeTopicPartitionsResponse:
    """A cursor at none of the topics that are asked for, or at no partition."""
    code = ErrorCode.INVALID_REQUEST
    topics = [DescribeTopicPartitionsResponseTopic(error_code=code, name=name) for name in names]
    return DescribeTopicPartitionsResponse(topics=tuple(topics))
