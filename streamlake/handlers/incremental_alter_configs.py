"""IncrementalAlterConfigs (44): set (0), delete (1), append (2) and subtract (3) of single keys.

Behavior: a resource changes as a whole or not at all. Turning a table on sets its retention hold in the same
metadata transaction, so that retention cannot pass before the first translation.
"""

from collections.abc import Sequence

from streamlake.cluster.config.definition import ConfigType, comma_list
from streamlake.core.errors import StreamLakeError
from streamlake.handlers.config_entries import (
    LOG_LEVELS,
    LOGGER,
    ROOT_LOGGER,
    Refused,
    Resource,
    apply,
    check_named,
    check_this_broker,
    find,
    log_level,
    refusal,
    repeated,
)
from streamlake.handlers.context import Context, Exchange
from streamlake.handlers.error_codes import Failure
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages.incremental_alter_configs import (
    AlterableConfig,
    AlterConfigsResource,
    AlterConfigsResourceResponse,
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
)

SET, DELETE, APPEND, SUBTRACT = OPERATIONS = range(4)


async def handle(ctx: Context, exchange: Exchange) -> IncrementalAlterConfigsResponse:
    request: IncrementalAlterConfigsRequest = exchange.body
    twice = repeated((r.resource_type, r.resource_name) for r in request.resources)
    responses = []
    for resource in request.resources:
        kind, name = resource.resource_type, resource.resource_name
        try:
            check_named(kind, name, twice)
            _check(resource.configs)
            if kind == LOGGER:
                check_this_broker(ctx, name)
                _check_loggers(resource.configs)
            else:
                change = _change(await find(ctx, kind, name), resource)
                await apply(ctx, kind, name, change, request.validate_only)
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
    return IncrementalAlterConfigsResponse(responses=tuple(responses))


def _check(configs: Sequence[AlterableConfig]) -> None:
    names = set()
    for config in configs:
        if config.name in names:
            raise Refused(f"{config.name} appears more than once in this request: give it once")
        if config.config_operation not in OPERATIONS:
            raise Refused(
                f"config operation {config.config_operation} is unknown: 0 set, 1 delete, 2 append, 3 subtract"
            )
        if config.value is None and config.config_operation != DELETE:
            raise Refused(f"{config.name} needs a value: delete it for the default")
        names.add(config.name)


def _change(current: Resource, resource: AlterConfigsResource) -> dict[str, str | None]:
    """The keys that change; None deletes."""
    change: dict[str, str | None] = {}
    for config in resource.configs:
        if config.config_operation in (DELETE, SET):
            change[config.name] = None if config.config_operation == DELETE else config.value
            continue
        known = config.name in current.definitions
        entry = current.entry(config.name) if known else None
        if entry is None or entry.definition.type is not ConfigType.LIST:
            raise Refused(f"{config.name} is not a known list: it can only be set or deleted", ErrorCode.INVALID_CONFIG)
        have, these = comma_list(entry.value or ""), comma_list(config.value or "")
        if config.config_operation == APPEND:
            change[config.name] = ",".join((*have, *(item for item in these if item not in have)))
        else:
            change[config.name] = ",".join(item for item in have if item not in these)
    return change


def _check_loggers(configs: Sequence[AlterableConfig]) -> None:
    """Refused, unless nothing changes: the level is that of the configuration file, and of all that is logged."""
    for config in configs:
        if config.config_operation in (APPEND, SUBTRACT):
            raise Refused(f"{config.name} is a logger: its level can only be set")
        if config.name != ROOT_LOGGER:
            raise Refused(f"there is no logger {config.name[:100]!r}, only {ROOT_LOGGER}", ErrorCode.INVALID_CONFIG)
        if config.config_operation == SET and config.value not in LOG_LEVELS.values():
            text = f"there is no level {(config.value or '')[:100]!r}: use one of {', '.join(LOG_LEVELS.values())}"
            raise Refused(text, ErrorCode.INVALID_CONFIG)
        if config.value != log_level():
            raise Refused("the level cannot be changed while the broker runs: set logging.level and restart")
