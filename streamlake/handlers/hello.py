"""Hello (20000): another broker of the cluster begins a connection.

Behavior: CLUSTER_AUTHORIZATION_FAILED for whoever cannot prove that it knows the secret of the cluster, or means
another broker, or an earlier life of this one. Nothing but this makes a connection one of a broker.
"""

import structlog

from streamlake.cluster.secret import Life
from streamlake.handlers.context import Context, Exchange
from streamlake.protocol.broker_messages.hello import HelloRequest, HelloResponse
from streamlake.protocol.errors import ErrorCode

log = structlog.get_logger(__name__)


async def handle(ctx: Context, exchange: Exchange) -> HelloResponse:
    request: HelloRequest = exchange.body
    sender = Life(request.node, request.epoch)
    if not ctx.secret.is_proof(request.proof, sender, ctx.brokers.life):
        log.warning("a connection was not accepted as one of a broker", client=exchange.client_host, node=request.node)
        return HelloResponse(error_code=ErrorCode.CLUSTER_AUTHORIZATION_FAILED)
    exchange.peer = sender
    return HelloResponse()
