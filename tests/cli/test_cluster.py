"""`streamlake cluster`: several brokers in one terminal, and what they look like from outside."""

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.wait import DEADLINE_S, wait_until

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


def test_a_number_of_brokers_that_cannot_be(tmp_path: Path) -> None:
    refused = run("up", "--brokers", "0", "--data-dir", str(tmp_path / "x"))
    assert refused.returncode == 1 and "give a number from 1 to" in refused.stderr
    assert not (tmp_path / "x").exists()


def test_no_broker_answers() -> None:
    refused = run("brokers", "--bootstrap", "127.0.0.1:1")
    assert refused.returncode == 3 and "no Kafka broker answers" in refused.stderr
