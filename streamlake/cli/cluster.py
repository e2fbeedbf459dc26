"""`streamlake cluster …`: several brokers on this machine; what a cluster looks like from outside, and what an operator
does with it."""

import asyncio
import signal
import threading
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from streamlake.cli import console
from streamlake.cli.addresses import DEFAULT_BOOTSTRAP, DEFAULT_HTTP, Bootstrap, Http, Token
from streamlake.cli.console import AsOutput, Output, Usage, group
from streamlake.cli.kafka import Cluster, ask, check
from streamlake.core.errors import NotFound, Unavailable
from streamlake.lake.cluster import CLUSTER_FILE, LocalCluster
from streamlake.lake.http import get_json, post_json
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.alter_partition_reassignments import (
    AlterPartitionReassignmentsRequest,
    ReassignablePartition,
    ReassignableTopic,
)
from streamlake.protocol.messages.describe_cluster import DescribeClusterRequest
from streamlake.protocol.messages.list_partition_reassignments import (
    ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsTopics,
)

app = group("Run several brokers on this machine; show a cluster, and move what its brokers have.")

WATCH_INTERVAL_S = 0.2
LOOK_INTERVAL_S = 0.25  # while a command waits for a cluster
WAIT_S = 120.0

Node = Annotated[int, typer.Argument(min=0, help="The id of a broker.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Return when it is done, or at once.")]
Timeout = Annotated[float, typer.Option("--timeout", min=0, help="Seconds to wait at most; the cluster goes on after.")]


