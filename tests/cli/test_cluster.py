"""`streamlake cluster`: several brokers in one terminal, and what they look like from outside."""

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from support.wait import DEADLINE_S, wait_until

from streamlake.lake.cluster import LocalCluster

STREAMLAKE = [sys.executable, "-m", "streamlake.cli.main", "cluster"]


@pytest.fixture
def directory() -> Iterator[Path]:
    """Where `nobody` may go, as whom PostgreSQL runs for root."""
    with tempfile.TemporaryDirectory(prefix="cluster-") as name:
        Path(name).chmod(0o755)
        yield Path(name) / "data"


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*STREAMLAKE, *arguments], capture_output=True, text=True, timeout=DEADLINE_S)


@pytest.mark.slow
@pytest.mark.whole
def test_a_cluster_runs_until_ctrl_c(directory: Path) -> None:
    command = [*STREAMLAKE, "up", "--brokers", "2", "--data-dir", str(directory)]
    cluster = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert cluster.stdout is not None
    word, bootstrap = cluster.stdout.readline().split()
    assert word == "bootstrap"
    assert json.loads((directory / "cluster.json").read_text())["bootstrap"] == bootstrap

    def shown() -> list[dict[str, object]]:
        return json.loads(run("brokers", "--bootstrap", bootstrap, "-o", "json").stdout)

    wait_until(lambda: [broker["node"] for broker in shown()] == [0, 1])
    assert sum(bool(broker["controller"]) for broker in shown()) == 1
    assert "controller" in run("brokers", "--bootstrap", bootstrap).stdout
    pids = [broker["pid"] for broker in json.loads((directory / "cluster.json").read_text())["brokers"]]
    cluster.send_signal(signal.SIGINT)
    _, told = cluster.communicate(timeout=DEADLINE_S)
    assert cluster.returncode == 0 and "stopping" in told
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.mark.slow
@pytest.mark.whole
def test_what_brokers_have_is_shown_and_moved(directory: Path) -> None:
    cluster = LocalCluster(directory, 3)
    cluster.start()
    try:
        facts = json.loads((directory / "cluster.json").read_text())
        first, second, _ = [broker["http"] for broker in facts["brokers"]]

        def status(http: str = first) -> dict[int, dict[str, Any]]:
            found = json.loads(run("status", "--http", http, "-o", "json").stdout)
            assert found["offline"] == []
            return {broker["node"]: broker for broker in found["brokers"]}

        def have(*nodes: int) -> bool:
            brokers = status()
            return all(bool(b["partitions"] and b["open"] and b["slots"]) == (n in nodes) for n, b in brokers.items())

        admin = AdminClient({"bootstrap.servers": facts["bootstrap"]})
        for made in admin.create_topics([NewTopic("orders", 6, 1)]).values():
            made.result(DEADLINE_S)
        wait_until(lambda: have(0, 1, 2), status)
        shown = run("status", "--http", second).stdout
        assert "controller" in shown and "serving" in shown

        drained = run("drain", "1", "--http", first)
        assert (drained.returncode, drained.stdout) == (0, "broker 1 is drained\n"), drained.stderr
        assert "broker 1 still has" in drained.stderr
        assert have(0, 2)
        assert "serving, drained" in run("status", "--http", second).stdout

        refused = run("move", "orders-3", "1", "--bootstrap", facts["bootstrap"])
        assert refused.returncode == 1 and "broker 1 is drained" in refused.stderr
        for node in (0, 2):
            moved = run("move", "orders-3", str(node), "--bootstrap", facts["bootstrap"])
            assert (moved.returncode, moved.stdout) == (0, f"orders-3 is at broker {node}\n"), moved.stderr
            leaders = admin.list_topics("orders", timeout=DEADLINE_S).topics["orders"].partitions
            assert leaders[3].leader == node

        assert run("undrain", "1", "--http", second).returncode == 0
        wait_until(lambda: have(0, 1, 2), status)
        assert run("drain", "7", "--http", first).returncode == 1
        assert run("drain", "0", "--http", first).returncode == 0
        assert run("drain", "1", "--http", first, "--no-wait").returncode == 0
        last = run("drain", "2", "--http", first)
        assert last.returncode == 1 and "no other broker is there" in last.stderr
    finally:
        cluster.stop()


@pytest.mark.parametrize("partition", ["orders", "-1", "orders-", "orders-x", "orders-1234567890"])
def test_what_is_no_partition(partition: str) -> None:
    refused = run("move", "--", partition, "0")
    assert refused.returncode == 2 and "is no partition" in refused.stderr


@pytest.mark.parametrize("command", [["status"], ["drain", "1"], ["undrain", "1"]])
def test_no_server_answers(command: list[str]) -> None:
    refused = run(*command, "--http", "127.0.0.1:1")
    assert refused.returncode == 3 and "no StreamLake server answers" in refused.stderr


def test_a_number_of_brokers_that_cannot_be(tmp_path: Path) -> None:
    refused = run("up", "--brokers", "0", "--data-dir", str(tmp_path / "x"))
    assert refused.returncode == 1 and "give a number from 1 to" in refused.stderr
    assert not (tmp_path / "x").exists()


def test_no_broker_answers() -> None:
    refused = run("brokers", "--bootstrap", "127.0.0.1:1")
    assert refused.returncode == 3 and "no Kafka broker answers" in refused.stderr
