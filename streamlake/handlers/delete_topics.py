"""DeleteTopics (20).

Behavior: the topic, its streams' rows, holds and committed offsets go in one metadata transaction; the bytes follow by
garbage collection. An Iceberg table that was made of the topic stays.
Version notes: versions 1-5 name topics, from 6 on a topic is named or given by id, never both.
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
    return DeleteTopicsResponse(responses=tuple([await _delete(ctx, state) for state in wanted]))


async def _delete(ctx: Context, state: DeleteTopicState) -> DeletableTopicResult:
    given_id = state.topic_id
    if state.name is not None and given_id is not None:
        text = "give a topic's name or its id, not both"
        return _result(state, ErrorCode.INVALID_REQUEST, text)
    topic = find_topic(ctx, state.name or "", given_id)
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
