"""A cluster on one machine: real brokers on PostgreSQL, killed while they are produced to."""

import asyncio
import json
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic
from support.moves import move
from support.wait import DEADLINE_S, wait_until

from streamlake.core.errors import Invalid
from streamlake.lake.cluster import CLUSTER_FILE, LocalCluster
from streamlake.peers.kafka import KafkaPeer
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.fetch import FetchPartition, FetchRequest, FetchTopic
from streamlake.protocol.messages.metadata import MetadataRequest, MetadataRequestTopic

pytestmark = [pytest.mark.slow, pytest.mark.whole]

PARTITIONS = 6


@pytest.fixture
def directory() -> Iterator[Path]:
    """Where `nobody` may go, as whom PostgreSQL runs for root."""
    with tempfile.TemporaryDirectory(prefix="cluster-") as name:
        Path(name).chmod(0o755)
        yield Path(name) / "data"


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def cluster(directory: Path, told: list[str]) -> Iterator[LocalCluster]:
    cluster = LocalCluster(directory, 3, tell=told.append)
    cluster.start()
    yield cluster
    cluster.stop()


def announced(directory: Path) -> dict[str, Any]:
    return json.loads((directory / CLUSTER_FILE).read_text())


class Load:
    """An idempotent producer to all partitions, until it is stopped."""

    def __init__(self, bootstrap: str) -> None:
        self.acked: set[tuple[int, int, bytes]] = set()
        self.failed: list[str] = []
        self._producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 5})
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        number = 0
        while not self._stop.is_set():
            for partition in range(PARTITIONS):
                self._producer.produce("t", b"%d" % number, partition=partition, on_delivery=self._delivered)
                number += 1
            self._producer.poll(0.02)
        assert self._producer.flush(DEADLINE_S) == 0

    def _delivered(self, error: Any, message: Any) -> None:
        if error is not None:
            self.failed.append(str(error))
        else:
            self.acked.add((message.partition(), message.offset(), message.value()))

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


def everything(bootstrap: str, count: int) -> list[tuple[int, int, bytes]]:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "g", "auto.offset.reset": "earliest"})
    consumer.subscribe(["t"])
    found: list[tuple[int, int, bytes]] = []
    until = time.monotonic() + DEADLINE_S
    while len(found) < count and time.monotonic() < until:
        for message in consumer.consume(1000, 0.5):
            if message.error() is None:
                found.append((message.partition(), message.offset(), message.value()))
    consumer.close()
    return found


def test_brokers_that_are_killed_lose_and_repeat_nothing(
    cluster: LocalCluster, directory: Path, told: list[str]
) -> None:
    facts = announced(directory)
    assert [broker["node"] for broker in facts["brokers"]] == [0, 1, 2]
    assert facts["bootstrap"] == cluster.bootstrap == ",".join(b["bootstrap"] for b in facts["brokers"])
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
    wait_until(lambda: len(admin.list_topics(timeout=DEADLINE_S).brokers) == 3)
    for made in admin.create_topics([NewTopic("t", PARTITIONS, 1)]).values():
        made.result(DEADLINE_S)
    leaders = {p.leader for p in admin.list_topics("t", timeout=DEADLINE_S).topics["t"].partitions.values()}
    assert leaders == {0, 1, 2}
    load = Load(cluster.bootstrap)
    for victim in (1, 0):
        before = len(load.acked)
        (pid,) = [b["pid"] for b in announced(directory)["brokers"] if b["node"] == victim]
        os.kill(pid, signal.SIGKILL)
        # Not started again before the others have taken over: partitions of all brokers go on.
        wait_until(lambda before=before: len({p for p, _, _ in _since(load, before)}) == PARTITIONS)
        wait_until(lambda victim=victim: _runs_again(cluster, directory, victim))
        assert any(f"broker {victim} has ended, and is started again" in line for line in told)
    load.stop()
    assert load.failed == []
    found = everything(cluster.bootstrap, len(load.acked))
    assert set(found) == load.acked and len(found) == len(set(found))
    assert len({value for _, _, value in found}) == len(found), "a record is there once"


