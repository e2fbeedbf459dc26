"""AlterClientQuotas (49): there are no quotas, so none can be set; to remove one is no change.

Behavior: each entity is answered alone, as in Kafka.
"""

from streamlake.handlers.context import Context, Exchange
from streamlake.handlers.error_codes import Failure
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages.alter_client_quotas import (
    AlterClientQuotasRequest,
    AlterClientQuotasResponse,
    RequestEntryData,
    ResponseEntryData,
)

OF_NOBODY = Failure(ErrorCode.INVALID_REQUEST, "an entity without a type and a name")
NOT_THERE = Failure(ErrorCode.UNSUPPORTED_VERSION, "quotas are not implemented yet: none can be set")


async def handle(ctx: Context, exchange: Exchange) -> AlterClientQuotasResponse:
    request: AlterClientQuotasRequest = exchange.body
    return AlterClientQuotasResponse(entries=tuple(_answered(entry) for entry in request.entries))


def _answered(entry: RequestEntryData) -> ResponseEntryData:
    if not entry.entity:
        return ResponseEntryData(*OF_NOBODY, entity=entry.entity)
    if not all(op.remove for op in entry.ops):
        return ResponseEntryData(*NOT_THERE, entity=entry.entity)
    return ResponseEntryData(entity=entry.entity)
