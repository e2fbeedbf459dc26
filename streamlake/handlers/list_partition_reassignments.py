"""ListPartitionReassignments (46): the partitions that are on their way from one broker to another.

Behavior: also those that the controller moves by itself. A partition is listed from its assignment until its former
broker has given it up: it is the replica to be removed.
"""

from streamlake.core.errors import StreamLakeError
from streamlake.handlers.context import Context, Exchange
from streamlake.handlers.error_codes import failure
from streamlake.protocol.messages.list_partition_reassignments import (
    ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsResponse,
    OngoingPartitionReassignment,
    OngoingTopicReassignment,
)


async def handle(ctx: Context, exchange: Exchange) -> ListPartitionReassignmentsResponse:
    request: ListPartitionReassignmentsRequest = exchange.body
    asked = None if request.topics is None else {t.name: set(t.partition_indexes) for t in request.topics}
    try:
        moves = await ctx.administration.moves()
    except StreamLakeError as error:
        code, message = failure(error)
        return ListPartitionReassignmentsResponse(error_code=code, error_message=message)
    found: dict[str, list[OngoingPartitionReassignment]] = {}
    for move in moves:
        topic = ctx.topics.by_id(move.topic_id)
        if topic is None or (asked is not None and move.index not in asked.get(topic.name, ())):
            continue
        targets = () if move.target is None else (move.target,)
        partition = OngoingPartitionReassignment(move.index, (*targets, move.source), targets, (move.source,))
        found.setdefault(topic.name, []).append(partition)
    topics = tuple(OngoingTopicReassignment(name, tuple(partitions)) for name, partitions in sorted(found.items()))
    return ListPartitionReassignmentsResponse(topics=topics)