@app.command()
def up(
    brokers: Annotated[int, typer.Option(help="How many.")] = 3,
    data_dir: Annotated[Path, typer.Option(help="Holds everything.")] = Path("streamlake-cluster"),
    metadata_url: Annotated[
        str | None, typer.Option(help="PostgreSQL to use, instead of one that is started here.")
    ] = None,
    store_url: Annotated[
        str | None, typer.Option(help="A bucket for objects and write-ahead logs, instead of a directory.")
    ] = None,
) -> None:
    """Run a cluster on this machine: PostgreSQL, a shared directory, and brokers on free ports, all as child processes.

    Kill a broker and watch the others go on: it is started again. Ctrl-C stops all; the next start has everything."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    cluster = LocalCluster(
        data_dir, brokers, metadata_url=metadata_url, store_url=store_url, tell=lambda line: console.note(line)
    )
    console.note(f"starting {brokers} brokers in {data_dir} …")
    cluster.start()
    try:
        console.say(f"bootstrap  {cluster.bootstrap}")
        console.note(f"{data_dir / CLUSTER_FILE} tells programs the same. Ctrl-C stops all.")
        while not stop.wait(WATCH_INTERVAL_S):
            cluster.watch()
        console.note("stopping …")
    finally:
        cluster.stop()


@app.command()
def brokers(bootstrap: Bootstrap = DEFAULT_BOOTSTRAP, output: AsOutput = Output.TEXT) -> None:
    """The brokers that serve, and which of them is told to clients as the controller."""
    facts = ask(bootstrap, _brokers)
    if output is Output.JSON:
        console.show_json(facts)
        return
    rows = [[b["node"], b["address"], "controller" if b["controller"] else ""] for b in facts]
    console.show("", ["node", "address", ""], rows, numbers=("node",))


async def _brokers(cluster: Cluster) -> list[dict[str, Any]]:
    answer = await cluster.call(ApiKey.DESCRIBE_CLUSTER, DescribeClusterRequest(), 0)
    return [
        {"node": b.broker_id, "address": f"{b.host}:{b.port}", "controller": b.broker_id == answer.controller_id}
        for b in answer.brokers
    ]


@app.command()
def status(http: Http = DEFAULT_HTTP, token: Token = None, output: AsOutput = Output.TEXT) -> None:
    """The brokers and what they have, what moves and drains at the moment, and what is offline and why."""
    facts = get_json(http, "/v1/cluster", token)
    if output is Output.JSON:
        console.show_json(facts)
        return
    columns = ["node", "state", "address", "partitions", "open", "slots", ""]
    rows = [
        [*(b[key] for key in columns[2:6]), "controller" if b["node"] == facts["controller"] else ""]
        for b in facts["brokers"]
    ]
    rows = [[b["node"], _state(b), *row] for b, row in zip(facts["brokers"], rows, strict=True)]
    console.show("", columns, rows, ("node", "partitions", "open", "slots"))
    if facts["controller"] is None:
        console.say("no controller: a broker that serves becomes it within seconds")
    for move in facts["moves"]:
        target = "nobody yet" if move["to"] is None else f"broker {move['to']}"
        console.say(f"{_partitions(move['partitions'])} on the way from broker {move['from']} to {target}")
    for drain in facts["drains"]:
        console.say(
            f"the write-ahead log of broker {drain['node']} is drained by broker {drain['by']}"
            f" (part {drain['part'] + 1} of {drain['parts']})"
        )
    for offline in facts["offline"]:
        console.say((f"{_partitions(offline['partitions'])} offline", "bold red"), f": {offline['reason']}")


@app.command()
def drain(
    node: Node,
    http: Http = DEFAULT_HTTP,
    token: Token = None,
    wait: Wait = True,
    timeout: Timeout = WAIT_S,
    until_restart: Annotated[
        bool, typer.Option("--until-restart", help="Until the broker is started again, not until undrain.")
    ] = False,
) -> None:
    """Move the partitions, groups and tables of a broker to the others, and keep it without any until `undrain`.

    It goes on running, and stays drained when it is started again."""
    query = f"timeout_s=0&until_restart={str(until_restart).lower()}"
    found = post_json(http, f"/v1/brokers/{node}/drain?{query}", token)
    until, told = time.perf_counter() + timeout, ""
    while wait and (left := _left(found)):
        if left != told:
            told = left
            console.note(f"broker {node} still has {left} …")
        if time.perf_counter() > until:
            raise Unavailable(
                f"broker {node} still has {left} after {timeout:g} s; they go on moving: see `streamlake cluster"
                " status`"
            )
        time.sleep(LOOK_INTERVAL_S)  # noqa: TID251 - a program waits here, not an event loop
        found = next(b for b in get_json(http, "/v1/cluster", token)["brokers"] if b["node"] == node)
    console.say(f"broker {node} is drained" if not _left(found) else f"broker {node} is being drained")


@app.command()
def undrain(node: Node, http: Http = DEFAULT_HTTP, token: Token = None) -> None:
    """Give a broker that was drained its share of partitions, groups and tables again."""
    post_json(http, f"/v1/brokers/{node}/undrain", token)
    console.say(f"broker {node} gets its share again")


@app.command()
def move(
    partition: Annotated[str, typer.Argument(metavar="TOPIC-PARTITION", help="As in orders-0.")],
    node: Node,
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
    wait: Wait = True,
    timeout: Timeout = WAIT_S,
) -> None:
    """Give a partition to another broker. It stays there as long as that broker is there and not drained."""
    topic, _, number = partition.rpartition("-")
    if not topic or not (number.isascii() and number.isdigit()) or len(number) > 9:
        raise Usage(f"{partition!r} is no partition: give the topic, a dash and a number, as in orders-0")
    index = int(number)
    ask(bootstrap, lambda cluster: _move(cluster, topic, index, node, timeout if wait else None))
    console.say(f"{partition} is at broker {node}" if wait else f"{partition} is on its way to broker {node}")


async def _move(cluster: Cluster, topic: str, index: int, node: int, timeout_s: float | None) -> None:
    """`timeout_s`: for it to arrive; None does not wait."""
    wanted = ReassignableTopic(topic, (ReassignablePartition(index, (node,)),))
    request = AlterPartitionReassignmentsRequest(topics=(wanted,))
    answer = await cluster.call(ApiKey.ALTER_PARTITION_REASSIGNMENTS, request, 1)
    check("the reassignment", answer.error_code, answer.error_message)
    (result,) = answer.responses[0].partitions
    check(f"{topic}-{index}", result.error_code, result.error_message)
    if timeout_s is None:
        return
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                if await _has_moved(cluster, topic, index, node):
                    return
                await asyncio.sleep(LOOK_INTERVAL_S)
    except TimeoutError:
        raise Unavailable(
            f"{topic}-{index} is not at broker {node} after {timeout_s:g} s; it goes on moving: see `streamlake cluster"
            " status`"
        ) from None


async def _has_moved(cluster: Cluster, topic: str, index: int, node: int) -> bool:
    asked = ListPartitionReassignmentsTopics(topic, (index,))
    request = ListPartitionReassignmentsRequest(topics=(asked,))
    under_way = await cluster.call(ApiKey.LIST_PARTITION_REASSIGNMENTS, request, 0)
    check("the reassignment", under_way.error_code, under_way.error_message)
    described = await cluster.describe(topic)
    leaders = {p.partition_index: p.leader_id for p in described.partitions}
    if index not in leaders:
        raise NotFound(f"{topic}-{index} was deleted")
    return not under_way.topics and leaders[index] == node


def _state(broker: dict[str, Any]) -> str:
    return f"{broker['state']}, drained" if broker["drained"] else str(broker["state"])


def _left(broker: dict[str, Any]) -> str:
    """What a broker that is drained still has, in words."""
    partitions, slots = max(broker["partitions"], broker["open"]), broker["slots"]
    parts = [_partitions(partitions)] * bool(partitions) + [f"{slots} slots of groups"] * bool(slots)
    return " and ".join(parts)


def _partitions(count: int) -> str:
    return f"{count:,} partition{'' if count == 1 else 's'}"
