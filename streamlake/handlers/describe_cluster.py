"""DescribeCluster (60): the brokers and the controller.

Behavior: the brokers that serve, as of this broker's last beat. This broker is named as the controller: every broker
makes changes of the cluster. Only the brokers' endpoint (type 1) can be described; who asks for
the controllers (2) asks the wrong endpoint.
"""

from streamlake.handlers import operations
from streamlake.handlers.context import Context, Exchange
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
    return DescribeClusterResponse(
        endpoint_type=request.endpoint_type,
        cluster_id=ctx.brokers.cluster_id,
        controller_id=ctx.brokers.controller,
        brokers=tuple(DescribeClusterBroker(broker_id=b.node, host=b.host, port=b.port) for b in ctx.brokers.serving()),
        cluster_authorized_operations=(
            operations.CLUSTER if request.include_cluster_authorized_operations else operations.NOT_ASKED
        ),
    )
