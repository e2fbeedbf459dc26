"""JoinTransactions (20003): another broker asks whether transactions that are coordinated here are open and include
what that one leads or coordinates, or has it join them.

Behavior: joins of one transaction that come together share a write.
"""

import asyncio

from streamlake.coordinator.transaction import V2, Participant, Producer, TxnError
from streamlake.coordinator.transactions import Transactions
from streamlake.handlers.context import Context, Exchange
from streamlake.handlers.error_codes import txn_code
from streamlake.protocol.broker_messages.join_transactions import (
    Join,
    JoinResult,
    JoinTransactionsRequest,
    JoinTransactionsResponse,
)
from streamlake.protocol.errors import ErrorCode


async def handle(ctx: Context, exchange: Exchange) -> JoinTransactionsResponse:
    request: JoinTransactionsRequest = exchange.body
    if exchange.peer is None:
        return JoinTransactionsResponse(error_code=ErrorCode.CLUSTER_AUTHORIZATION_FAILED)
    answers = await asyncio.gather(*(answer(ctx.transactions, join) for join in request.joins))
    results = tuple(JoinResult(error_code=txn_code(error), number=number) for error, number in answers)
    return JoinTransactionsResponse(results=results)


async def answer(transactions: Transactions, join: Join) -> tuple[TxnError, int]:
    """Also of this broker's own."""
    producer = Producer(join.producer_id, join.producer_epoch)
    if join.group_id is not None:
        return await transactions.add(join.transactional_id, producer, (), (join.group_id,), V2)
    if join.topic_id is None:
        return TxnError.INVALID_REQUEST, -1
    participant = Participant(join.topic_id, join.partition)
    if join.may_add:
        return await transactions.add(join.transactional_id, producer, (participant,), (), V2)
    return await transactions.verify(join.transactional_id, producer, participant)
