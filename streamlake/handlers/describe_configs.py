"""DescribeConfigs (32): topics (resource type 2), this broker (4), and the defaults of all brokers (4 without a name).

Behavior: every known key with its effective value, where it comes from, its type and what it does here. Keys that are
accepted for compatibility and have no effect say so in their documentation.
Version notes: type and documentation from version 3.
"""

from streamlake.cluster.config_def import ConfigEntry, ConfigSource
from streamlake.core.errors import StreamLakeError
from streamlake.handlers.config_entries import SOURCES, TYPES, find
from streamlake.handlers.context import Context, Exchange, failure
from streamlake.protocol.messages.describe_configs import (
    DescribeConfigsRequest,
    DescribeConfigsResource,
    DescribeConfigsResourceResult,
    DescribeConfigsResponse,
    DescribeConfigsResult,
    DescribeConfigsSynonym,
)


async def handle(ctx: Context, exchange: Exchange) -> DescribeConfigsResponse:
    request: DescribeConfigsRequest = exchange.body
    return DescribeConfigsResponse(results=tuple(_describe(ctx, request, r) for r in request.resources))


def _describe(
    ctx: Context, request: DescribeConfigsRequest, resource: DescribeConfigsResource
) -> DescribeConfigsResult:
    kind, name = resource.resource_type, resource.resource_name
    try:
        found = find(ctx, kind, name)
    except StreamLakeError as error:
        code, message = failure(error)
        return DescribeConfigsResult(error_code=code, error_message=message, resource_type=kind, resource_name=name)
    # Of all brokers only what was set for them all is shown, as in Kafka.
    entries = [e for e in found.entries() if name or e.source is ConfigSource.DYNAMIC_DEFAULT_BROKER]
    if resource.configuration_keys:
        wanted = set(resource.configuration_keys)
        entries = [e for e in entries if wanted.intersection((e.definition.name, *e.definition.aliases))]
    return DescribeConfigsResult(
        resource_type=kind, resource_name=name, configs=tuple(_entry(e, request) for e in entries)
    )


def _entry(entry: ConfigEntry, request: DescribeConfigsRequest) -> DescribeConfigsResourceResult:
    synonyms = tuple(
        DescribeConfigsSynonym(name=name, value=value, source=SOURCES[source]) for name, value, source in entry.synonyms
    )
    return DescribeConfigsResourceResult(
        name=entry.definition.name,
        value=entry.value,
        config_source=SOURCES[entry.source],
        synonyms=synonyms if request.include_synonyms else (),
        config_type=TYPES[entry.definition.type],
        documentation=entry.definition.doc if request.include_documentation else None,
    )
