"""Real brokers in processes of their own, on free ports, for benchmarks to put load on.

    with streamlake_broker(directory, wal="object") as broker, apache_kafka(directory) as kafka:
        broker.name, broker.bootstrap, broker.pid, broker.http
        kafka                                       # None if it cannot be started here; why was said

An object WAL, or a `bucket`, is SeaweedFS on this machine. Apache Kafka is one KRaft node from its own jars, which
maven fetches once (bench/apache_kafka/pom.xml → bench/.cache), with Kafka's defaults but for its heap.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from report import console

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from support.seaweedfs import SeaweedFS  # noqa: E402
from support.server import Server  # noqa: E402

POM = HERE / "apache_kafka" / "pom.xml"
JARS = HERE / ".cache" / "apache_kafka"
HEAP_BYTES = 1 << 30
JAVA_MIN = 17
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
MAVEN_TIMEOUT_S = 600.0

Wal = Literal["file", "object"]
Config = Mapping[str, Mapping[str, Any]]
"""Sections and keys of StreamLake's configuration file."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """A new bucket on a SeaweedFS of this machine. `endpoint` may be a proxy in front of it."""

    store: SeaweedFS
    name: str
    endpoint: str

    @property
    def config(self) -> Config:
        s3 = {
            "endpoint": self.endpoint,
            "region": self.store.region,
            "access_key": self.store.access_key,
            "secret_key": self.store.secret_key,
            "allow_http": True,
        }
        return {"storage": {"url": f"s3://{self.name}/lake"}, "s3": s3}


class StreamLake(Server):
    """`stop` or `kill`, then `start`: a restart on the same directory and ports."""

    def __init__(self, name: str, directory: Path, config: Config, bucket: Bucket | None) -> None:
        super().__init__(directory, toml(config))
        self.name = name
        self.bucket = bucket

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid


@dataclass(frozen=True, slots=True)
class ApacheKafka:
    name: str
    bootstrap: str
    pid: int
    version: str
    http: None = None


Broker = StreamLake | ApacheKafka


@contextmanager
def seaweedfs_bucket(directory: Path, store_class: type[SeaweedFS] = SeaweedFS) -> Iterator[Bucket]:
    directory.mkdir(parents=True, exist_ok=True)
    with store_class(directory) as store:
        yield Bucket(store, store.bucket(), store.s3_endpoint)


@contextmanager
def streamlake_broker(
    directory: Path, wal: Wal = "file", config: Config | None = None, bucket: Bucket | None = None
) -> Iterator[StreamLake]:
    """`directory` is new. With an object WAL and no `bucket` it gets one of its own."""
    with ExitStack() as stack:
        if wal == "object" and bucket is None:
            bucket = stack.enter_context(seaweedfs_bucket(directory / "seaweedfs"))
        sections = merged({"storage": {"wal": wal}}, bucket.config if bucket else {}, config or {})
        broker = StreamLake(f"StreamLake, {wal} WAL", directory / "streamlake", sections, bucket)
        broker.start()
        try:
            yield broker
        finally:
            if broker.process is not None and broker.process.poll() is None:
                broker.stop()


def merged(*configs: Config) -> dict[str, dict[str, Any]]:
    """Section by section, the last wins."""
    sections: dict[str, dict[str, Any]] = {}
    for config in configs:
        for section, values in config.items():
            sections.setdefault(section, {}).update(values)
    return sections


def toml(config: Config) -> str:
    """Strings, numbers and booleans look the same in JSON."""
    lines = []
    for section, values in config.items():
        lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    return "\n".join(lines) + "\n"


# -- Apache Kafka --------------------------------------------------------------------------------------------------


