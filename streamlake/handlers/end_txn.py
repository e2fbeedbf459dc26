"""EndTxn (26): commit or abort; answered when the decision is durable.

Behavior: markers go to the partitions after the answer, until each has its own. Until then the next transaction of the
id is answered CONCURRENT_TRANSACTIONS, which waits a moment for them.
Version notes: from version 5 (transaction.version 2, KIP-890) each end raises the epoch, which the answer tells, and a
transaction that has not begun can be aborted. PRODUCER_FENCED is INVALID_PRODUCER_EPOCH before version 2.
"""

from streamlake.coordinator.transaction import V1, V2, Producer
from streamlake.handlers.context import Context, Exchange
from streamlake.handlers.error_codes import txn_code
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages.end_txn import EndTxnRequest, EndTxnResponse


async def handle(ctx: Context, exchange: Exchange) -> EndTxnResponse:
    request: EndTxnRequest = exchange.body
    if not request.transactional_id:
        return EndTxnResponse(error_code=ErrorCode.INVALID_REQUEST)
    producer = Producer(request.producer_id, request.producer_epoch)
    version = V2 if exchange.version >= 5 else V1
    error, after = await ctx.transactions.end(request.transactional_id, producer, request.committed, version)
    code = txn_code(error, knows_fenced=exchange.version >= 2)
    return EndTxnResponse(error_code=code, producer_id=after.id, producer_epoch=after.epoch)
