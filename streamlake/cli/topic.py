"""`streamlake topic …`: create, list, describe and delete topics of any Kafka-compatible address."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer

from streamlake.cli.console import DEFAULT_BOOTSTRAP, Bootstrap, fail, out, show
from streamlake.core.errors import Invalid
from streamlake.peers.kafka import KafkaPeer
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey, create_topics, delete_topics, describe_configs, list_offsets, metadata

app = typer.Typer(help="Create, list, describe and delete topics.", no_args_is_help=True)
T = TypeVar("T")
Name = Annotated[str, typer.Argument(help="The topic's name.")]
TABLE_CONFIGS = {
    "avro": {"streamlake.table.convert.value.type": "by_schema_id", "streamlake.table.transform.value.type": "flatten"},
    "string": {"streamlake.table.convert.value.type": "string"},
    "raw": {"streamlake.table.convert.value.type": "raw"},
}
REQUEST_TIMEOUT_S = 30.0
TOPIC_RESOURCE, LATEST, EARLIEST = 2, -1, -2


@app.command("create")
def create(
    name: Name,
    partitions: Annotated[int, typer.Option("--partitions", "-p", help="-1 is the broker's default.")] = -1,
    config: Annotated[list[str] | None, typer.Option("--config", "-c", help="KEY=VALUE, any number of times.")] = None,
    table: Annotated[bool, typer.Option("--table", help="Make the topic an Iceberg table too.")] = False,
    value: Annotated[str, typer.Option(help="With --table, what values are: string, avro or raw.")] = "string",
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
) -> None:
    """Create a topic; with --table it is an Iceberg table from its first record on."""
    configs = dict(_key_value(text) for text in config or [])
    if table:
        if value not in TABLE_CONFIGS:
            raise Invalid(f"--value must be one of {', '.join(TABLE_CONFIGS)}, not {value!r}")
        configs = {"streamlake.table.enable": "true", **TABLE_CONFIGS[value], **configs}
    request = create_topics.CreateTopicsRequest(
        topics=(
            create_topics.CreatableTopic(
                name=name,
                num_partitions=partitions,
                replication_factor=-1,
                configs=tuple(create_topics.CreatableTopicConfig(name=k, value=v) for k, v in configs.items()),
            ),
        ),
    )
    answer = _call(bootstrap, lambda peer: peer.call(ApiKey.CREATE_TOPICS, request, 7))
    (result,) = answer.topics
    _check(result.error_code, result.error_message, name)
    kind = "table topic" if table else "topic"
    out.print(
        f"created {kind} [bold]{name}[/] with {result.num_partitions} partition{'s' * (result.num_partitions != 1)}"
    )


@app.command("list")
def list_topics(bootstrap: Bootstrap = DEFAULT_BOOTSTRAP) -> None:
    """List the topics."""
    answer = _call(bootstrap, lambda peer: peer.call(ApiKey.METADATA, metadata.MetadataRequest(topics=None), 12))
    rows = [[t.name, len(t.partitions), str(t.topic_id)] for t in sorted(answer.topics, key=lambda t: t.name or "")]
    show("", ["topic", "partitions", "id"], rows, ("partitions",))


@app.command("describe")
def describe(name: Name, bootstrap: Bootstrap = DEFAULT_BOOTSTRAP) -> None:
    """Show a topic's partitions, offsets and the configs that are not the default."""

    async def ask(peer: KafkaPeer) -> tuple[metadata.MetadataResponseTopic, list[list[object]], list[list[object]]]:
        wanted = (metadata.MetadataRequestTopic(name=name),)
        ask_for = metadata.MetadataRequest(topics=wanted, allow_auto_topic_creation=False)
        answer = await peer.call(ApiKey.METADATA, ask_for, 12)
        (topic,) = answer.topics
        _check(topic.error_code, None, name)
        indexes = [p.partition_index for p in topic.partitions]
        starts, ends = await _offsets(peer, name, indexes, EARLIEST), await _offsets(peer, name, indexes, LATEST)
        resource = describe_configs.DescribeConfigsResource(TOPIC_RESOURCE, name, configuration_keys=None)
        ask_configs = describe_configs.DescribeConfigsRequest(resources=(resource,))
        configs = await peer.call(ApiKey.DESCRIBE_CONFIGS, ask_configs, 4)
        partitions: list[list[object]] = [
            [p.partition_index, p.leader_id, p.leader_epoch, starts[p.partition_index], ends[p.partition_index]]
            for p in sorted(topic.partitions, key=lambda p: p.partition_index)
        ]
        own: list[list[object]] = [[c.name, c.value] for c in configs.results[0].configs if c.config_source == 1]
        return topic, partitions, own

    topic, partitions, own = _call(bootstrap, ask)
    columns = ["partition", "leader", "epoch", "log start", "end"]
    show(f"{name}  {topic.topic_id}", columns, partitions, tuple(columns))
    if own:
        show("", ["config", "value"], own)


@app.command("delete")
def delete(name: Name, bootstrap: Bootstrap = DEFAULT_BOOTSTRAP) -> None:
    """Delete a topic. Its Iceberg table, if it has one, stays."""
    state = delete_topics.DeleteTopicState(name=name)
    request = delete_topics.DeleteTopicsRequest(topics=(state,), topic_names=(name,), timeout_ms=30_000)
    answer = _call(bootstrap, lambda peer: peer.call(ApiKey.DELETE_TOPICS, request, 6))
    (result,) = answer.responses
    _check(result.error_code, result.error_message, name)
    out.print(f"deleted topic [bold]{name}[/]")


async def _offsets(peer: KafkaPeer, name: str, indexes: list[int], timestamp: int) -> dict[int, int]:
    partitions = tuple(list_offsets.ListOffsetsPartition(partition_index=i, timestamp=timestamp) for i in indexes)
    topic = list_offsets.ListOffsetsTopic(name=name, partitions=partitions)
    answer = await peer.call(ApiKey.LIST_OFFSETS, list_offsets.ListOffsetsRequest(replica_id=-1, topics=(topic,)), 7)
    return {p.partition_index: p.offset for t in answer.topics for p in t.partitions}


def _call(bootstrap: str, ask: Callable[[KafkaPeer], Awaitable[T]]) -> T:
    host, _, port = bootstrap.rpartition(":")
    if not host or not port.isdigit():
        raise Invalid(f"--bootstrap must be host:port, not {bootstrap!r}")

    async def run() -> T:
        peer = KafkaPeer(host, int(port), "streamlake-cli", REQUEST_TIMEOUT_S)
        try:
            return await ask(peer)
        finally:
            await peer.close()

    return asyncio.run(run())


def _check(code: int, message: str | None, name: str) -> None:
    if code:
        error = ErrorCode(code)
        fail(f"topic {name}: {message or error.name.lower().replace('_', ' ')}")


def _key_value(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise Invalid(f"--config must be KEY=VALUE, not {text!r}")
    return key, value
