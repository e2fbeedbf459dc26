"""IncrementalAlterConfigs (44): set (0), delete (1), append (2) and subtract (3) of single keys.

Behavior: a resource changes as a whole or not at all. Turning a table on sets its retention hold in the same
metadata transaction, so that retention cannot pass before the first translation.
"""

from streamlake.cluster.config_def import ConfigType
from streamlake.core.errors import Invalid, StreamLakeError
from streamlake.handlers.alter_configs import apply
from streamlake.handlers.config_entries import Resource, find
from streamlake.handlers.context import Context, Exchange, Failure, failure
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages.incremental_alter_configs import (
    AlterConfigsResource,
    AlterConfigsResourceResponse,
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
)

SET, DELETE, APPEND, SUBTRACT = range(4)


async def handle(ctx: Context, exchange: Exchange) -> IncrementalAlterConfigsResponse:
    request: IncrementalAlterConfigsRequest = exchange.body
    responses = []
    for resource in request.resources:
        try:
            current = find(ctx, resource.resource_type, resource.resource_name)
            change = _change(current, resource)
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
    return IncrementalAlterConfigsResponse(responses=tuple(responses))


def _change(current: Resource, resource: AlterConfigsResource) -> dict[str, str | None]:
    """The keys that change; None deletes."""
    change: dict[str, str | None] = {}
    for config in resource.configs:
        if config.name in change:
            raise Invalid(f"{config.name} stands more than once in this request")
        if config.config_operation == DELETE:
            change[config.name] = None
            continue
        if config.value is None:
            raise Invalid(f"{config.name} needs a value")
        if config.config_operation == SET:
            change[config.name] = config.value
        elif config.config_operation in (APPEND, SUBTRACT):
            entry = current.entry(config.name)
            if entry.definition.type is not ConfigType.LIST:
                raise Invalid(f"{config.name} is not a list: it can only be set or deleted")
            have, these = _items(entry.value), _items(config.value)
            if config.config_operation == APPEND:
                change[config.name] = ",".join(have + [v for v in these if v not in have])
            else:
                change[config.name] = ",".join(v for v in have if v not in these)
        else:
            raise Invalid(
                f"config operation {config.config_operation} is unknown: 0 set, 1 delete, 2 append, 3 subtract"
            )
    return change


def _items(value: str) -> list[str]:
    return [item for item in value.split(",") if item]
