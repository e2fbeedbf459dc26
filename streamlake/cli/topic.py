"""`streamlake topic …`: topics of any Kafka-compatible broker. Their records: topic_produce.py, topic_consume.py."""

from typing import Annotated

import typer

from streamlake.cli import topic_consume, topic_produce
from streamlake.cli.addresses import DEFAULT_BOOTSTRAP, Bootstrap
from streamlake.cli.console import AsOutput, Output, Usage, group, say, show, show_json
from streamlake.cli.kafka import METADATA_VERSION, Cluster, ask, check
from streamlake.cluster.config.formats import CONVERT_TYPES, ConvertType
from streamlake.cluster.config.table import PREFIX
from streamlake.peers.offsets import EARLIEST, LATEST
from streamlake.protocol.messages import ApiKey, create_topics, delete_topics, describe_configs, metadata

app = group("Create, list, describe and delete topics; produce and consume records.")
app.command("produce")(topic_produce.produce)
app.command("consume")(topic_consume.consume)
Name = Annotated[str, typer.Argument(help="The topic's name.")]
VALUE_OPTIONS = {found.option: found for found in CONVERT_TYPES.values()}
TOPIC_RESOURCE, SET_ON_TOPIC = 2, 1


@app.command("create")
def create(
    name: Name,
    partitions: Annotated[int, typer.Option("--partitions", "-p", help="-1 is the broker's default.")] = -1,
    config: Annotated[list[str] | None, typer.Option("--config", "-c", help="KEY=VALUE, any number of times.")] = None,
    table: Annotated[bool, typer.Option("--table", help="Make the topic an Iceberg table too.")] = False,
    value: Annotated[str, typer.Option(help=f"With --table, what values are: {', '.join(VALUE_OPTIONS)}.")] = "string",
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
) -> None:
    """Create a topic; with --table it is an Iceberg table from its first record on."""
    configs = dict(_key_value(text) for text in config or [])
    if table:
        if value not in VALUE_OPTIONS:
            raise Usage(f"--value must be one of {', '.join(VALUE_OPTIONS)}, not {value!r}")
        configs = {**_table_configs(VALUE_OPTIONS[value]), **configs}
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
    answer = ask(bootstrap, lambda cluster: cluster.call(ApiKey.CREATE_TOPICS, request, 7))
    (result,) = answer.topics
    check(f"topic {name}", result.error_code, result.error_message)
    kind = "table topic" if table else "topic"
    partitions_made = f"{result.num_partitions} partition{'s' * (result.num_partitions != 1)}"
    say(f"created {kind} ", (name, "bold"), f" with {partitions_made}")


@app.command("list")
def list_topics(bootstrap: Bootstrap = DEFAULT_BOOTSTRAP, output: AsOutput = Output.TEXT) -> None:
    """List the topics."""
    request = metadata.MetadataRequest(topics=None)
    answer = ask(bootstrap, lambda cluster: cluster.call(ApiKey.METADATA, request, METADATA_VERSION))
    columns = ["topic", "partitions", "id"]
    rows = [[t.name, len(t.partitions), str(t.topic_id)] for t in sorted(answer.topics, key=lambda t: t.name or "")]
    if output is Output.JSON:
        show_json([dict(zip(columns, row, strict=True)) for row in rows])
        return
    show("", columns, rows, ("partitions",))


@app.command("describe")
def describe(name: Name, bootstrap: Bootstrap = DEFAULT_BOOTSTRAP, output: AsOutput = Output.TEXT) -> None:
    """Show a topic's partitions, offsets and the configs that are not the default."""

    async def question(
        cluster: Cluster,
    ) -> tuple[str, list[list[int]], list[tuple[str, str]]]:
        topic = await cluster.describe(name)
        indexes = [p.partition_index for p in topic.partitions]
        starts, ends = await cluster.offsets(name, indexes, EARLIEST), await cluster.offsets(name, indexes, LATEST)
        resource = describe_configs.DescribeConfigsResource(TOPIC_RESOURCE, name, configuration_keys=None)
        request = describe_configs.DescribeConfigsRequest(resources=(resource,))
        (configs,) = (await cluster.call(ApiKey.DESCRIBE_CONFIGS, request, 4)).results
        check(f"topic {name}", configs.error_code, configs.error_message)
        partitions = [
            [p.partition_index, p.leader_id, p.leader_epoch, starts[p.partition_index], ends[p.partition_index]]
            for p in sorted(topic.partitions, key=lambda p: p.partition_index)
        ]
        return (
            str(topic.topic_id),
            partitions,
            [(c.name, c.value) for c in configs.configs if c.config_source == SET_ON_TOPIC],
        )

    topic_id, partitions, own = ask(bootstrap, question)
    columns = ["partition", "leader", "epoch", "log start", "end"]
    if output is Output.JSON:
        keys = [column.replace(" ", "_") for column in columns]
        described = [dict(zip(keys, row, strict=True)) for row in partitions]
        configs = dict(own)
        show_json({"topic": name, "id": topic_id, "partitions": described, "configs": configs})
        return
    show(f"{name}  {topic_id}", columns, partitions, tuple(columns))
    if own:
        show("", ["config", "value"], [list(pair) for pair in own])


@app.command("delete")
def delete(name: Name, bootstrap: Bootstrap = DEFAULT_BOOTSTRAP) -> None:
    """Delete a topic. Its Iceberg table, if it has one, stays."""
    state = delete_topics.DeleteTopicState(name=name)
    request = delete_topics.DeleteTopicsRequest(topics=(state,), topic_names=(name,), timeout_ms=30_000)
    answer = ask(bootstrap, lambda cluster: cluster.call(ApiKey.DELETE_TOPICS, request, 6))
    (result,) = answer.responses
    check(f"topic {name}", result.error_code, result.error_message)
    say("deleted topic ", (name, "bold"))


def _table_configs(convert: ConvertType) -> dict[str, str]:
    configs = {PREFIX + "enable": "true", PREFIX + "convert.value.type": convert.name}
    return {**configs, PREFIX + "transform.value.type": "flatten"} if convert.by_schema else configs


def _key_value(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise Usage(f"--config must be KEY=VALUE, not {text!r}")
    return key, value
