"""ListOffsets (2): earliest (-2), latest (-1), the greatest timestamp (-3, KIP-734), or the first at a time.

Behavior: Only durable offsets. `latest` is the high watermark, or the last stable offset for read_committed, for which
what a search finds at or above that does not count.
A partition that stands twice in a request is refused, once.
Version notes: -3 from version 7; -4 (earliest local, KIP-405) from 8 is the log start: no tier lies below the log. So
the last offset in the tier (-5, KIP-1005, from 9) and the first one that is to go there (-6, KIP-1023, from 11) are not
found. The time to wait for a tier (from 10) counts for nothing. Other negative timestamps, or one of these in an older
version: UNSUPPORTED_VERSION.
"""

from collections import Counter

from streamlake.core.errors import StreamLakeError
from streamlake.handlers.context import Context, Exchange, find_partition, find_topic
from streamlake.handlers.error_codes import failure
from streamlake.log import timestamps
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages.list_offsets import (
    ListOffsetsPartition,
    ListOffsetsPartitionResponse,
    ListOffsetsRequest,
    ListOffsetsResponse,
    ListOffsetsTopicResponse,
)

LATEST, EARLIEST, MAX_TIMESTAMP, EARLIEST_LOCAL, LATEST_TIERED, EARLIEST_PENDING_UPLOAD = -1, -2, -3, -4, -5, -6
OF_A_TIER = (LATEST_TIERED, EARLIEST_PENDING_UPLOAD)
FIXED = (LATEST, EARLIEST, EARLIEST_LOCAL)  # known without a search
FIRST_VERSION = {
    LATEST: 0,
    EARLIEST: 0,
    MAX_TIMESTAMP: 7,
    EARLIEST_LOCAL: 8,
    LATEST_TIERED: 9,
    EARLIEST_PENDING_UPLOAD: 11,
}


async def handle(ctx: Context, exchange: Exchange) -> ListOffsetsResponse:
    request: ListOffsetsRequest = exchange.body
    times = Counter((t.name, p.partition_index) for t in request.topics for p in t.partitions)
    topics = []
    for topic in request.topics:
        answers = [
            await _list(ctx, exchange, topic.name, p)
            if times[topic.name, index] == 1
            else ListOffsetsPartitionResponse(partition_index=index, error_code=ErrorCode.INVALID_REQUEST)
            for index, p in {p.partition_index: p for p in topic.partitions}.items()
        ]
        topics.append(ListOffsetsTopicResponse(name=topic.name, partitions=tuple(answers)))
    return ListOffsetsResponse(topics=tuple(topics))


async def _list(
    ctx: Context, exchange: Exchange, name: str, wanted: ListOffsetsPartition
) -> ListOffsetsPartitionResponse:
    index = wanted.partition_index
    code, partition = find_partition(ctx, find_topic(ctx, name, None), index, wanted.current_leader_epoch)
    if partition is None:
        return ListOffsetsPartitionResponse(partition_index=index, error_code=code)
    if wanted.timestamp < 0 and exchange.version < FIRST_VERSION.get(wanted.timestamp, exchange.version + 1):
        return ListOffsetsPartitionResponse(partition_index=index, error_code=ErrorCode.UNSUPPORTED_VERSION)
    committed = exchange.body.isolation_level == 1
    timestamp, offset = -1, -1
    try:
        if wanted.timestamp in (EARLIEST, EARLIEST_LOCAL):
            offset = partition.log_start_offset
        elif wanted.timestamp == LATEST:
            offset = partition.last_stable_offset if committed else partition.high_watermark
        elif wanted.timestamp in OF_A_TIER:
            timestamp, offset = timestamps.NONE_FOUND
        elif wanted.timestamp == MAX_TIMESTAMP:
            timestamp, offset = await timestamps.max_timestamp(partition)
        else:
            timestamp, offset = await timestamps.first_at_or_after(partition, wanted.timestamp)
    except StreamLakeError as error:
        return ListOffsetsPartitionResponse(partition_index=index, error_code=failure(error).code)
    if committed and wanted.timestamp not in FIXED and offset >= partition.last_stable_offset:
        timestamp, offset = timestamps.NONE_FOUND
    epoch = partition.epoch_of(offset) if offset >= 0 else -1
    return ListOffsetsPartitionResponse(partition_index=index, timestamp=timestamp, offset=offset, leader_epoch=epoch)
