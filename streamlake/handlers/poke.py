"""Poke (20001): another broker has committed a change, and the metadata store has this revision.

Behavior: images that are behind are read again at once, instead of after the next beat. A poke that is late, repeated
or wrong costs a look at most; of pokes that come during a look all together cost one more.
"""

from streamlake.handlers.context import Context, Exchange
from streamlake.protocol.broker_messages.poke import PokeRequest, PokeResponse
from streamlake.protocol.errors import ErrorCode


async def handle(ctx: Context, exchange: Exchange) -> PokeResponse:
    request: PokeRequest = exchange.body
    if exchange.peer is None:
        return PokeResponse(error_code=ErrorCode.CLUSTER_AUTHORIZATION_FAILED)
    ctx.brokers.revised(request.revision)
    return PokeResponse()
