"""kill -9 of server, worker and a copying client, again and again, under load; then everything is compared.

`python tests/support/crash.py --wal file --rounds 10` (make crash). With `--wal object` all state is in a SeaweedFS bucket
and a PostgreSQL server, and every start of the server finds an empty directory. The judge is independent of our code: confluent-kafka reads the
topic, DuckDB the Iceberg files. Checked:
- every record that was acknowledged is in the log at the offset that was acknowledged, with its value;
- offsets have no gap and no repeat; an idempotent producer's records are there once, in order;
- a topic that is copied in transactions (support/exactly_once_copy.py) is in its copy once, in order;
- each table holds every log position exactly once, with the same values: of the copy those of committed transactions.
"""

import argparse
import itertools
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic
from support.exactly_once_copy import COPIER, Copier
from support.postgres import Postgres
from support.seaweedfs import SeaweedFS
from support.server import Server
from support.steady_load import QUIET
from support.wait import DEADLINE_S, wait_until

from streamlake.cli import demo
from streamlake.lake import sql

PARTITIONS = 3
VICTIMS = ("server", "worker", "copier", "server", "both")
SOURCE, COPY = "idempotent", "copy"
CONFIG = """
[storage]
wal_segment_bytes = 1048576
wal_capacity_bytes = 33554432
upload_bytes = 2097152
upload_interval_s = 1.0
gc_interval_s = 2.0
gc_grace_s = 2.0
"""


@dataclass
class Load:
    """One producer in a thread: keeps at most `window` records unacknowledged, remembers every acknowledgement."""

    bootstrap: str
    topic: str
    idempotent: bool
    sent: int = 0
    acked: dict[str, tuple[int, int]] = field(default_factory=dict)  # value → (partition, offset)
    failed: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        config: dict[str, Any] = {**QUIET, "bootstrap.servers": self.bootstrap, "linger.ms": 5}
        if self.idempotent:
            config |= {"enable.idempotence": True, "message.timeout.ms": 0}
        else:
            config |= {"message.timeout.ms": 60_000}
        producer = Producer(config)
        while not self.stop.is_set():
            if self.sent - len(self.acked) - len(self.failed) < 5_000:
                for _ in range(100):
                    value = f"{self.topic}-{self.sent}"
                    producer.produce(self.topic, value, partition=self.sent % PARTITIONS, on_delivery=self._delivered)
                    self.sent += 1
            producer.poll(0.01)
        left = producer.flush(DEADLINE_S)
        assert left == 0, f"{left} records still not acknowledged after the last restart"

    def _delivered(self, error: Any, message: Any) -> None:
        value = message.value().decode()
        if error is not None:
            self.failed.append(value)
        else:
            self.acked[value] = (message.partition(), message.offset())


class Disk:
    """A server whose state is in a directory; it recovers there."""

    def __init__(self, folder: Path) -> None:
        self.server = Server(folder / "data", CONFIG).start()

    def kill(self) -> None:
        self.server.kill()
        self.server.start()

    def lake(self) -> Any:
        return sql.connect()

    def close(self) -> None:
        pass


class Bucket:
    """A server whose state is in a bucket and on a metadata server; each of its lives has an empty directory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lives = itertools.count(1)
        (folder / "weed").mkdir()
        self._store = SeaweedFS(folder / "weed")
        self._store.start()
        self._postgres = Postgres()
        self._postgres.start()
        bucket = self._store.bucket()
        config = (
            CONFIG
            + f"""
