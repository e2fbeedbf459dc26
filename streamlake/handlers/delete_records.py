"""DeleteRecords (21): move a partition's log start forward.

Behavior: what a user asks for, so a table's retention hold does not stop it; the table counts the positions it never
saw as deleted before translation. -1 means the high watermark.
"""

from streamlake.core.errors import StreamLakeError
from streamlake.handlers.context import Context, Exchange, find_partition, find_topic
from streamlake.handlers.error_codes import LOG, failure
from streamlake.protocol.messages.delete_records import (
    DeleteRecordsPartition,
    DeleteRecordsPartitionResult,
    DeleteRecordsRequest,
    DeleteRecordsResponse,
    DeleteRecordsTopicResult,
)


async def handle(ctx: Context, exchange: Exchange) -> DeleteRecordsResponse:
    request: DeleteRecordsRequest = exchange.body
    topics = []
    for topic in request.topics:
        results = [await _delete(ctx, topic.name, p) for p in topic.partitions]
        topics.append(DeleteRecordsTopicResult(name=topic.name, partitions=tuple(results)))
    return DeleteRecordsResponse(topics=tuple(topics))


async def _delete(ctx: Context, name: str, wanted: DeleteRecordsPartition) -> DeleteRecordsPartitionResult:
    index = wanted.partition_index
    code, partition = find_partition(ctx, find_topic(ctx, name, None), index)
    if partition is None:
        return DeleteRecordsPartitionResult(partition_index=index, low_watermark=-1, error_code=code)
    try:
        low_watermark = await partition.move_start(wanted.offset)
    except StreamLakeError as error:
        code = failure(error, LOG).code
        return DeleteRecordsPartitionResult(partition_index=index, low_watermark=-1, error_code=code)
    return DeleteRecordsPartitionResult(partition_index=index, low_watermark=low_watermark)
