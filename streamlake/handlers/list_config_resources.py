"""ListConfigResources (74): what can have configs: this broker and its loggers, all topics, and the groups and client
metrics subscriptions of which one is set.

Version notes: 0 is ListClientMetricsResources and lists those only; from 1 the types are asked for, none means all.
"""

from streamlake.handlers.config_entries import BROKER, CLIENT_METRICS, GROUP, LOGGER, NAMED, TOPIC
from streamlake.handlers.context import Context, Exchange
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages.list_config_resources import (
    ConfigResource,
    ListConfigResourcesRequest,
    ListConfigResourcesResponse,
)

TYPES = (GROUP, CLIENT_METRICS, LOGGER, BROKER, TOPIC)


async def handle(ctx: Context, exchange: Exchange) -> ListConfigResourcesResponse:
    request: ListConfigResourcesRequest = exchange.body
    wanted = (CLIENT_METRICS,) if exchange.version == 0 else request.resource_types or TYPES
    if not set(wanted) <= set(TYPES):
        return ListConfigResourcesResponse(error_code=ErrorCode.UNSUPPORTED_VERSION)
    found = [ConfigResource(name, kind) for kind in TYPES if kind in wanted for name in await _names(ctx, kind)]
    return ListConfigResourcesResponse(config_resources=tuple(found))


async def _names(ctx: Context, kind: int) -> list[str]:
    if kind in NAMED:
        return await ctx.resource_configs.names(NAMED[kind])
    return [topic.name for topic in ctx.topics.all()] if kind == TOPIC else [str(b.node) for b in ctx.brokers.serving()]
