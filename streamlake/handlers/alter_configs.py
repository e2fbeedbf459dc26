"""AlterConfigs (33), the older form: the keys that are given become all the keys there are.

Behavior: keys that are left out go back to their defaults. Prefer IncrementalAlterConfigs.
"""

from collections.abc import Mapping

from streamlake.cluster.configs import BROKER_CONFIGS
from streamlake.core.errors import StreamLakeError
from streamlake.handlers.config_entries import TOPIC, find
from streamlake.handlers.context import Context, Exchange, Failure, failure
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages.alter_configs import (
    AlterConfigsRequest,
    AlterConfigsResourceResponse,
    AlterConfigsResponse,
)


async def handle(ctx: Context, exchange: Exchange) -> AlterConfigsResponse:
    request: AlterConfigsRequest = exchange.body
    responses = []
    for resource in request.resources:
        kind, name = resource.resource_type, resource.resource_name
        try:
            change: dict[str, str | None] = dict.fromkeys(find(ctx, kind, name).own)
            change.update({c.name: c.value for c in resource.configs})
            await apply(ctx, kind, name, change, request.validate_only)
            result = Failure(ErrorCode.NONE, "")
        except StreamLakeError as error:
            result = failure(error, ErrorCode.INVALID_CONFIG)
        responses.append(
            AlterConfigsResourceResponse(
                error_code=result.code,
                error_message=result.message or None,
                resource_type=kind,
                resource_name=name,
            )
        )
    return AlterConfigsResponse(responses=tuple(responses))


async def apply(ctx: Context, kind: int, name: str, change: Mapping[str, str | None], validate_only: bool) -> None:
    """Change keys of a resource that `find` has found; None deletes a key."""
    given = {key: value for key, value in change.items() if value is not None}
    removed = [key for key, value in change.items() if value is None]
    if kind == TOPIC:
        if validate_only:
            ctx.topics.check_alter_configs(name, given, removed)
        else:
            await ctx.topics.alter_configs(name, given, removed)
            await ctx.settled()
    elif validate_only:
        BROKER_CONFIGS.check(given)
        for key in removed:
            BROKER_CONFIGS.canonical(key)
    else:
        await ctx.broker_configs.alter(ctx.node.node_id if name else None, given, removed)
        await ctx.settled()
