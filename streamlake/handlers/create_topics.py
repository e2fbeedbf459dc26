"""CreateTopics (19).

Behavior: all or nothing per topic. A replication factor of any positive number is accepted, whatever the number of
brokers: the object store replicates. A manual assignment must number its partitions 0..n-1 and name this broker alone
for each, with -1 for both numbers. What is wrong is told in Kafka's order: name, existence, numbers, configs. The topic
is open for produce when the answer is sent. A request may make so many partitions, and no more.
Version notes: from version 4, -1 partitions and replicas mean the broker's defaults; the answer names them from 5.
"""

from collections import Counter

from streamlake.cluster.config.topic import check_topic_configs
from streamlake.cluster.topics import check_name
from streamlake.core.errors import Invalid, StreamLakeError
from streamlake.handlers import config_entries
from streamlake.handlers.config_entries import SOURCES
from streamlake.handlers.context import Context, Exchange, default_partitions
from streamlake.handlers.error_codes import COMMON, CONFIG, PARTITION_COUNT, REPLICA_ASSIGNMENT, TOPIC_NAME, failure
from streamlake.handlers.internal_topics import RESERVED
from streamlake.handlers.replica_assignment import check_replicas
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages.create_topics import (
    CreatableTopic,
    CreatableTopicConfigs,
    CreatableTopicResult,
    CreateTopicsRequest,
    CreateTopicsResponse,
)

PARTITIONS_PER_REQUEST_MAX = 10_000  # Kafka's


async def handle(ctx: Context, exchange: Exchange) -> CreateTopicsResponse:
    request: CreateTopicsRequest = exchange.body
    names = Counter(t.name for t in request.topics)
    topics = {t.name: t for t in request.topics}.values()
    once = [topic for topic in topics if names[topic.name] == 1]
    excessive = sum(max(_count(ctx, topic), 0) for topic in once) > PARTITIONS_PER_REQUEST_MAX
    results = []
    for topic in topics:
        if excessive:
            message = f"a request may make {PARTITIONS_PER_REQUEST_MAX} partitions at most: ask for fewer at a time"
            results.append(_failed(topic, ErrorCode.POLICY_VIOLATION, message))
        elif names[topic.name] > 1:
            message = f"topic {topic.name!r} appears more than once in this request"
            results.append(_failed(topic, ErrorCode.INVALID_REQUEST, message))
        else:
            results.append(await _create(ctx, topic, request.validate_only))
    return CreateTopicsResponse(topics=tuple(results))


async def _create(ctx: Context, topic: CreatableTopic, validate_only: bool) -> CreatableTopicResult:
    reserved = RESERVED.get(topic.name)
    if reserved is not None:
        return _failed(topic, reserved.code, reserved.message)
    topic_id = None
    codes = TOPIC_NAME  # of the step that may fail
    try:
        check_name(topic.name)
        ctx.topics.check_free(topic.name)
        if topic.assignments:
            codes = COMMON
            _check_no_numbers(topic)
            codes = REPLICA_ASSIGNMENT
            _check_assignment(ctx, topic)
        elif topic.replication_factor == 0 or topic.replication_factor < -1:
            text = "a replication factor must be 1 or more, or -1 for the default"
            return _failed(topic, ErrorCode.INVALID_REPLICATION_FACTOR, text)
        partitions = _count(ctx, topic)
        codes = CONFIG
        own = check_topic_configs(_configs(topic))
        ctx.topics.check_table(topic.name, own)
        codes = PARTITION_COUNT
        ctx.topics.check_create(topic.name, partitions, own)
        codes = TOPIC_NAME  # all that is left: it collides with another name
        if not validate_only:
            topic_id = (await ctx.topics.create(topic.name, partitions, own)).id
    except StreamLakeError as error:
        return _failed(topic, *failure(error, codes))
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


def _count(ctx: Context, topic: CreatableTopic) -> int:
    if topic.assignments:
        return len(topic.assignments)
    return default_partitions(ctx) if topic.num_partitions == -1 else topic.num_partitions


def _check_no_numbers(topic: CreatableTopic) -> None:
    for what, number in (("partitions", topic.num_partitions), ("replicas", topic.replication_factor)):
        if number != -1:
            raise Invalid(f"a replica assignment says how many {what} there are: the number must be -1, not {number}")


def _check_assignment(ctx: Context, topic: CreatableTopic) -> None:
    indexes = sorted(a.partition_index for a in topic.assignments)
    if indexes != list(range(len(indexes))):
        raise Invalid("a replica assignment must name the partitions 0 to n-1, each once")
    check_replicas([a.broker_ids for a in topic.assignments], ctx.brokers.node)


def _failed(topic: CreatableTopic, code: ErrorCode, message: str) -> CreatableTopicResult:
    return CreatableTopicResult(name=topic.name, error_code=code, error_message=message)
