"""Transactions: how many a second, how long their end takes, and what it costs to produce inside them.

    python bench/transactions.py [--seconds 5] [--rounds 3] [--producers 16] [--no-kafka] [--before CHECKOUT]

Each producer sends one record to each of ten partitions, waits until all are acknowledged, and commits: so what the
commit takes is one EndTxn, whose answer waits for no marker. Then one producer sends librdkafka's default batches,
with idempotence alone and in transactions of a second. Brokers are measured in turns in one run.
"""

import argparse
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

from brokers import Broker, apache_kafka, streamlake_broker
from confluent_kafka import Producer
from report import Report, median, take_turns

from streamlake.bench.load import Latencies, temporary_topic, values
from streamlake.bench.process import Tell, in_child

PARTITIONS = 10
RECORD_BYTES = 100
LARGE_RECORD_BYTES = 1000
WARM_UP_S = 1.0
TRANSACTION_S = 1.0  # of the producer of default batches
LOAD_TIMEOUT_S = 120
GOAL_PER_S, GOAL_END_P99_MS, GOAL_RATIO = 1000, 20, 0.9
CONFIG = {"tables": {"enabled": False}}


@dataclass(frozen=True, slots=True)
class Ended:
    per_s: float
    ends: Latencies


def transactions(bootstrap: str, topic: str, producers: int, seconds: float, tell: Tell) -> Ended:
    """Of all producers together, after a moment to get warm."""
    took: list[list[float]] = [[] for _ in range(producers)]
    failed: list[BaseException] = []
    began = time.perf_counter()

    def run(number: int) -> None:
        try:
            producer = Producer(
                {"bootstrap.servers": bootstrap, "transactional.id": f"{topic}-{number}", "linger.ms": 0}
            )
            producer.init_transactions(LOAD_TIMEOUT_S)
            while (now := time.perf_counter()) < began + WARM_UP_S + seconds:
                producer.begin_transaction()
                for index in range(PARTITIONS):
                    producer.produce(topic, bytes(RECORD_BYTES), partition=index)
                producer.flush(LOAD_TIMEOUT_S)
                ending = time.perf_counter()
                producer.commit_transaction(LOAD_TIMEOUT_S)
                if now >= began + WARM_UP_S:
                    took[number].append(time.perf_counter() - ending)
                tell(number)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(producers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return Ended(sum(map(len, took)) / seconds, Latencies.of([s for ends in took for s in ends]))


def default_batches(bootstrap: str, topic: str, seconds: float, transactional: bool, tell: Tell) -> float:
    """MB/s of acknowledged records."""
    settings: dict[str, Any] = {"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 5}
    if transactional:
        settings["transactional.id"] = topic
    producer = Producer(settings)
    if transactional:
        producer.init_transactions(LOAD_TIMEOUT_S)
    ring, sent, began = cycle(values(LARGE_RECORD_BYTES)), 0, time.perf_counter()
    while (now := time.perf_counter()) < began + seconds:
        if transactional:
            producer.begin_transaction()
        until = min(now + TRANSACTION_S, began + seconds)
        while time.perf_counter() < until:
            for _ in range(100):
                _enqueue(producer, topic, next(ring))
            sent += 100
            producer.poll(0)
        producer.flush(LOAD_TIMEOUT_S)
        if transactional:
            producer.commit_transaction(LOAD_TIMEOUT_S)
        tell(sent)
    return sent * LARGE_RECORD_BYTES / 1e6 / (time.perf_counter() - began)


def _enqueue(producer: Producer, topic: str, value: bytes) -> None:
    while True:
        try:
            return producer.produce(topic, value)
        except BufferError:
            producer.poll(0.01)


def measured(broker: Broker, partitions: int, load: Callable[..., Any], **arguments: Any) -> Any:
    with temporary_topic(broker.bootstrap, partitions) as topic:
        return in_child(load, LOAD_TIMEOUT_S, None, bootstrap=broker.bootstrap, topic=topic, **arguments)


def count_transactions(brokers: list[Broker], producers: int, seconds: float, rounds: int, report: Report) -> None:
    runs = {
        b.name: partial(measured, b, PARTITIONS, transactions, producers=producers, seconds=seconds) for b in brokers
    }
    for name, ended in take_turns(rounds, runs).items():
        per_s, p99_ms = median([e.per_s for e in ended]), median([e.ends.p99_ms for e in ended])
        report.figure(
            f"transactions of {PARTITIONS} partitions, {producers} producers", per_s, "a second",
            broker=name, rounds=[round(e.per_s) for e in ended],
        )  # fmt: skip
        report.figure(
            "EndTxn", p99_ms, "ms, p99",
            broker=name, p50_ms=round(median([e.ends.p50_ms for e in ended]), 2),
            rounds=[round(e.ends.p99_ms, 1) for e in ended],
        )  # fmt: skip
        if name == brokers[0].name:
            report.goal(f"transactions of {PARTITIONS} partitions", per_s, GOAL_PER_S, "a second")
            report.goal("EndTxn p99", p99_ms, GOAL_END_P99_MS, "ms", "lower")


def produce_inside(brokers: list[Broker], seconds: float, rounds: int, report: Report) -> None:
    for broker in brokers:
        runs = {
            what: partial(measured, broker, 1, default_batches, seconds=seconds, transactional=transactional)
            for what, transactional in (("idempotent", False), ("in transactions", True))
        }
        found = take_turns(rounds, runs)
        alone, inside = (median(mb_per_s) for mb_per_s in found.values())
        for what, mb_per_s in found.items():
            report.figure(f"default batches, {what}", median(mb_per_s), "MB/s", broker=broker.name,
                          rounds=[round(m) for m in mb_per_s])  # fmt: skip
        if broker is brokers[0]:
            report.goal("produce in transactions, relative to idempotent", inside / alone, GOAL_RATIO, "x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--producers", type=int, default=16, help="at once, each with its own transactional id")
    parser.add_argument("--no-kafka", action="store_true", help="leave Apache Kafka out")
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="another checkout to measure in turns")
    parser.add_argument("--directory", help="for the brokers' data; on the disk that is to be measured, no tmpfs")
    given = parser.parse_args()
    report = Report("transactions")
    with tempfile.TemporaryDirectory(dir=given.directory) as directory, ExitStack() as stack:
        place = Path(directory)
        brokers: list[Broker] = [stack.enter_context(streamlake_broker(place / "now", "file", CONFIG))]
        if given.before is not None:
            before = streamlake_broker(place / "before", "file", CONFIG, before=given.before)
            brokers.append(stack.enter_context(before))
        kafka = None if given.no_kafka else stack.enter_context(apache_kafka(place / "kafka"))
        brokers += [kafka] if kafka else []
        count_transactions(brokers, given.producers, given.seconds, given.rounds, report)
        produce_inside(brokers, given.seconds, given.rounds, report)
    report.write()


if __name__ == "__main__":
    main()
