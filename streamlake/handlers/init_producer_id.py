"""InitProducerId (22): an id for an idempotent producer.

Behavior: always a new id with epoch 0, also for a producer that names the one it had (as in Kafka, when there is no
transactional id: the next epoch of that one may already belong to a copy of it). Ids come from blocks that are durable
before the first of them is given out, so none is ever given twice.
Version notes: transactional ids are refused until transactions are there; what a producer had is named from version 3.
"""

from streamlake.core.errors import StreamLakeError
from streamlake.handlers.context import Context, Exchange
from streamlake.handlers.error_codes import failure
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages.init_producer_id import InitProducerIdRequest, InitProducerIdResponse


async def handle(ctx: Context, exchange: Exchange) -> InitProducerIdResponse:
    request: InitProducerIdRequest = exchange.body
    if request.transactional_id is not None:
        empty = request.transactional_id == ""
        refused = ErrorCode.INVALID_REQUEST if empty else ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
        return InitProducerIdResponse(error_code=refused, producer_epoch=-1)
    try:
        producer_id, epoch = await ctx.producer_ids.init(request.producer_id, request.producer_epoch)
    except StreamLakeError as error:
        return InitProducerIdResponse(error_code=failure(error).code, producer_epoch=-1)
    return InitProducerIdResponse(producer_id=producer_id, producer_epoch=epoch)