url = "s3://{bucket}/lake"
metadata_url = "{self._postgres.url(self._postgres.database())}"
[s3]
endpoint = "{self._store.s3_endpoint}"
region = "{SeaweedFS.region}"
access_key = "{SeaweedFS.access_key}"
secret_key = "{SeaweedFS.secret_key}"
allow_http = true
"""
        )
        self._config = config
        self.server = self._life().start()

    def _life(self) -> Server:
        return Server(self._folder / f"life{next(self._lives)}", self._config)

    def kill(self) -> None:
        before = self.server
        before.kill()
        self.server = self._life()
        self.server.port, self.server.http_port = before.port, before.http_port
        self.server.start()

    def lake(self) -> Any:
        return self._store.duckdb(sql.connect())

    def close(self) -> None:
        self._postgres.stop()
        self._store.stop()


HOMES = {"file": Disk, "object": Bucket}


def run(folder: Path, rounds: int, seed: int, wal: str = "file", say: Any = print) -> dict[str, int]:
    """Produce through `rounds` kills; the totals. AssertionError names what does not hold."""
    home = HOMES[wal](folder)
    try:
        return campaign(home, rounds, random.Random(seed), say)
    except BaseException:
        say(home.server.log[-5000:])
        if home.server.process is not None and home.server.process.poll() is None:
            home.server.kill()
        raise
    finally:
        home.close()


def campaign(home: Disk | Bucket, rounds: int, rng: random.Random, say: Any) -> dict[str, int]:
    bootstrap = home.server.bootstrap
    topics = [SOURCE, "plain"]
    admin = AdminClient({**QUIET, "bootstrap.servers": bootstrap})
    table = {
        "streamlake.table.enable": "true",
        "streamlake.table.convert.value.type": "string",
        "streamlake.table.commit.interval.ms": "200",
    }
    for future in admin.create_topics([NewTopic(t, PARTITIONS, config=table) for t in (*topics, COPY)]).values():
        future.result(DEADLINE_S)
    loads = [Load(bootstrap, t, t == SOURCE) for t in topics]
    copier = Copier(bootstrap, SOURCE, COPY)
    threads = [threading.Thread(target=load.run) for load in loads]
    for thread in threads:
        thread.start()
    copier.start()
    killed: Counter[str] = Counter()
    try:
        for number in range(rounds):
            time.sleep(rng.uniform(0.5, 3.0))
            victim = VICTIMS[number % len(VICTIMS)]
            if victim == "copier":
                copier.kill()
                killed["copier"] += 1
            else:
                kill(home, victim, killed)
            acked = sum(len(x.acked) for x in loads)
            say(f"round {number + 1}/{rounds}: killed {victim}, {acked:,} records acked so far")
        time.sleep(1)
    finally:
        for load in loads:
            load.stop.set()
        for thread in threads:
            thread.join()
        if sys.exception() is not None:
            copier.stop()
    logs = {load.topic: check_log(home.server, load) for load in loads}
    try:
        wait_until(lambda: is_copied(admin, logs[SOURCE]), lambda: f"not copied: {copier.lives} lives of the copier")
    finally:
        copier.stop()
    logs[COPY] = check_copy(home.server, logs[SOURCE])
    for topic, log in logs.items():
        check_table(home, topic, log)
    assert home.server.stop() == 0, home.server.log[-3000:]
    return {
        "acked": sum(len(x.acked) for x in loads),
        "failed": sum(len(x.failed) for x in loads),
        "log": sum(len(log) for log in logs.values()),
        "server kills": killed["server"],
        "worker kills": killed["worker"],
        "copier kills": killed["copier"],
    }


def kill(home: Disk | Bucket, victim: str, killed: "Counter[str]") -> None:
    """SIGKILL for server, worker or both; a killed server is started again."""
    if victim in ("worker", "both"):
        os.kill(home.server.wait_for_worker(), signal.SIGKILL)
        killed["worker"] += 1
    if victim in ("server", "both"):
        home.kill()
        killed["server"] += 1


def run_demo(data_dir: Path, seed: int, say: Any = print) -> None:
    """The demo's own load and its own report, while server and worker are killed all along."""
    rng = random.Random(seed)
    home = Disk(data_dir)
    server = home.server
    demo.create_topics(server.bootstrap)
    failures: list[BaseException] = []

    def load() -> None:
        try:
            demo.produce(server.bootstrap, server.http)
        except BaseException as error:
            failures.append(error)

    started = time.monotonic()
    loading = threading.Thread(target=load)
    loading.start()
    killed: Counter[str] = Counter()
    time.sleep(5)  # the schemas of the small tables are registered first: the client library does not retry that
    while loading.is_alive():
        time.sleep(rng.uniform(0.5, 3.0))
        kill(home, rng.choice(VICTIMS), killed)
    for _ in range(3):  # and while the tables catch up
        time.sleep(rng.uniform(0.2, 1.0))
        kill(home, rng.choice(VICTIMS), killed)
    assert not failures, failures
    produced_s = time.monotonic() - started
    demo.wait_for_tables(server.http)
    demo.report(
        server.bootstrap, server.http, produced_s, time.monotonic() - started
    )  # raises unless all five tables equal their topics and sources
    assert server.stop() == 0, server.log[-3000:]
    say(f"the demo's tables equal their topics after {killed['server']} server and {killed['worker']} worker kills")


