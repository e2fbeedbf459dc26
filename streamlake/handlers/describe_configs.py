"""DescribeConfigs (32): topics (resource type 2) and this broker (4).

Behavior: every known key with its effective value, where it comes from, its type and what it does here. Keys that are
accepted for compatibility and have no effect say so in their documentation.
Version notes: type and documentation from version 3.
"""

from streamlake.cluster.config_def import ConfigEntry
from streamlake.handlers import config_entries
from streamlake.handlers.config_entries import BROKER, SOURCES, TOPIC, TYPES
from streamlake.handlers.context import Context, Exchange
from streamlake.protocol.errors import ErrorCode
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
    code, message, entries = ErrorCode.NONE, None, []
    if resource.resource_type == TOPIC:
        topic = ctx.topics.get(resource.resource_name)
        if topic is None:
            code, message = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "this topic does not exist"
        else:
            entries = config_entries.of_topic(ctx, topic.configs)
    elif resource.resource_type == BROKER:
        if resource.resource_name in ("", str(ctx.node.node_id)):
            entries = ctx.broker_configs.entries()
        else:
            code, message = ErrorCode.INVALID_REQUEST, f"this is broker {ctx.node.node_id}"
    else:
        code, message = ErrorCode.INVALID_REQUEST, f"resource type {resource.resource_type} has no configs here"
    wanted = resource.configuration_keys
    return DescribeConfigsResult(
        error_code=code,
        error_message=message,
        resource_type=resource.resource_type,
        resource_name=resource.resource_name,
        configs=tuple(_entry(e, request) for e in entries if not wanted or e.definition.name in wanted),
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