@contextmanager
def apache_kafka(directory: Path, flush_each_batch: bool = False) -> Iterator[ApacheKafka | None]:
    """`flush_each_batch`: an fsync before each acknowledgement, which is what StreamLake promises. Kafka's default
    leaves it to the operating system."""
    missing = fetch_jars()
    if missing:
        console.print(f"Apache Kafka left out: {missing}")
        yield None
        return
    directory.mkdir(parents=True, exist_ok=True)
    port, controller_port = free_ports(2)
    properties = directory / "server.properties"
    properties.write_text(_properties(directory / "data", port, controller_port, flush_each_batch))
    with (directory / "kafka.log").open("wb") as log:
        cluster_id = "c3RyZWFtbGFrZS1iZW5jaA"  # 16 bytes in base64; any will do
        _java(["kafka.tools.StorageTool", "format", "--standalone", "-t", cluster_id, "-c", str(properties)], log)
        process = subprocess.Popen(_command(["kafka.Kafka", str(properties)]), stdout=log, stderr=log)
    try:
        bootstrap = f"127.0.0.1:{port}"
        _wait_until_ready(process, bootstrap, directory / "kafka.log")
        flushes = "flush per batch" if flush_each_batch else "no flush"
        yield ApacheKafka(f"Apache Kafka, {flushes}", bootstrap, process.pid, kafka_version())
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_TIMEOUT_S)


def fetch_jars() -> str | None:
    """Into JARS, once for each version of the pom. What is missing, if they cannot be had."""
    if not shutil.which("java"):
        return f"no `java`: install a Java {JAVA_MIN} runtime"
    marker = JARS / POM.name
    if marker.exists() and marker.read_text() == POM.read_text():
        return None
    maven = shutil.which("mvn")
    if not maven:
        return "no `mvn`: install maven, which fetches Kafka's jars"
    shutil.rmtree(JARS, ignore_errors=True)
    command = [maven, "-q", "-B", "-f", str(POM), "dependency:copy-dependencies", f"-DoutputDirectory={JARS}"]
    with console.status("maven fetches Apache Kafka"):
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=MAVEN_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return f"maven took longer than {MAVEN_TIMEOUT_S:.0f} s: see whether it can reach its repository"
    if done.returncode:
        return f"maven failed: {(done.stdout + done.stderr).strip()[-500:]}"
    shutil.copy(POM, marker)
    return None


def kafka_version() -> str:
    (jar,) = JARS.glob("kafka-server-[0-9]*.jar")
    return jar.stem.removeprefix("kafka-server-")


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]
    finally:
        for s in sockets:
            s.close()


def _properties(data: Path, port: int, controller_port: int, flush_each_batch: bool) -> str:
    properties = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "controller.listener.names": "CONTROLLER",
        "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller_port}",
        "log.dirs": str(data),
        # One node: what Kafka keeps for itself cannot have three replicas.
        "offsets.topic.replication.factor": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "group.initial.rebalance.delay.ms": "200",  # as StreamLake's
    }
    if flush_each_batch:
        properties["log.flush.interval.messages"] = "1"
    return "".join(f"{key}={value}\n" for key, value in properties.items())


def _command(arguments: list[str]) -> list[str]:
    return ["java", f"-Xms{HEAP_BYTES}", f"-Xmx{HEAP_BYTES}", "-cp", f"{JARS}{os.sep}*", *arguments]


def _java(arguments: list[str], log: Any) -> None:
    done = subprocess.run(_command(arguments), stdout=log, stderr=log, timeout=START_TIMEOUT_S)
    if done.returncode:
        raise RuntimeError(f"{arguments[0]} ended with {done.returncode}: see {log.name}")


def _wait_until_ready(process: subprocess.Popen[bytes], bootstrap: str, log: Path) -> None:
    from confluent_kafka import KafkaException  # an extra, as all loads need it
    from confluent_kafka.admin import AdminClient

    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"Apache Kafka ended with {process.returncode}:\n{log.read_text()[-4000:]}")
        try:
            if admin.list_topics(timeout=1).brokers:
                return
        except KafkaException:
            continue
    raise RuntimeError(f"Apache Kafka was not ready after {START_TIMEOUT_S:.0f} s:\n{log.read_text()[-4000:]}")
