"""AlterConfigs (33), the older form: the keys that are given become all the keys there are.

Behavior: keys that are left out go back to their defaults. Prefer IncrementalAlterConfigs.
"""

from streamlake.core.errors import StreamLakeError
from streamlake.handlers.config_entries import (
    LOGGER,
    Refused,
    apply,
    check_named,
    find,
    refusal,
    repeated,
)
from streamlake.handlers.context import Context, Exchange
from streamlake.handlers.error_codes import Failure
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages.alter_configs import (
    AlterConfigsRequest,
    AlterConfigsResource,
    AlterConfigsResourceResponse,
    AlterConfigsResponse,
)


async def handle(ctx: Context, exchange: Exchange) -> AlterConfigsResponse:
    request: AlterConfigsRequest = exchange.body
    twice = repeated((r.resource_type, r.resource_name) for r in request.resources)
    responses = []
    for resource in request.resources:
        kind, name = resource.resource_type, resource.resource_name
        try:
            check_named(kind, name, twice)
            if kind == LOGGER:
                raise Refused("levels of loggers are changed by IncrementalAlterConfigs")
            given = _given(resource)
            own = (await find(ctx, kind, name)).own
            await apply(ctx, kind, name, dict.fromkeys(own) | given, request.validate_only)
            result = Failure(ErrorCode.NONE, "")
        except StreamLakeError as error:
            result = refusal(error, kind)
        responses.append(
            AlterConfigsResourceResponse(
                error_code=result.code,
                error_message=result.message or None,
                resource_type=kind,
                resource_name=name,
            )
        )
    return AlterConfigsResponse(responses=tuple(responses))


def _given(resource: AlterConfigsResource) -> dict[str, str | None]:
    given: dict[str, str | None] = {}
    for config in resource.configs:
        if config.name in given:
            raise Refused(f"{config.name} appears more than once in this request: give it once")
        if config.value is None:
            raise Refused(f"{config.name} needs a value: leave it out for the default")
        given[config.name] = config.value
    return given
