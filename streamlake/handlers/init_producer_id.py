"""InitProducerId (22): an id for an idempotent producer, or for one with transactions.

Behavior: without a transactional id always a new id with epoch 0, also for a producer that names the one it had (as in
Kafka: the next epoch of that one may already belong to a copy of it). With one, the id's producer under a raised epoch,
which fences whoever had it before and aborts what that one has left open. Ids come from blocks that are durable before
the first of them is given out, so none is ever given twice.
Version notes: what a producer had is named from version 3 (KIP-360). PRODUCER_FENCED is INVALID_PRODUCER_EPOCH before
version 4. Version 6, with two-phase commit (KIP-939), is not there.
"""

from streamlake.coordinator.transaction import Producer
from streamlake.core.errors import StreamLakeError
from streamlake.handlers.context import Context, Exchange
from streamlake.handlers.error_codes import failure, txn_code
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages.init_producer_id import InitProducerIdRequest, InitProducerIdResponse


async def handle(ctx: Context, exchange: Exchange) -> InitProducerIdResponse:
    request: InitProducerIdRequest = exchange.body
    if (request.producer_id < 0) != (request.producer_epoch < 0) or request.transactional_id == "":
        return InitProducerIdResponse(error_code=ErrorCode.INVALID_REQUEST, producer_epoch=-1)
    if request.transactional_id is not None:
        expected = Producer(request.producer_id, request.producer_epoch) if request.producer_id >= 0 else None
        error, producer = await ctx.transactions.init(
            request.transactional_id, request.transaction_timeout_ms, expected
        )
        code = txn_code(error, knows_fenced=exchange.version >= 4)
        return InitProducerIdResponse(error_code=code, producer_id=producer.id, producer_epoch=producer.epoch)
    try:
        producer_id, epoch = await ctx.producer_ids.init(request.producer_id, request.producer_epoch)
    except StreamLakeError as error:
        return InitProducerIdResponse(error_code=failure(error).code, producer_epoch=-1)
    return InitProducerIdResponse(producer_id=producer_id, producer_epoch=epoch)
