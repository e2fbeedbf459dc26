"""WriteTxnMarkers (27): an administrator ends transactions that their coordinator does not end.

Behavior: as from a coordinator (write_markers.py, which our own brokers use), but for the number of the transaction,
which no administrator knows: it ends what the producer has open. If nothing is open, nothing is written and the answer
is success; Kafka writes a marker that ends nothing. Answers when all markers are durable.
Version notes: the version of the transaction from 2: from transaction version 2 on the marker has a later epoch than
the records (KIP-890).
"""

from streamlake.handlers.context import Context, Exchange, find_partition, find_topic
from streamlake.handlers.markers import end_transactions
from streamlake.log.transactions import TransactionEnd
from streamlake.protocol.messages.write_txn_markers import (
    WritableTxnMarker,
    WritableTxnMarkerPartitionResult,
    WritableTxnMarkerResult,
    WritableTxnMarkerTopicResult,
    WriteTxnMarkersRequest,
    WriteTxnMarkersResponse,
)


async def handle(ctx: Context, exchange: Exchange) -> WriteTxnMarkersResponse:
    request: WriteTxnMarkersRequest = exchange.body
    wanted = [
        (find_partition(ctx, find_topic(ctx, topic.name, None), index), _end(marker))
        for marker in request.markers
        for topic in marker.topics
        for index in topic.partition_indexes
    ]
    codes = iter(await end_transactions(ctx.streams, wanted))
    return WriteTxnMarkersResponse(
        markers=tuple(
            WritableTxnMarkerResult(
                producer_id=marker.producer_id,
                topics=tuple(
                    WritableTxnMarkerTopicResult(
                        name=topic.name,
                        partitions=tuple(
                            WritableTxnMarkerPartitionResult(partition_index=index, error_code=next(codes))
                            for index in topic.partition_indexes
                        ),
                    )
                    for topic in marker.topics
                ),
            )
            for marker in request.markers
        )
    )


def _end(marker: WritableTxnMarker) -> TransactionEnd:
    return TransactionEnd(
        producer_id=marker.producer_id,
        producer_epoch=marker.producer_epoch,
        coordinator_epoch=marker.coordinator_epoch,
        commit=marker.transaction_result,
        version=marker.transaction_version,
    )
