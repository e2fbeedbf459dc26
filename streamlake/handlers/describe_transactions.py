"""DescribeTransactions (65): the state of transactional ids that this broker coordinates.

Behavior: a group whose offsets a transaction is to commit is shown as the partition of __consumer_offsets that it would
have in Kafka, here the number of its slot: tools expect it. Topics that were deleted are left out.
"""

import asyncio

from streamlake.cluster.store.slots import slot_of
from streamlake.coordinator.transaction import OPEN, TxnError
from streamlake.handlers.context import Context, Exchange
from streamlake.handlers.error_codes import txn_code
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages.describe_transactions import (
    DescribeTransactionsRequest,
    DescribeTransactionsResponse,
    TopicData,
    TransactionState,
)


async def handle(ctx: Context, exchange: Exchange) -> DescribeTransactionsResponse:
    request: DescribeTransactionsRequest = exchange.body
    states = await asyncio.gather(*(_describe(ctx, key) for key in request.transactional_ids))
    return DescribeTransactionsResponse(transaction_states=tuple(states))


async def _describe(ctx: Context, transactional_id: str) -> TransactionState:
    if not transactional_id:
        return TransactionState(error_code=ErrorCode.INVALID_REQUEST)
    txn = await ctx.transactions.describe(transactional_id)
    if isinstance(txn, TxnError):
        return TransactionState(error_code=txn_code(txn), transactional_id=transactional_id)
    topics: dict[str, list[int]] = {}
    for topic_id, index in sorted(txn.partitions):
        if (topic := ctx.topics.by_id(topic_id)) is not None:
            topics.setdefault(topic.name, []).append(index)
    if txn.groups:
        topics["__consumer_offsets"] = sorted({slot_of(group) for group in txn.groups})
    return TransactionState(
        transactional_id=transactional_id,
        transaction_state=txn.state.value,
        transaction_timeout_ms=txn.timeout_ms,
        transaction_start_time_ms=txn.started_ms if txn.state in OPEN else -1,
        producer_id=txn.producer_id,
        producer_epoch=txn.epoch,
        topics=tuple(TopicData(topic=name, partitions=tuple(topics[name])) for name in sorted(topics)),
    )
