"""CreatePartitions (37).

Behavior: the count may only grow. Assignments are checked for their number; which brokers they name does not matter.
"""

from streamlake.core.errors import StreamLakeError
from streamlake.handlers.context import Context, Exchange, failure
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages.create_partitions import (
    CreatePartitionsRequest,
    CreatePartitionsResponse,
    CreatePartitionsTopic,
    CreatePartitionsTopicResult,
)


async def handle(ctx: Context, exchange: Exchange) -> CreatePartitionsResponse:
    request: CreatePartitionsRequest = exchange.body
    results = [await _grow(ctx, topic, request.validate_only) for topic in request.topics]
    return CreatePartitionsResponse(results=tuple(results))


async def _grow(ctx: Context, wanted: CreatePartitionsTopic, validate_only: bool) -> CreatePartitionsTopicResult:
    def failed(code: ErrorCode, message: str) -> CreatePartitionsTopicResult:
        return CreatePartitionsTopicResult(name=wanted.name, error_code=code, error_message=message)

    topic = ctx.topics.get(wanted.name)
    if topic is None:
        return failed(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "this topic does not exist")
    have = len(topic.partitions)
    if wanted.count <= have:
        return failed(ErrorCode.INVALID_PARTITIONS, f"the topic has {have} partitions; the count can only grow")
    if wanted.assignments is not None and len(wanted.assignments) != wanted.count - have:
        text = f"{wanted.count - have} new partitions need as many assignments, not {len(wanted.assignments)}"
        return failed(ErrorCode.INVALID_REPLICA_ASSIGNMENT, text)
    try:
        if validate_only:
            ctx.topics.check_add_partitions(wanted.name, wanted.count)
        else:
            await ctx.topics.add_partitions(wanted.name, wanted.count)
            await ctx.settled()
    except StreamLakeError as error:
        return failed(*failure(error, ErrorCode.INVALID_PARTITIONS))
    return CreatePartitionsTopicResult(name=wanted.name)
