"""DescribeCluster (60): the brokers and the controller.

Behavior: the brokers that serve, as of this broker's last beat. This broker is named as the controller: every broker
makes changes of the cluster. Only the brokers' endpoint (type 1) can be described; who asks for the controllers (2)
asks the wrong endpoint.
Version notes: from version 2 (KIP-1073) also brokers that do not serve, if asked for: those that have stopped, or are
dead.
"""

from streamlake.core.errors import StreamLakeError
from streamlake.handlers import operations
from streamlake.handlers.context import Context, Exchange
from streamlake.handlers.error_codes import failure
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages.describe_cluster import (
    DescribeClusterBroker,
    DescribeClusterRequest,
    DescribeClusterResponse,
)

BROKERS, CONTROLLERS = 1, 2


async def handle(ctx: Context, exchange: Exchange) -> DescribeClusterResponse:
    request: DescribeClusterRequest = exchange.body
    if request.endpoint_type != BROKERS:
        mismatched = request.endpoint_type == CONTROLLERS
        return DescribeClusterResponse(
            error_code=ErrorCode.MISMATCHED_ENDPOINT_TYPE if mismatched else ErrorCode.UNSUPPORTED_ENDPOINT_TYPE,
            error_message="there is no separate controller here: describe the brokers (endpoint type 1)",
        )
    brokers = [DescribeClusterBroker(broker_id=b.node, host=b.host, port=b.port) for b in ctx.brokers.serving()]
    if request.include_fenced_brokers:
        try:
            known = (await ctx.administration.status()).view.brokers
        except StreamLakeError as error:
            code, text = failure(error)
            return DescribeClusterResponse(error_code=code, error_message=text, endpoint_type=request.endpoint_type)
        serving = {b.broker_id for b in brokers}
        brokers += [
            DescribeClusterBroker(broker_id=b.node, host=b.host, port=b.port, is_fenced=True)
            for b in known.values()
            if b.node not in serving
        ]
    return DescribeClusterResponse(
        endpoint_type=request.endpoint_type,
        cluster_id=ctx.brokers.cluster_id,
        controller_id=ctx.brokers.controller,
        brokers=tuple(brokers),
        cluster_authorized_operations=(
            operations.CLUSTER if request.include_cluster_authorized_operations else operations.NOT_ASKED
        ),
    )
