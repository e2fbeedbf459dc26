"""CreateTopics (19).

Behavior: all or nothing per topic. A replication factor of any positive number is accepted, whatever the number of
brokers: the object store replicates. A manual assignment must number its partitions 0..n-1; the broker ids in it only
have to be there. The topic is open for produce when the answer is sent.
Version notes: from version 4, -1 partitions and replicas mean the broker's defaults; the answer names them from 5.
"""

from collections import Counter

from streamlake.cluster.topic_configs import check_topic_configs
from streamlake.cluster.topics import check_name
from streamlake.core.errors import Invalid, StreamLakeError
from streamlake.handlers import config_entries
from streamlake.handlers.config_entries import SOURCES
from streamlake.handlers.context import Context, Exchange, default_partitions, failure
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages.create_topics import (
    CreatableTopic,
    CreatableTopicConfigs,
    CreatableTopicResult,
    CreateTopicsRequest,
    CreateTopicsResponse,
)


async def handle(ctx: Context, exchange: Exchange) -> CreateTopicsResponse:
    request: CreateTopicsRequest = exchange.body
    names = Counter(t.name for t in request.topics)
    results = []
    for topic in request.topics:
        if names[topic.name] > 1:
            message = f"topic {topic.name!r} stands more than once in this request"
            results.append(_failed(topic, ErrorCode.INVALID_REQUEST, message))
        else:
            results.append(await _create(ctx, topic, request.validate_only))
    return CreateTopicsResponse(topics=tuple(results))


async def _create(ctx: Context, topic: CreatableTopic, validate_only: bool) -> CreatableTopicResult:
    if topic.replication_factor == 0 or topic.replication_factor < -1:
        text = "a replication factor must be 1 or more, or -1 for the default"
        return _failed(topic, ErrorCode.INVALID_REPLICATION_FACTOR, text)
    topic_id = None
    invalid = ErrorCode.INVALID_TOPIC_EXCEPTION  # what Invalid means at the step that raises it
    try:
        check_name(topic.name)
        invalid = ErrorCode.INVALID_REPLICA_ASSIGNMENT
        partitions = _partitions(ctx, topic)
        invalid = ErrorCode.INVALID_CONFIG
        own = check_topic_configs(_configs(topic))
        invalid = ErrorCode.INVALID_PARTITIONS
        ctx.topics.check_create(topic.name, partitions, own)
        invalid = ErrorCode.INVALID_TOPIC_EXCEPTION  # all that is left: it collides with another name
        if not validate_only:
            topic_id = (await ctx.topics.create(topic.name, partitions, own)).id
            await ctx.settled()
    except StreamLakeError as error:
        return _failed(topic, *failure(error, invalid))
    return CreatableTopicResult(
        name=topic.name,
        topic_id=topic_id,
        error_message=None,
        num_partitions=partitions,
        replication_factor=1,
        configs=tuple(
            CreatableTopicConfigs(name=e.definition.name, value=e.value, config_source=SOURCES[e.source])
            for e in config_entries.of_topic(ctx, own).entries()
        ),
    )


def _configs(topic: CreatableTopic) -> dict[str, str]:
    given = {}
    for config in topic.configs:
        if config.value is None:
            raise Invalid(f"{config.name} needs a value: leave it out for the default")
        given[config.name] = config.value
    return given


def _partitions(ctx: Context, topic: CreatableTopic) -> int:
    if not topic.assignments:
        return default_partitions(ctx) if topic.num_partitions == -1 else topic.num_partitions
    indexes = sorted(a.partition_index for a in topic.assignments)
    if indexes != list(range(len(indexes))) or any(not a.broker_ids for a in topic.assignments):
        raise Invalid("a replica assignment must name partitions 0 to n-1, each with at least one broker")
    return len(indexes)


def _failed(topic: CreatableTopic, code: ErrorCode, message: str) -> CreatableTopicResult:
    return CreatableTopicResult(name=topic.name, error_code=code, error_message=message, configs=None)