class Member:
    """Of a group, which consumes until it is stopped, and commits."""

    def __init__(self, bootstrap: str) -> None:
        self.found: list[tuple[int, int, bytes]] = []
        self.failed: list[str] = []
        settings = {"bootstrap.servers": bootstrap, "group.id": "members", "auto.offset.reset": "earliest"}
        self._consumer = Consumer(settings)
        self._consumer.subscribe(["t"])
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            for message in self._consumer.consume(1000, 0.2):
                if (error := message.error()) is not None:
                    self.failed.append(str(error))
                else:
                    self.found.append((message.partition(), message.offset(), message.value()))
        self._consumer.close()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


def test_a_rolling_restart_is_not_noticed(cluster: LocalCluster, directory: Path) -> None:
    """One broker after the other stops cleanly, the controller among them: clients get no error, and nothing is lost or
    there twice. When a broker ends the others have everything."""
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
    wait_until(lambda: len(admin.list_topics(timeout=DEADLINE_S).brokers) == 3)
    for made in admin.create_topics([NewTopic("t", PARTITIONS, 1)]).values():
        made.result(DEADLINE_S)
    load, member = Load(cluster.bootstrap), Member(cluster.bootstrap)
    wait_until(lambda: len(member.found) > 100)
    for node in (0, 1, 2):
        (broker,) = [b for b in announced(directory)["brokers"] if b["node"] == node]
        before = len(load.acked)
        os.kill(broker["pid"], signal.SIGTERM)
        wait_until(lambda pid=broker["pid"]: _has_ended(pid))
        log = (directory / f"broker-{node}" / "server.log").read_text()
        assert "other brokers have all that this one had" in log and "not all was moved" not in log
        wait_until(lambda before=before: len({p for p, _, _ in _since(load, before)}) == PARTITIONS)
        wait_until(lambda broker=broker: _has_followed(cluster, directory, broker))
        wait_until(lambda node=node: node in _leaders(admin))
    load.stop()
    wait_until(lambda: len(set(member.found)) >= len(load.acked))
    member.stop()
    assert (load.failed, member.failed) == ([], [])
    assert set(member.found) == load.acked
    found = everything(cluster.bootstrap, len(load.acked))
    assert set(found) == load.acked and len({value for _, _, value in found}) == len(found)


def test_a_second_signal_ends_the_wait_for_others(cluster: LocalCluster, directory: Path) -> None:
    (broker, *_) = announced(directory)["brokers"]
    admin = AdminClient({"bootstrap.servers": broker["bootstrap"]})
    wait_until(lambda: len(admin.list_topics(timeout=DEADLINE_S).brokers) == 3)
    os.kill(broker["pid"], signal.SIGTERM)
    os.kill(broker["pid"], signal.SIGINT)
    wait_until(lambda: _has_ended(broker["pid"]))
    log = (directory / f"broker-{broker['node']}" / "server.log").read_text()
    assert "moving to other brokers" not in log or "was told not to wait" in log
    assert "stopping" in log and "Traceback" not in log


def _leaders(admin: AdminClient) -> set[int]:
    return {p.leader for p in admin.list_topics("t", timeout=DEADLINE_S).topics["t"].partitions.values()}


def _has_followed(cluster: LocalCluster, directory: Path, former: dict[str, Any]) -> bool:
    """Another process of the node runs."""
    cluster.watch()
    return any(b["node"] == former["node"] and b["pid"] != former["pid"] for b in announced(directory)["brokers"])


