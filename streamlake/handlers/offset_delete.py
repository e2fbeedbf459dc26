"""OffsetDelete (47): committed offsets of single partitions go, while the group stays.

Behavior: of a group with members only those of topics to which no member subscribes (GROUP_SUBSCRIBED_TO_TOPIC); that
is known of consumers alone, so groups of another kind must be empty (NON_EMPTY_GROUP). A partition without a committed
offset is no error. Answered when it is durable.
"""

from streamlake.coordinator.classic.api import GroupError
from streamlake.handlers.context import Context, Exchange
from streamlake.handlers.error_codes import group_code
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages.offset_delete import (
    OffsetDeleteRequest,
    OffsetDeleteResponse,
    OffsetDeleteResponsePartition,
    OffsetDeleteResponseTopic,
)


async def handle(ctx: Context, exchange: Exchange) -> OffsetDeleteResponse:
    request: OffsetDeleteRequest = exchange.body
    asked = [(topic.name, partition.partition_index) for topic in request.topics for partition in topic.partitions]
    unknown = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    if not all(_exists(ctx, *each) for each in asked) and not await ctx.catch_up():
        unknown = ErrorCode.COORDINATOR_NOT_AVAILABLE  # another broker may have made it a moment ago
    known = [each for each in dict.fromkeys(asked) if _exists(ctx, *each)]
    error, results = await ctx.offsets.delete(request.group_id, known)
    if error is not GroupError.NONE:
        return OffsetDeleteResponse(error_code=group_code(error))
    codes = dict(zip(known, map(group_code, results), strict=True))
    answers = (
        OffsetDeleteResponseTopic(
            topic.name,
            tuple(
                OffsetDeleteResponsePartition(p.partition_index, codes.get((topic.name, p.partition_index), unknown))
                for p in topic.partitions
            ),
        )
        for topic in request.topics
        if topic.partitions  # as Kafka answers
    )
    return OffsetDeleteResponse(topics=tuple(answers))


def _exists(ctx: Context, name: str, index: int) -> bool:
    topic = ctx.topics.get(name)
    return topic is not None and 0 <= index < len(topic.partitions)
