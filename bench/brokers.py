"""Real brokers in processes of their own, on free ports, for benchmarks to put load on.

    with streamlake_broker(directory, wal="object") as broker, apache_kafka(directory) as kafka:
        broker.name, broker.bootstrap, broker.pid, broker.http
        kafka                                       # None if it cannot be started here; why was said

An object WAL, or a `bucket`, is SeaweedFS on this machine. Apache Kafka is one KRaft node from its own jars
(tests/support/apache_kafka.py), with Kafka's defaults but for its heap of 1 GiB.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from report import console

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from support.apache_kafka import ApacheKafka, fetch_jars, kafka_version  # noqa: E402
from support.maven import Missing  # noqa: E402
from support.seaweedfs import SeaweedFS  # noqa: E402
from support.server import Server  # noqa: E402

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
    def client(self) -> Mapping[str, Any]:
        """Arguments of obstore's S3Store."""
        return self.store.client(self.name, self.endpoint)

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

    def __init__(
        self,
        name: str,
        directory: Path,
        config: Config,
        bucket: Bucket | None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(directory, toml(config), environ)
        self.name = name
        self.bucket = bucket

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid


@contextmanager
def seaweedfs_bucket(directory: Path, store_class: type[SeaweedFS] = SeaweedFS) -> Iterator[Bucket]:
    directory.mkdir(parents=True, exist_ok=True)
    with store_class(directory) as store:
        yield Bucket(store, store.bucket(), store.s3_endpoint)


@contextmanager
def streamlake_broker(
    directory: Path,
    wal: Wal = "file",
    config: Config | None = None,
    bucket: Bucket | None = None,
    before: Path | None = None,
) -> Iterator[StreamLake]:
    """`directory` is new. With an object WAL and no `bucket` it gets one of its own. `before`: another checkout whose
    code runs, with the packages of this one; its kernels are built in place (python setup.py build_ext --inplace)."""
    with ExitStack() as stack:
        if wal == "object" and bucket is None:
            bucket = stack.enter_context(seaweedfs_bucket(directory / "seaweedfs"))
        sections = merged({"storage": {"wal": wal}}, bucket.config if bucket else {}, config or {})
        name = f"StreamLake, {wal} WAL{', before' if before else ''}"
        # Safe path: else the current directory, which is this checkout, would come first.
        environ = {"PYTHONPATH": str(before.absolute()), "PYTHONSAFEPATH": "1"} if before else {}
        broker = StreamLake(name, directory / "streamlake", sections, bucket, environ)
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


@dataclass(frozen=True, slots=True)
class Kafka:
    name: str
    bootstrap: str
    pid: int
    version: str
    http: None = None


Broker = StreamLake | Kafka


@contextmanager
def apache_kafka(directory: Path, flush_each_batch: bool = False) -> Iterator[Kafka | None]:
    """`flush_each_batch`: an fsync before each acknowledgement, which is what StreamLake promises. Kafka's default
    leaves it to the operating system."""
    try:
        with console.status("maven fetches Apache Kafka"):
            fetch_jars()
    except Missing as missing:
        console.print(f"Apache Kafka left out: {missing}")
        yield None
        return
    properties = {"log.flush.interval.messages": "1"} if flush_each_batch else {}
    with ApacheKafka(directory, properties) as kafka:
        flushes = "flush per batch" if flush_each_batch else "no flush"
        yield Kafka(f"Apache Kafka, {flushes}", kafka.bootstrap, kafka.pid, kafka_version())
