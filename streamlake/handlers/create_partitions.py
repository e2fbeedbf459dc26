"""CreatePartitions (37).

Behavior: the count may only grow. An assignment must name this broker alone for each new partition. A topic that
stands twice in a request is refused, once.
"""

from collections import Counter
from functools import partial

from streamlake.core.errors import StreamLakeError
from streamlake.handlers.context import Context, Exchange
from streamlake.handlers.error_codes import PARTITION_COUNT, REPLICA_ASSIGNMENT, failure
from streamlake.handlers.replica_assignment import check_replicas
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages.create_partitions import (
    CreatePartitionsRequest,
    CreatePartitionsResponse,
    CreatePartitionsTopic,
    CreatePartitionsTopicResult,
)


async def handle(ctx: Context, exchange: Exchange) -> CreatePartitionsResponse:
    request: CreatePartitionsRequest = exchange.body
    times = Counter(topic.name for topic in request.topics)
    results = []
    for name, topic in {topic.name: topic for topic in request.topics}.items():
        if times[name] > 1:
            text = f"topic {name!r} appears more than once in this request"
            results.append(_failed(name, ErrorCode.INVALID_REQUEST, text))
        else:
            results.append(await _grow(ctx, topic, request.validate_only))
    return CreatePartitionsResponse(results=tuple(results))


def _failed(name: str, code: ErrorCode, message: str) -> CreatePartitionsTopicResult:
    return CreatePartitionsTopicResult(name=name, error_code=code, error_message=message)


async def _grow(ctx: Context, wanted: CreatePartitionsTopic, validate_only: bool) -> CreatePartitionsTopicResult:
    failed = partial(_failed, wanted.name)
    topic = ctx.topics.get(wanted.name)
    if topic is None:
        return failed(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "this topic does not exist")
    have = len(topic.partitions)
    if wanted.count <= have:
        return failed(ErrorCode.INVALID_PARTITIONS, f"the topic has {have} partitions; the count can only grow")
    if wanted.assignments is not None and len(wanted.assignments) != wanted.count - have:
        text = f"{wanted.count - have} new partitions need as many assignments, not {len(wanted.assignments)}"
        return failed(ErrorCode.INVALID_REPLICA_ASSIGNMENT, text)
    codes = REPLICA_ASSIGNMENT  # of the step that may fail
    try:
        check_replicas([a.broker_ids for a in wanted.assignments or ()], ctx.brokers.node)
        codes = PARTITION_COUNT
        if validate_only:
            ctx.topics.check_add_partitions(wanted.name, wanted.count)
        else:
            await ctx.topics.add_partitions(wanted.name, wanted.count)
    except StreamLakeError as error:
        return failed(*failure(error, codes))
    return CreatePartitionsTopicResult(name=wanted.name)
