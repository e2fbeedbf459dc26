"""Produce: MB/s and requests/s by batch size, for each WAL and beside Apache Kafka, in one run.

    python bench/produce.py [--seconds 3] [--rounds 3] [--no-kafka] [--no-object] [--before CHECKOUT]

All brokers run at once and are measured in turns. Batches of a fixed size come as ready-made requests over plain
sockets (streamlake/bench/raw.py), so that the broker is the limit; a client's default batches come from librdkafka.
Kafka without a flush per batch promises less than the others: its records are lost with the machine.

A server that has just started is measured too, its first second apart from what follows. `--before` measures another
checkout in the same turns: what a change has gained or cost.
"""

import argparse
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from brokers import Broker, apache_kafka, streamlake_broker
from report import Report, median, plot_lines, take_turns

from streamlake.bench.load import Throughput, produce_throughput, temporary_topic, values
from streamlake.bench.process import cpu_s, in_child
from streamlake.bench.raw import produce_requests

RECORD_BYTES = (100, 1000)
IN_FLIGHT = {1: 64, 10: 64, 100: 16, 1000: 5}  # by records of a batch, on each connection; 5 is what clients do
CONNECTIONS = 4
FEW_IN_FLIGHT = ((16, 5), (64, 1))  # connections, requests on each
LOAD_TIMEOUT_S = 120
MEASUREMENT_BYTES = 1 << 30  # at most, for the sake of the disk
GOAL_MB_PER_S = 300
GOAL_REQUESTS_PER_CORE_S = 30_000
# Deleted topics leave the disk soon.
CONFIG = {"storage": {"gc_interval_s": 5, "gc_grace_s": 5}, "tables": {"enabled": False}}


@dataclass(frozen=True, slots=True)
class Reached:
    load: Throughput
    broker_cpu_s: float

    @property
    def requests_per_core_s(self) -> float:
        return self.load.requests / self.broker_cpu_s


def measure(broker: Broker, partitions: int, load: Any, **arguments: Any) -> Reached:
    with temporary_topic(broker.bootstrap, partitions) as topic:
        before_s = cpu_s(broker.pid)
        reached = in_child(load, LOAD_TIMEOUT_S, None, bootstrap=broker.bootstrap, topic=topic, **arguments)
        return Reached(reached, cpu_s(broker.pid) - before_s)


def fixed_batches(brokers: list[Broker], seconds: float, rounds: int, report: Report) -> None:
    ours = brokers[0].name
    for record_bytes in RECORD_BYTES:
        mb_per_s: dict[str, list[tuple[float, float]]] = {b.name: [] for b in brokers}
        requests_per_s: dict[str, list[tuple[float, float]]] = {b.name: [] for b in brokers}
        for batch_records, in_flight in IN_FLIGHT.items():
            arguments = {
                "record_bytes": record_bytes, "batch_records": batch_records, "in_flight": in_flight,
                "seconds": seconds, "records": MEASUREMENT_BYTES // record_bytes,
            }  # fmt: skip
            runs = {b.name: partial(measure, b, CONNECTIONS, produce_requests, **arguments) for b in brokers}
            found = take_turns(rounds, runs)
            record(report, f"batches of {batch_records:,} x {record_bytes:,} B", found)
            for name, reached in found.items():
                mb_per_s[name].append((batch_records, median([r.load.mb_per_s for r in reached])))
                requests_per_s[name].append((batch_records, median([r.load.requests_per_s for r in reached])))
            if (batch_records, record_bytes) == (1, 100):
                per_core = median([r.requests_per_core_s for r in found[ours]])
                report.goal(f"single-record requests, {ours}", per_core, GOAL_REQUESTS_PER_CORE_S, "requests/core s")
        for unit, series in (("MB/s", mb_per_s), ("requests/s", requests_per_s)):
            name = f"produce_{record_bytes}_bytes_{unit.lower().replace('/', '_per_')}"
            title = f"Produce records of {record_bytes:,} B"
            plot_lines(name, title, "records of a batch", unit, series, log_x=True, log_y=True)


def few_in_flight(brokers: list[Broker], seconds: float, rounds: int, report: Report) -> None:
    """Single records again, from more connections with less under way on each: fewer requests come together."""
    for connections, in_flight in FEW_IN_FLIGHT:
        arguments = {"record_bytes": 100, "batch_records": 1, "in_flight": in_flight, "seconds": seconds}
        runs = {b.name: partial(measure, b, connections, produce_requests, **arguments) for b in brokers}
        what = f"single records of 100 B, {connections} connections with {in_flight} in flight"
        record(report, what, take_turns(rounds, runs))


