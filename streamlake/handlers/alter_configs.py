"""AlterConfigs (33), the older form: the keys that are given become all the keys there are.

Behavior: keys that are left out go back to their defaults. Prefer IncrementalAlterConfigs.
"""

from collections.abc import Mapping

from streamlake.cluster.configs import BROKER_CONFIGS
from streamlake.core.errors import Invalid, StreamLakeError
from streamlake.handlers.config_entries import BROKER, TOPIC
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
        change: dict[str, str | None] = {}
        if resource.resource_type == TOPIC and (topic := ctx.topics.get(resource.resource_name)):
            change.update(dict.fromkeys(topic.configs))
        change.update({c.name: c.value for c in resource.configs})
        try:
            await apply(ctx, resource.resource_type, resource.resource_name, change, request.validate_only)
            result = Failure(ErrorCode.NONE, "")
        except StreamLakeError as error:
            result = failure(error, ErrorCode.INVALID_CONFIG)
        responses.append(
            AlterConfigsResourceResponse(
                error_code=result.code,
                error_message=result.message or None,
                resource_type=resource.resource_type,
                resource_name=resource.resource_name,
            )
        )
    return AlterConfigsResponse(responses=tuple(responses))


async def apply(ctx: Context, kind: int, name: str, change: Mapping[str, str | None], validate_only: bool) -> None:
    """Change the keys of a topic or of this broker (of all brokers if its name is empty); None deletes a key."""
    given = {key: value for key, value in change.items() if value is not None}
    removed = [key for key, value in change.items() if value is None]
    if kind == TOPIC:
        if validate_only:
            ctx.topics.check_alter_configs(name, given, removed)
        else:
            await ctx.topics.alter_configs(name, given, removed)
            await ctx.settled()
    elif kind == BROKER:
        if name not in ("", str(ctx.node.node_id)):
            raise Invalid(f"this is broker {ctx.node.node_id}, not {name}")
        if validate_only:
            BROKER_CONFIGS.check(given)
        else:
            await ctx.broker_configs.alter(ctx.node.node_id if name else None, given, removed)
            await ctx.settled()
    else:
        raise Invalid(f"resource type {kind} has no configs here: topics are {TOPIC}, brokers {BROKER}")
