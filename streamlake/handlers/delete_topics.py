"""DeleteTopics (20).

Behavior: the topic, its streams' rows, holds and committed offsets go in one metadata transaction; the bytes follow by
garbage collection. An Iceberg table that was made of the topic stays. The broker must allow it: delete.topic.enable.
Version notes: versions 1-5 name topics, from 6 on a topic is named or given by id, never both. That deletion is
disabled has a code of its own from version 3.
"""

from streamlake.core.errors import StreamLakeError
from streamlake.handlers.context import Context, Exchange, failure, find_topic
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages.delete_topics import (
    DeletableTopicResult,
    DeleteTopicsRequest,
    DeleteTopicsResponse,
    DeleteTopicState,
)


async def handle(ctx: Context, exchange: Exchange) -> DeleteTopicsResponse:
    request: DeleteTopicsRequest = exchange.body
    wanted = request.topics or tuple(DeleteTopicState(name=name) for name in request.topic_names)
    if not ctx.broker_configs.value("delete.topic.enable"):
        code = ErrorCode.TOPIC_DELETION_DISABLED if exchange.version >= 3 else ErrorCode.INVALID_REQUEST
        text = "topics may not be deleted here: set the broker config delete.topic.enable"
        return DeleteTopicsResponse(responses=tuple(_result(state, code, text) for state in wanted))
    return DeleteTopicsResponse(responses=tuple([await _delete(ctx, state) for state in wanted]))


async def _delete(ctx: Context, state: DeleteTopicState) -> DeletableTopicResult:
    if (state.name is None) == (state.topic_id is None):
        return _result(state, ErrorCode.INVALID_REQUEST, "give a topic's name or its id, and not both")
    topic = find_topic(ctx, state.name or "", state.topic_id)
    if isinstance(topic, ErrorCode):
        return _result(state, topic, "this topic does not exist")
    try:
        await ctx.topics.delete(topic.id)
        await ctx.settled()
    except StreamLakeError as error:
        return _result(state, *failure(error))
    return DeletableTopicResult(name=topic.name, topic_id=topic.id)


def _result(state: DeleteTopicState, code: ErrorCode, message: str) -> DeletableTopicResult:
    return DeletableTopicResult(name=state.name, topic_id=state.topic_id, error_code=code, error_message=message)