def is_copied(admin: AdminClient, source: dict[tuple[int, int], str]) -> bool:
    """The copier has committed offsets behind all records: so all of its transactions before are over."""
    wanted = [TopicPartition(SOURCE, partition) for partition in range(PARTITIONS)]
    group = ConsumerGroupTopicPartitions(COPIER, wanted)
    try:
        committed = admin.list_consumer_group_offsets([group], require_stable=True)[COPIER].result(DEADLINE_S)
    except KafkaException:
        return False  # offsets of a transaction that is not over
    behind = {where.partition: where.offset for where in committed.topic_partitions}
    ends = Counter(partition for partition, _ in source)
    return all(behind[partition] == ends[partition] for partition in range(PARTITIONS))


def check_copy(server: Server, source: dict[tuple[int, int], str]) -> dict[tuple[int, int], str]:
    """The copy as a reader of committed records sees it."""
    log: dict[tuple[int, int], str] = {}
    consumer = Consumer(
        {
            **QUIET, "bootstrap.servers": server.bootstrap, "group.id": "check of the copy", "enable.auto.commit": False,
            "isolation.level": "read_committed", "enable.partition.eof": True,
        }
    )  # fmt: skip
    try:
        consumer.assign([TopicPartition(COPY, partition, 0) for partition in range(PARTITIONS)])
        left = set(range(PARTITIONS))
        while left:
            message = consumer.poll(DEADLINE_S)
            assert message is not None, f"the copy gives no end of partitions {left}"
            if message.error() is None:
                log[message.partition(), message.offset()] = message.value().decode()
            else:
                assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
                left.discard(message.partition())
    finally:
        consumer.close()
    for partition in range(PARTITIONS):
        original = [value for (p, _), value in sorted(source.items()) if p == partition]
        copied = [value for (p, _), value in sorted(log.items()) if p == partition]
        assert copied == original, (
            f"{COPY}[{partition}] has {len(copied)} records and its source {len(original)}; the first that differ: "
            f"{next(pair for pair in itertools.zip_longest(copied, original) if pair[0] != pair[1])}"
        )
    return log


def check_log(server: Server, load: Load) -> dict[tuple[int, int], str]:
    """The topic as a consumer sees it: (partition, offset) → value."""
    log: dict[tuple[int, int], str] = {}
    consumer = Consumer(
        {**QUIET, "bootstrap.servers": server.bootstrap, "group.id": "check", "enable.auto.commit": False}
    )
    try:
        for partition in range(PARTITIONS):
            low, high = consumer.get_watermark_offsets(TopicPartition(load.topic, partition), DEADLINE_S)
            assert low == 0, f"{load.topic}[{partition}] starts at {low}"
            consumer.assign([TopicPartition(load.topic, partition, 0)])
            for expected in range(high):
                message = consumer.poll(DEADLINE_S)
                assert message is not None, f"{load.topic}[{partition}] gives no offset {expected} of {high}"
                assert message.error() is None, message.error()
                assert message.offset() == expected, (
                    f"gap or repeat at {load.topic}[{partition}]@{expected}: {message.offset()}"
                )
                log[partition, expected] = message.value().decode()
    finally:
        consumer.close()
    for value, where in load.acked.items():
        assert log.get(where) == value, f"acked {value} at {where}, the log has {log.get(where)}"
    if load.idempotent:
        assert not load.failed, f"{len(load.failed)} records of the idempotent producer failed"
        values = list(log.values())
        assert len(set(values)) == len(values), "an idempotent producer's record is in the log twice"
        for partition in range(PARTITIONS):
            numbers = [int(v.rpartition("-")[2]) for (p, _), v in sorted(log.items()) if p == partition]
            assert numbers == sorted(numbers), f"partition {partition} is out of order"
    return log


def check_table(home: Disk | Bucket, topic: str, log: dict[tuple[int, int], str]) -> None:
    table = home.server.wait_for_table(topic, len(log))
    location = table["metadata_location"].removeprefix("file://")
    query = f"SELECT _kafka.partition, _kafka.offset, value FROM iceberg_scan('{location}')"
    rows = home.lake().execute(query).fetchall()
    assert len(rows) == len(log), f"{topic}: {len(rows)} rows, {len(log)} records"
    assert {(p, o): v for p, o, v in rows} == log, f"{topic}: the table's rows are not the log's records"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--wal", choices=sorted(HOMES), default="file")
    parser.add_argument("--demo", action="store_true", help="the demo's load instead, killed until it is done")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}")
    with tempfile.TemporaryDirectory() as folder:
        if arguments.demo:
            run_demo(Path(folder), arguments.seed)
            return
        totals = run(Path(folder), arguments.rounds, arguments.seed, arguments.wal)
    print("equal: " + ", ".join(f"{count:,} {name}" for name, count in totals.items()))


if __name__ == "__main__":
    main()