def _has_ended(pid: int) -> bool:
    """Its parent, this process, has not asked yet how it ended."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def _since(load: Load, count: int) -> list[tuple[int, int, bytes]]:
    return sorted(load.acked, key=lambda record: int(record[2]))[count:]


def _runs_again(cluster: LocalCluster, directory: Path, node: int) -> bool:
    cluster.watch()
    return node in [broker["node"] for broker in announced(directory)["brokers"]]


def test_producers_go_on_where_partitions_have_moved(cluster: LocalCluster) -> None:
    """Who asks the former leader is told the new one: node, epoch and address (KIP-951)."""
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
    wait_until(lambda: len(admin.list_topics(timeout=DEADLINE_S).brokers) == 3)
    for made in admin.create_topics([NewTopic("t", PARTITIONS, 1)]).values():
        made.result(DEADLINE_S)
    load = Load(cluster.bootstrap)
    try:
        for _ in range(3):
            before = len(load.acked)
            wait_until(lambda before=before: len({p for p, _, _ in _since(load, before)}) == PARTITIONS)
            then = asyncio.run(Answers.of(cluster)).leaders
            # All at once, and in a circle: the controller sees nothing to level.
            move(cluster.metadata_url, "t", lambda partition: ((partition.node or 0) + 1) % 3)
            there = {p: ((node + 1) % 3, epoch + 1) for p, (node, epoch) in then.items()}
            wait_until(lambda there=there: asyncio.run(Answers.of(cluster)).leaders == there)
            assert asyncio.run(Answers.of(cluster)).hints == there, "as Metadata says"
    finally:
        load.stop()
    assert load.failed == []
    found = everything(cluster.bootstrap, len(load.acked))
    assert set(found) == load.acked and len({value for _, _, value in found}) == len(found)


@dataclass(frozen=True)
class Answers:
    """What brokers say of the partitions of the topic: (node, epoch) by partition."""

    leaders: dict[int, tuple[int, int]]  # of Metadata; empty unless they agree
    hints: dict[int, tuple[int, int]]  # of a broker that does not have the partition

    @classmethod
    async def of(cls, cluster: LocalCluster) -> "Answers":
        views, hints, addresses = [], {}, {}
        for bootstrap in cluster.bootstrap.split(","):
            host, _, port = bootstrap.rpartition(":")
            async with KafkaPeer(host, int(port), "test", DEADLINE_S) as peer:
                request = MetadataRequest(topics=(MetadataRequestTopic(name="t"),))
                answer = await peer.call(ApiKey.METADATA, request, 12)
                addresses = {b.node_id: f"{b.host}:{b.port}" for b in answer.brokers}
                (topic,) = answer.topics
                views.append({p.partition_index: (p.leader_id, p.leader_epoch) for p in topic.partitions})
                wanted = tuple(FetchPartition(partition=p, fetch_offset=0) for p in range(PARTITIONS))
                fetch = FetchRequest(topics=(FetchTopic(topic_id=topic.topic_id, partitions=wanted),), max_bytes=1)
                answer = await peer.call(ApiKey.FETCH, fetch, 17)
                endpoints = {e.node_id: f"{e.host}:{e.port}" for e in answer.node_endpoints}
                for partition in answer.responses[0].partitions:
                    leader = partition.current_leader
                    if leader.leader_id >= 0 and endpoints[leader.leader_id] == addresses[leader.leader_id]:
                        hints[partition.partition_index] = (leader.leader_id, leader.leader_epoch)
        return cls(views[0] if all(view == views[0] for view in views) else {}, hints)


def test_a_cluster_that_was_stopped_has_everything_when_it_starts_again(directory: Path) -> None:
    first = LocalCluster(directory, 2)
    first.start()
    admin = AdminClient({"bootstrap.servers": first.bootstrap})
    for made in admin.create_topics([NewTopic("t", PARTITIONS, 1)]).values():
        made.result(DEADLINE_S)
    load = Load(first.bootstrap)
    wait_until(lambda: len(load.acked) > 100)
    load.stop()
    first.stop()
    assert not (directory / CLUSTER_FILE).exists()
    again = LocalCluster(directory, 2)
    again.start()
    assert set(everything(again.bootstrap, len(load.acked))) == load.acked
    again.stop()


def test_what_cannot_be_started_leaves_nothing_behind(directory: Path) -> None:
    with pytest.raises(Invalid, match="give a number from 1 to"):
        LocalCluster(directory, 0)
    wrong = LocalCluster(directory, 2, metadata_url="postgresql://nobody@127.0.0.1:1/x")
    with pytest.raises(Exception, match="metadata"):
        wrong.start()
    assert not (directory / CLUSTER_FILE).exists()
