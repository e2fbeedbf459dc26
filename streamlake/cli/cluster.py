"""`streamlake cluster …`: several brokers on this machine, and what a cluster looks like from outside."""

import signal
import threading
from pathlib import Path
from typing import Annotated, Any

import typer

from streamlake.cli import console
from streamlake.cli.addresses import DEFAULT_BOOTSTRAP, Bootstrap
from streamlake.cli.console import AsOutput, Output, group
from streamlake.cli.kafka import Cluster, ask
from streamlake.lake.cluster import CLUSTER_FILE, LocalCluster
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.describe_cluster import DescribeClusterRequest

app = group("Run several brokers on this machine; show the brokers of a cluster.")

WATCH_INTERVAL_S = 0.2


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
