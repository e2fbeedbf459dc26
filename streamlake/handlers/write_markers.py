"""WriteMarkers (20002): a transaction coordinator ends transactions in the partitions that are led here.

Behavior: answers when all markers are durable. Who has nothing open to end, or has begun a later transaction since, is
told success: the marker came before, or the transaction never reached the partition.
"""

from uuid import UUID

from streamlake.handlers.context import Context, Exchange, Located
from streamlake.handlers.markers import end_transactions
from streamlake.log.manager import LogManager
from streamlake.log.transactions import TransactionEnd
from streamlake.protocol.broker_messages.write_markers import (
    Marker,
    MarkerResult,
    PartitionResult,
    TopicResult,
    WriteMarkersRequest,
    WriteMarkersResponse,
)
from streamlake.protocol.errors import ErrorCode
from streamlake.s3stream.streams import Streams


async def handle(ctx: Context, exchange: Exchange) -> WriteMarkersResponse:
    return await write(ctx.logs, ctx.streams, exchange.body, is_peer=exchange.peer is not None)


async def write(
    logs: LogManager, streams: Streams, request: WriteMarkersRequest, *, is_peer: bool = True
) -> WriteMarkersResponse:
    """Also for the coordinators of this broker, for the partitions that it leads."""
    wanted = [
        (_locate(logs, topic.topic_id, index, is_peer), _end(marker))
        for marker in request.markers
        for topic in marker.topics
        for index in topic.partitions
    ]
    codes = iter(await end_transactions(streams, wanted))
    return WriteMarkersResponse(
        markers=tuple(
            MarkerResult(
                topics=tuple(
                    TopicResult(
                        topic_id=topic.topic_id,
                        partitions=tuple(PartitionResult(index=i, error_code=next(codes)) for i in topic.partitions),
                    )
                    for topic in marker.topics
                )
            )
            for marker in request.markers
        )
    )


def _locate(logs: LogManager, topic_id: UUID | None, index: int, is_peer: bool) -> Located:
    if not is_peer:
        return Located(ErrorCode.CLUSTER_AUTHORIZATION_FAILED, None)
    partition = logs.get(topic_id, index) if topic_id is not None else None
    # Also if there is no such topic any more: the coordinator sees that by itself.
    return Located(ErrorCode.NOT_LEADER_OR_FOLLOWER if partition is None else ErrorCode.NONE, partition)


def _end(marker: Marker) -> TransactionEnd:
    return TransactionEnd(
        producer_id=marker.producer_id,
        producer_epoch=marker.producer_epoch,
        coordinator_epoch=marker.coordinator_epoch,
        commit=marker.commit,
        number=marker.number,
        version=marker.transaction_version,
    )
