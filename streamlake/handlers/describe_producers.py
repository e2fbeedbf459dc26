"""DescribeProducers (61): the producers that partitions know, and their open transactions (KIP-664).

Behavior: idempotent producers, too, until producer.id.expiration.ms; answered by the leader.
"""

from streamlake.handlers.context import Context, Exchange, find_partition, find_topic
from streamlake.log.open_transactions import OpenTransaction
from streamlake.log.producers import Producer
from streamlake.protocol.messages.describe_producers import (
    DescribeProducersRequest,
    DescribeProducersResponse,
    PartitionResponse,
    ProducerState,
    TopicResponse,
)


async def handle(ctx: Context, exchange: Exchange) -> DescribeProducersResponse:
    request: DescribeProducersRequest = exchange.body
    return DescribeProducersResponse(
        topics=tuple(
            TopicResponse(
                name=topic.name, partitions=tuple(_describe(ctx, topic.name, i) for i in topic.partition_indexes)
            )
            for topic in request.topics
        )
    )


def _describe(ctx: Context, name: str, index: int) -> PartitionResponse:
    code, partition = find_partition(ctx, find_topic(ctx, name, None), index)
    if partition is None:
        return PartitionResponse(partition_index=index, error_code=code)
    return PartitionResponse(
        partition_index=index, active_producers=tuple(_state(*found) for found in partition.producer_states())
    )


def _state(producer_id: int, producer: Producer, transaction: OpenTransaction | None) -> ProducerState:
    latest = producer.batches[-1] if producer.batches else None
    return ProducerState(
        producer_id=producer_id,
        producer_epoch=producer.epoch,
        last_sequence=latest.last_sequence if latest is not None else -1,
        last_timestamp=latest.max_timestamp if latest is not None else producer.last_append_ms,
        coordinator_epoch=producer.coordinator_epoch,
        current_txn_start_offset=transaction.first_offset if transaction is not None else -1,
    )
