"""What many partitions cost a broker: time to create them, memory, and time to start with them.

    python bench/partitions.py [--partitions 10000] [--topics 200] [--wal file|object]

One broker lives five lives on the same directory: new; then with all partitions, empty, after a clean stop and after
kill -9; then with a batch in each, after kill -9 (all of it in the WAL) and after a clean stop (all of it in objects).
A start is over when Metadata names a leader for every partition. Idle is what a broker costs that nobody talks to.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from brokers import StreamLake, streamlake_broker
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from processes import peak_rss_bytes, rss_bytes
from report import Report, console, median, plot_bars

from streamlake.bench.process import cpu_s

MIB = 1 << 20
GOAL_MEMORY_BYTES = 1 << 30
GOAL_START_S = 10.0
TOPICS_PER_REQUEST = 10
RECORDS_PER_BATCH = 10
RECORD_BYTES = 100
METADATA_ROUNDS = 5
SETTLE_S = 65.0  # an upload of all that the WAL holds, then a look of retention at all of it: 30 s each
IDLE_S = 60.0  # two intervals of retention
GOAL_IDLE_PERCENT = 1.0
TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class Life:
    name: str
    ready_s: float  # until the broker says so
    served_s: float  # until Metadata names all leaders
    cpu_s: float  # of all its threads until then: less than served_s where it waited, or others had the machine
    rss_bytes: int
    peak_rss_bytes: int


class Lives:
    """The broker from one start to the next, and what each start took."""

    def __init__(self, broker: StreamLake, partitions: int) -> None:
        self._broker = broker
        self._partitions = partitions
        self.lives: list[Life] = []

    def again(self, name: str, end: Callable[[], object]) -> None:
        end()
        started = time.perf_counter()
        self._broker.start()
        ready_s = time.perf_counter() - started
        wait_for_leaders(self._broker, self._partitions)
        served_s = time.perf_counter() - started
        pid = self._broker.pid
        self.lives.append(Life(name, ready_s, served_s, cpu_s(pid), rss_bytes(pid), peak_rss_bytes(pid)))
        console.print(f"{name}: served after {served_s:.2f} s, {rss_bytes(pid) / MIB:.0f} MiB")


def admin(broker: StreamLake) -> AdminClient:
    return AdminClient({"bootstrap.servers": broker.bootstrap, "log_level": 0})


def wait_for_leaders(broker: StreamLake, partitions: int) -> None:
    client = admin(broker)
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            topics = client.list_topics(timeout=10).topics.values()
        except KafkaException:
            continue
        if sum(p.leader >= 0 and p.error is None for t in topics for p in t.partitions.values()) >= partitions:
            return
        time.sleep(0.02)
    raise SystemExit(f"not all of {partitions} partitions had a leader after {TIMEOUT_S:.0f} s")


def create(broker: StreamLake, topics: int, partitions: int) -> list[str]:
    """As few requests as there are TOPICS_PER_REQUEST, one after another."""
    client = admin(broker)
    sizes = [partitions // topics + (at < partitions % topics) for at in range(topics)]
    new = [NewTopic(f"topic-{at:04}", size, 1) for at, size in enumerate(sizes)]
    for first in range(0, topics, TOPICS_PER_REQUEST):
        for created in client.create_topics(new[first : first + TOPICS_PER_REQUEST], request_timeout=60).values():
            created.result(TIMEOUT_S)
    return [topic.topic for topic in new]


def write_everywhere(broker: StreamLake) -> None:
    """One batch into each partition, by an idempotent producer: its state is kept for each of them."""
    failed: list[object] = []
    producer = Producer({"bootstrap.servers": broker.bootstrap, "enable.idempotence": True, "linger.ms": 200})
    topics = producer.list_topics(timeout=60).topics
    for name, topic in topics.items():
        for partition in topic.partitions:
            for _ in range(RECORDS_PER_BATCH):
                producer.produce(
                    name, b"v" * RECORD_BYTES, partition=partition,
                    on_delivery=lambda error, _: failed.append(error) if error else None,
                )  # fmt: skip
            producer.poll(0)
    if producer.flush(TIMEOUT_S) or failed:
        raise SystemExit(f"records were not acknowledged: {failed[:3]}")


def metadata_s(broker: StreamLake) -> float:
    """Of all topics, as a client that just started asks for it."""
    client, times = admin(broker), []
    client.list_topics(timeout=60)
    for _ in range(METADATA_ROUNDS):
        started = time.perf_counter()
        client.list_topics(timeout=60)
        times.append(time.perf_counter() - started)
    return median(times)


def idle_cores(broker: StreamLake) -> float:
    """What it costs for good: what is done once after a start, or after the writes, is over before."""
    with console.status(f"settling for {SETTLE_S:.0f} s"):
        time.sleep(SETTLE_S)
    before, started = cpu_s(broker.pid), time.perf_counter()
    with console.status(f"idle for {IDLE_S:.0f} s"):
        time.sleep(IDLE_S)
    return (cpu_s(broker.pid) - before) / (time.perf_counter() - started)


def measure(broker: StreamLake, topics: int, partitions: int, report: Report) -> list[Life]:
    new_rss_bytes = rss_bytes(broker.pid)
    report.figure("memory, no partitions", new_rss_bytes / MIB, "MiB")
    lives = Lives(broker, partitions)
    started = time.perf_counter()
    with console.status(f"creating {partitions} partitions in {topics} topics"):
        create(broker, topics, partitions)
    wait_for_leaders(broker, partitions)
    report.figure("create all", time.perf_counter() - started, "s", topics=topics, partitions=partitions)
    report.figure("memory after create", rss_bytes(broker.pid) / MIB, "MiB")
    report.figure("memory a partition", (rss_bytes(broker.pid) - new_rss_bytes) / 1024 / partitions, "KiB")
    lives.again("empty, stopped", broker.stop)
    lives.again("empty, killed", broker.kill)
    report.figure("Metadata of all topics", metadata_s(broker) * 1000, "ms")
    report.figure("idle, empty", idle_cores(broker) * 100, "% of a core")
    started = time.perf_counter()
    with console.status("one batch into each partition"):
        write_everywhere(broker)
    report.figure("a batch into each", time.perf_counter() - started, "s", records=RECORDS_PER_BATCH)
    report.figure("memory after writes", rss_bytes(broker.pid) / MIB, "MiB")
    lives.again("written, killed", broker.kill)
    report.goal(
        f"idle with {partitions:,} written partitions", idle_cores(broker) * 100, GOAL_IDLE_PERCENT, "% of a core",
        better="lower",
    )  # fmt: skip
    lives.again("written, stopped", broker.stop)
    return lives.lives


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--partitions", type=int, default=10_000)
    parser.add_argument("--topics", type=int, default=200)
    parser.add_argument("--wal", choices=["file", "object"], default="file")
    arguments = parser.parse_args()
    report = Report("partitions" if arguments.wal == "file" else "partitions_object_wal")
    with (
        TemporaryDirectory() as directory,
        streamlake_broker(Path(directory), arguments.wal) as broker,
    ):
        lives = measure(broker, arguments.topics, arguments.partitions, report)
    for life in lives:
        report.figure(f"start, {life.name}", life.served_s, "s", ready_s=round(life.ready_s, 2), cpu_s=life.cpu_s)
        memory = round(life.peak_rss_bytes / MIB)
        report.figure(f"memory, {life.name}", life.rss_bytes / MIB, "MiB", peak_mib=memory)
    count = f"{arguments.partitions:,} partitions"
    report.goal(f"start with {count}", max(life.served_s for life in lives), GOAL_START_S, "s", better="lower")
    peak = max(life.peak_rss_bytes for life in lives)
    report.goal(f"memory with {count}", peak / MIB, GOAL_MEMORY_BYTES / MIB, "MiB", better="lower")
    report.write()
    names = [life.name for life in lives]
    plot_bars(report.name, f"Start with {count}", "s", names, {"served after": [life.served_s for life in lives]})


if __name__ == "__main__":
    main()
