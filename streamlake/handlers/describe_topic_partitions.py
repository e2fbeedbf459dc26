"""DescribeTopicPartitions (75, KIP-966): Metadata for topics, in pages.

Behavior: topics by name order, from the cursor on, until the limit of partitions; the answer carries the next cursor.
"""

from streamlake.handlers.context import Context, Exchange
from streamlake.handlers.metadata import describe
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
        first, skip = request.cursor.topic_name, max(request.cursor.partition_index, 0)
    room = min(max(request.response_partition_limit, 1), PARTITIONS_MAX)
    answers: list[DescribeTopicPartitionsResponseTopic] = []
    for name in names:
        if name < first:
            continue
        start = skip if name == first else 0
        if room == 0:
            return DescribeTopicPartitionsResponse(topics=tuple(answers), next_cursor=Cursor(name, start))
        topic = ctx.topics.get(name)
        if topic is None:
            code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            answers.append(DescribeTopicPartitionsResponseTopic(error_code=code, name=name))
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
                    )
                    for p in page
                ),
            )
        )
        if start + len(page) < len(described.partitions):
            cursor = Cursor(name, start + len(page))
            return DescribeTopicPartitionsResponse(topics=tuple(answers), next_cursor=cursor)
    return DescribeTopicPartitionsResponse(topics=tuple(answers))
