"""AddOffsetsToTxn (25): a transaction is to commit offsets of a group, which TxnOffsetCommit brings.

Version notes: with transaction.version 2 clients leave it out: TxnOffsetCommit does it. PRODUCER_FENCED is
INVALID_PRODUCER_EPOCH before version 2.
"""

from streamlake.coordinator.transaction import V1, Producer
from streamlake.handlers.context import Context, Exchange
from streamlake.handlers.error_codes import txn_code
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages.add_offsets_to_txn import AddOffsetsToTxnRequest, AddOffsetsToTxnResponse


async def handle(ctx: Context, exchange: Exchange) -> AddOffsetsToTxnResponse:
    request: AddOffsetsToTxnRequest = exchange.body
    if not request.transactional_id:
        return AddOffsetsToTxnResponse(error_code=ErrorCode.INVALID_REQUEST)
    producer = Producer(request.producer_id, request.producer_epoch)
    error, _ = await ctx.transactions.add(request.transactional_id, producer, (), (request.group_id,), V1)
    return AddOffsetsToTxnResponse(error_code=txn_code(error, knows_fenced=exchange.version >= 2))
