"""DescribeConfigs (32): topics (resource type 2), this broker (4), the defaults of all brokers (4 without a name), the
loggers of this broker (8), client metrics subscriptions (16), groups (32).

Behavior: every known key with its effective value, where it comes from, its type and what it does here. Keys that are
accepted for compatibility and have no effect say so in their documentation. Nobody is shown what may be a secret.
Version notes: type and documentation from version 3.
"""

import asyncio

from streamlake.cluster.config.definition import ConfigEntry, ConfigSource
from streamlake.core.errors import StreamLakeError
from streamlake.handlers.config_entries import (
    BROKER,
    LOGGER,
    ROOT_LOGGER,
    SOURCES,
    TYPES,
    check_this_broker,
    find,
    log_level,
    refusal,
)
from streamlake.handlers.context import Context, Exchange
from streamlake.protocol.messages.describe_configs import (
    DescribeConfigsRequest,
    DescribeConfigsResource,
    DescribeConfigsResourceResult,
    DescribeConfigsResponse,
    DescribeConfigsResult,
    DescribeConfigsSynonym,
)

LOGGER_SOURCE = 6  # Kafka's number for a level that was set while the broker runs, or at its start


async def handle(ctx: Context, exchange: Exchange) -> DescribeConfigsResponse:
    request: DescribeConfigsRequest = exchange.body
    results = []
    for resource in request.resources:
        results.append(await _describe(ctx, request, resource))
        await asyncio.sleep(0)  # a broker has hundreds of configs, and a request thousands of topics
    return DescribeConfigsResponse(results=tuple(results))


async def _describe(
    ctx: Context, request: DescribeConfigsRequest, resource: DescribeConfigsResource
) -> DescribeConfigsResult:
    kind, name = resource.resource_type, resource.resource_name
    try:
        if kind == LOGGER:
            check_this_broker(ctx, name)
            return _loggers(request, resource)
        found = await find(ctx, kind, name)
    except StreamLakeError as error:
        code, message = refusal(error, BROKER)
        return DescribeConfigsResult(error_code=code, error_message=message, resource_type=kind, resource_name=name)
    entries = found.entries(frozenset(resource.configuration_keys or ()))
    if kind == BROKER and name == "":  # only what was set for them all is shown, as in Kafka
        entries = [e for e in entries if e.source is ConfigSource.DYNAMIC_DEFAULT_BROKER]
    return DescribeConfigsResult(
        error_message="", resource_type=kind, resource_name=name, configs=tuple(_entry(e, request) for e in entries)
    )


def _entry(entry: ConfigEntry, request: DescribeConfigsRequest) -> DescribeConfigsResourceResult:
    definition = entry.definition
    synonyms = tuple(
        DescribeConfigsSynonym(name=name, value=None if definition.sensitive else value, source=SOURCES[source])
        for name, value, source in entry.synonyms
    )
    return DescribeConfigsResourceResult(
        name=definition.name,
        value=None if definition.sensitive else entry.value,
        read_only=not definition.dynamic,
        config_source=SOURCES[entry.source],
        is_sensitive=definition.sensitive,
        synonyms=synonyms if request.include_synonyms else (),
        config_type=TYPES[definition.type],
        documentation=definition.doc if request.include_documentation else None,
    )


def _loggers(request: DescribeConfigsRequest, resource: DescribeConfigsResource) -> DescribeConfigsResult:
    root = DescribeConfigsResourceResult(
        name=ROOT_LOGGER,
        value=log_level(),
        read_only=True,
        config_source=LOGGER_SOURCE,
        documentation="The level of all that this broker logs: logging.level of its configuration file."
        if request.include_documentation
        else None,
    )
    wanted = not resource.configuration_keys or ROOT_LOGGER in resource.configuration_keys
    return DescribeConfigsResult(
        error_message="",  # as Kafka says it, not null
        resource_type=LOGGER,
        resource_name=resource.resource_name,
        configs=(root,) if wanted else (),
    )
