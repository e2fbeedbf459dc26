"""DeleteTopics (20).

Behavior: the topic, its streams' rows, holds and committed offsets go in one metadata transaction; the bytes follow by
garbage collection. An Iceberg table that was made of the topic stays. The broker must allow it: delete.topic.enable. A
topic that is named more than once in a request is refused, once, and stays.
Version notes: versions 1-5 name topics, from 6 on a topic is named or given by id, never both. That deletion is
disabled has a code of its own from version 3.
"""

from collections import Counter

from streamlake.core.errors import StreamLakeError
from streamlake.handlers.context import Context, Exchange, find_topic
from streamlake.handlers.error_codes import failure
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
    names = {state.name for state in wanted if state.topic_id is None}
    by_both = {}
    for state in wanted:
        if state.name is None and state.topic_id is not None:
            topic = ctx.topics.by_id(state.topic_id)
            if topic is not None and topic.name in names:
                by_both[topic.name] = state
    responses = []
    for state, times in Counter(wanted).items():
        if times > 1:
            text = "this topic appears more than once in this request"
            responses.append(_result(state, ErrorCode.INVALID_REQUEST, text))
        elif state.name in by_both:
            text = "this topic stands in this request by its name and by its id"
            both = DeleteTopicState(state.name, by_both[state.name].topic_id)
            responses.append(_result(both, ErrorCode.INVALID_REQUEST, text))
        elif state not in by_both.values():
            responses.append(await _delete(ctx, state))
    return DeleteTopicsResponse(responses=tuple(responses))


async def _delete(ctx: Context, state: DeleteTopicState) -> DeletableTopicResult:
    if (state.name is None) == (state.topic_id is None):
        return _result(state, ErrorCode.INVALID_REQUEST, "give a topic's name or its id, and not both")
    topic = find_topic(ctx, state.name or "", state.topic_id)
    if isinstance(topic, ErrorCode):
        return _result(state, topic, "this topic does not exist")
    try:
        await ctx.topics.delete(topic.id)
    except StreamLakeError as error:
        return _result(state, *failure(error))
    return DeletableTopicResult(name=topic.name, topic_id=topic.id)


def _result(state: DeleteTopicState, code: ErrorCode, message: str) -> DeletableTopicResult:
    return DeletableTopicResult(name=state.name, topic_id=state.topic_id, error_code=code, error_message=message)
