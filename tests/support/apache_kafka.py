"""Apache Kafka itself, from its own jars, which maven fetches once (bench/apache_kafka/pom.xml → bench/.cache).

    with ApacheKafka(directory) as kafka:           # maven.Missing if Java or Maven are not there: it says what to install
        kafka.port, kafka.bootstrap, kafka.pid, kafka_version()
        run_tool("org.apache.kafka.tools.TopicCommand", "--bootstrap-server", kafka.bootstrap, "--list").stdout

One KRaft node with Kafka's defaults, but for what a single node needs. It listens on loopback only.
"""

import os
import socket
import subprocess
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from support.maven import CACHE, jars_of
from support.raw_kafka import RawClient

from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.metadata import MetadataRequest

POM = CACHE.parent / "apache_kafka" / "pom.xml"
JARS = CACHE / "apache_kafka"
START_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 60.0
TOOL_TIMEOUT_S = 180.0
CLUSTER_ID = "c3RyZWFtbGFrZS1iZW5jaA"  # 16 bytes in base64; any will do


class ApacheKafka:
    """`properties` are added to server.properties, and win."""

    def __init__(
        self, directory: Path, properties: Mapping[str, str] | None = None, node_id: int = 1, heap_bytes: int = 1 << 30
    ) -> None:
        self.directory = directory
        self.port, self._controller_port = free_ports(2)
        self._properties = self._of_one_node(node_id) | dict(properties or {})
        self._heap = (f"-Xms{heap_bytes}", f"-Xmx{heap_bytes}")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        return (self.directory / "kafka.log").read_text(errors="replace")

    def __enter__(self) -> "ApacheKafka":
        fetch_jars()
        self.directory.mkdir(parents=True, exist_ok=True)
        file = self.directory / "server.properties"
        file.write_text("".join(f"{key}={value}\n" for key, value in self._properties.items()))
        with (self.directory / "kafka.log").open("wb") as log:
            storage = ["kafka.tools.StorageTool", "format", "--standalone", "-t", CLUSTER_ID, "-c", str(file)]
            done = subprocess.run(java(*storage), stdout=log, stderr=log, timeout=START_TIMEOUT_S)
            if done.returncode:
                raise RuntimeError(f"Kafka's StorageTool ended with {done.returncode}:\n{self.log[-4000:]}")
            self._process = subprocess.Popen(java("kafka.Kafka", str(file), jvm=self._heap), stdout=log, stderr=log)
        try:
            self._wait_until_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_TIMEOUT_S)

    def _of_one_node(self, node_id: int) -> dict[str, str]:
        return {
            "process.roles": "broker,controller",
            "node.id": str(node_id),
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self._controller_port}",
            "controller.listener.names": "CONTROLLER",
            "controller.quorum.bootstrap.servers": f"127.0.0.1:{self._controller_port}",
            "log.dirs": str(self.directory / "data"),
            # What Kafka keeps for itself cannot have three replicas on one node.
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "group.initial.rebalance.delay.ms": "200",  # as StreamLake's
        }

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(f"Apache Kafka ended with {self._process.returncode}:\n{self.log[-4000:]}")
            try:
                with RawClient(self.port) as client:
                    if client.call(ApiKey.METADATA, 12, MetadataRequest(topics=())).brokers:
                        return
            except OSError:  # nobody listens yet, or not for long
                pass
            time.sleep(0.1)
        raise RuntimeError(f"Apache Kafka was not ready after {START_TIMEOUT_S:.0f} s:\n{self.log[-4000:]}")


def fetch_jars() -> None:
    """Into JARS, once for each version of the pom. Missing if they cannot be had."""
    jars_of(POM)


def kafka_version() -> str:
    (jar,) = JARS.glob("kafka-server-[0-9]*.jar")
    return jar.stem.removeprefix("kafka-server-")


def java(*arguments: str, jvm: tuple[str, ...] = ()) -> list[str]:
    return ["java", *jvm, "-cp", f"{JARS}{os.sep}*", *arguments]


def run_tool(main_class: str, *arguments: str, **kwargs: Any) -> "subprocess.CompletedProcess[str]":
    """One of Kafka's command line tools, to its end. `fetch_jars` first."""
    # A small heap and the simple compiler only: a tool lives for seconds.
    command = java(main_class, *arguments, jvm=("-Xmx256m", "-XX:TieredStopAtLevel=1"))
    return subprocess.run(command, capture_output=True, text=True, timeout=TOOL_TIMEOUT_S, **kwargs)


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
