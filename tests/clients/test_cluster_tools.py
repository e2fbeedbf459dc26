"""Kafka's own tools for reassignments and elections, and clients' admin APIs, on several brokers."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import ElectionType, Producer, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from kafka import KafkaAdminClient
from kafka import TopicPartition as KafkaTopicPartition
from support.apache_kafka import fetch_jars, run_tool
from support.maven import Missing
from support.wait import DEADLINE_S, wait_until

from streamlake.lake.cluster import LocalCluster

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]  # a JVM for each tool, and at first their jars

REASSIGN = "org.apache.kafka.tools.reassign.ReassignPartitionsCommand"
ELECT = "org.apache.kafka.tools.LeaderElectionCommand"
PARTITIONS = 4


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with tempfile.TemporaryDirectory(prefix="cluster-") as name:
        Path(name).chmod(0o755)  # PostgreSQL runs as `nobody` for root
        cluster = LocalCluster(Path(name) / "data", 2)
        cluster.start()
        yield cluster
        cluster.stop()


@pytest.fixture(scope="module")
def admin(cluster: LocalCluster) -> AdminClient:
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
    for made in admin.create_topics([NewTopic("t", PARTITIONS, 1)]).values():
        made.result(DEADLINE_S)
    return admin


@pytest.fixture(scope="module")
def _jars() -> None:
    try:
        fetch_jars()
    except Missing as missing:
        pytest.skip(f"Kafka's tools cannot run here: {missing}")


def leaders(admin: AdminClient) -> list[int]:
    found = admin.describe_topics(TopicCollection(["t"]))["t"].result(DEADLINE_S)
    assert all([r.id for r in p.replicas] == [r.id for r in p.isr] for p in found.partitions)
    return [p.replicas[0].id if p.leader is None else p.leader.id for p in found.partitions]


def tool(cluster: LocalCluster, name: str, *arguments: str) -> str:
    done = run_tool(name, "--bootstrap-server", cluster.bootstrap, *arguments)
    assert "Exception" not in done.stdout + done.stderr, done.stdout + done.stderr
    return done.stdout


def plan(path: Path, *nodes: int) -> str:
    """A file for the tool, by which the partitions go to these nodes."""
    partitions: list[dict[str, Any]] = [
        {"topic": "t", "partition": index, "replicas": [node]} for index, node in enumerate(nodes)
    ]
    path.write_text(json.dumps({"version": 1, "partitions": partitions}))
    return str(path)


@pytest.mark.usefixtures("_jars")
def test_partitions_are_reassigned(cluster: LocalCluster, admin: AdminClient, tmp_path: Path) -> None:
    producer = Producer({"bootstrap.servers": cluster.bootstrap})
    for node in (1, 0):
        file = plan(tmp_path / f"{node}.json", *[node] * PARTITIONS)
        told = tool(cluster, REASSIGN, "--reassignment-json-file", file, "--execute")
        assert "Successfully started partition reassignments for t-0,t-1,t-2,t-3" in told
        wait_until(
            lambda file=file: (
                tool(cluster, REASSIGN, "--reassignment-json-file", file, "--verify").count("is completed")
                == PARTITIONS
            )
        )
        assert leaders(admin) == [node] * PARTITIONS
        for index in range(PARTITIONS):
            producer.produce("t", b"v", partition=index)
        assert producer.flush(DEADLINE_S) == 0
    assert "No partition reassignments found" in tool(cluster, REASSIGN, "--list")


@pytest.mark.usefixtures("_jars")
def test_a_reassignment_to_two_brokers_is_refused(cluster: LocalCluster, admin: AdminClient, tmp_path: Path) -> None:
    file = tmp_path / "two.json"
    file.write_text(json.dumps({"version": 1, "partitions": [{"topic": "t", "partition": 0, "replicas": [0, 1]}]}))
    done = run_tool(
        REASSIGN, "--bootstrap-server", cluster.bootstrap, "--reassignment-json-file", str(file), "--execute"
    )
    assert done.returncode == 1 and "name one broker, not 2" in done.stdout + done.stderr


@pytest.mark.usefixtures("_jars")
def test_nothing_is_cancelled_that_has_arrived(cluster: LocalCluster, admin: AdminClient, tmp_path: Path) -> None:
    file = plan(tmp_path / "cancel.json", *leaders(admin))
    told = tool(cluster, REASSIGN, "--reassignment-json-file", file, "--cancel")
    assert "None of the specified partition reassignments are active" in told


@pytest.mark.usefixtures("_jars")
@pytest.mark.parametrize("kind", ["preferred", "unclean"])
def test_no_election_is_needed(cluster: LocalCluster, admin: AdminClient, kind: str) -> None:
    one = tool(cluster, ELECT, "--election-type", kind, "--topic", "t", "--partition", "0")
    assert "Valid replica already elected for partitions t-0" in one
    assert "rror" not in tool(cluster, ELECT, "--election-type", kind, "--all-topic-partitions")


def test_kafka_python_reassigns(cluster: LocalCluster, admin: AdminClient) -> None:
    client = KafkaAdminClient(bootstrap_servers=cluster.bootstrap)
    here = KafkaTopicPartition("t", 2)
    for node in (1, 0):
        assert client.alter_partition_reassignments({here: [node]}) == {here: None}
        wait_until(lambda node=node: leaders(admin)[2] == node and not client.list_partition_reassignments())
    assert client.alter_partition_reassignments({here: [0, 1]})[here].__name__ == "InvalidReplicationAssignmentError"
    assert client.alter_partition_reassignments({here: None})[here].__name__ == "NoReassignmentInProgressError"
    client.close()


def test_confluent_kafka_elects(admin: AdminClient) -> None:
    asked = [TopicPartition("t", 0), TopicPartition("t", 1)]
    for found in (admin.elect_leaders(ElectionType.PREFERRED, asked), admin.elect_leaders(ElectionType.UNCLEAN, asked)):
        results = found.result(DEADLINE_S)
        assert {p.partition: e.name() for p, e in results.items()} == {
            0: "ELECTION_NOT_NEEDED",
            1: "ELECTION_NOT_NEEDED",
        }
