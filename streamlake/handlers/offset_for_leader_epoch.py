"""OffsetForLeaderEpoch (23): where a leader epoch ended (KIP-101), for clients that check for truncation.

Behavior: logs here never truncate, so a client only learns the end of an epoch it knows.
"""

from streamlake.handlers.context import Context, Exchange, find_partition, find_topic
from streamlake.protocol.messages.offset_for_leader_epoch import (
    EpochEndOffset,
    OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
    OffsetForLeaderPartition,
    OffsetForLeaderTopicResult,
)


async def handle(ctx: Context, exchange: Exchange) -> OffsetForLeaderEpochResponse:
    request: OffsetForLeaderEpochRequest = exchange.body
    topics = [
        OffsetForLeaderTopicResult(topic=t.topic, partitions=tuple(_end(ctx, t.topic, p) for p in t.partitions))
        for t in request.topics
    ]
    return OffsetForLeaderEpochResponse(topics=tuple(topics))


def _end(ctx: Context, topic: str, wanted: OffsetForLeaderPartition) -> EpochEndOffset:
    located = find_partition(ctx, find_topic(ctx, topic, None), wanted.partition, wanted.current_leader_epoch)
    if located.partition is None:
        return EpochEndOffset(error_code=located.code, partition=wanted.partition)
    epoch, end_offset = located.partition.end_of_epoch(wanted.leader_epoch)
    return EpochEndOffset(partition=wanted.partition, leader_epoch=epoch, end_offset=end_offset)