def fresh_servers(place: Path, before: Path | None, seconds: float, rounds: int, report: Report) -> None:
    """Servers that have just started, with new files: their first second, and what follows."""
    numbers = count()

    def run(checkout: Path | None) -> Reached:
        with streamlake_broker(place / f"fresh-{next(numbers)}", "file", CONFIG, before=checkout) as broker:
            arguments = {"record_bytes": 1000, "batch_records": 1000, "in_flight": 5, "seconds": seconds}
            return measure(broker, CONNECTIONS, produce_requests, **arguments)

    runs = {"StreamLake, file WAL": partial(run, None)}
    if before is not None:
        runs["StreamLake, file WAL, before"] = partial(run, before)
    for name, reached in take_turns(rounds, runs).items():
        loads = [r.load for r in reached]
        first, later = [load.first_bytes / 1e6 for load in loads], [load.later_mb_per_s for load in loads]
        report.figure("a fresh server, batches of 1,000 x 1,000 B: first second", median(first), "MB/s",
                      broker=name, later_mb_per_s=round(median(later)), rounds=[round(f) for f in first])  # fmt: skip


def default_batches(brokers: list[Broker], seconds: float, rounds: int, report: Report) -> None:
    arguments = {"ring": values(1000), "seconds": seconds, "records": MEASUREMENT_BYTES // 1000}
    runs = {b.name: partial(measure, b, 1, produce_throughput, **arguments) for b in brokers}
    take_turns(1, {f"warm-up of {name}": run for name, run in runs.items()})
    found = take_turns(rounds, runs)
    what, ours = "librdkafka's default batches of 1,000 B", brokers[0].name
    record(report, what, found)
    report.goal(f"{what}, {ours}", median([r.load.mb_per_s for r in found[ours]]), GOAL_MB_PER_S, "MB/s")


def record(report: Report, what: str, found: dict[str, list[Reached]]) -> None:
    """One figure for each broker, with its ratio to each Apache Kafka, and to what was before, of the same rounds."""
    mb_per_s = {name: median([r.load.mb_per_s for r in reached]) for name, reached in found.items()}
    for name, reached in found.items():
        others = [n for n in found if n.startswith("Apache") and not name.startswith("Apache")]
        others += [n for n in found if n == f"{name}, before"]
        report.figure(
            what, mb_per_s[name], "MB/s",
            broker=name,
            requests_per_s=round(median([r.load.requests_per_s for r in reached])),
            requests_per_core_s=round(median([r.requests_per_core_s for r in reached])),
            mb_per_core_s=round(median([r.load.bytes / 1e6 / r.broker_cpu_s for r in reached]), 1),
            load_cpu_s=round(median([r.load.cpu_s for r in reached]), 2),
            rounds=[round(r.load.mb_per_s, 2) for r in reached],
            **{f"ratio to {other}": round(mb_per_s[name] / mb_per_s[other], 2) for other in others},
        )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-kafka", action="store_true", help="leave Apache Kafka out")
    parser.add_argument("--no-object", action="store_true", help="leave the object WAL out")
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="another checkout to measure in turns")
    parser.add_argument("--directory", help="for the brokers' data; on the disk that is to be measured, no tmpfs")
    given = parser.parse_args()
    report = Report("produce")
    with tempfile.TemporaryDirectory(dir=given.directory) as directory, ExitStack() as stack:
        place = Path(directory)
        brokers: list[Broker] = [stack.enter_context(streamlake_broker(place / "file", "file", CONFIG))]
        if given.before is not None:
            before = streamlake_broker(place / "before", "file", CONFIG, before=given.before)
            brokers.append(stack.enter_context(before))
        if not given.no_object:
            brokers.append(stack.enter_context(streamlake_broker(place / "object", "object", CONFIG)))
        for flush in () if given.no_kafka else (True, False):
            kafka = stack.enter_context(apache_kafka(place / f"kafka-{flush}", flush_each_batch=flush))
            if kafka is not None:
                brokers.append(kafka)
        default_batches(brokers, given.seconds, given.rounds, report)
        fixed_batches(brokers, given.seconds, given.rounds, report)
        few_in_flight(brokers, given.seconds, given.rounds, report)
        fresh_servers(place, given.before, given.seconds, given.rounds, report)
    report.write()


if __name__ == "__main__":
    main()
