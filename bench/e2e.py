"""From produce to SELECT: how old a row is when a query of the newest snapshot first returns it.

    python bench/e2e.py [--seconds 30] [--rate 200] [--intervals-ms 1000] [--wals file object]
    python bench/e2e.py --attached [--seconds 30] [--rate 1000] [--wals file]

A real server with its table worker, records at a fixed rate from librdkafka in a process of its own, and DuckDB, which
looks for a newer snapshot again and again, as `streamlake sql` does for a person. A row waits for the rest of its
commit interval, half of it on average; what it waits beyond that is the cost of commit and query. The first rows also
wait until their table is made; a short run before, which starts the worker, is not counted.

With --attached DuckDB reads through the server's Iceberg REST catalog instead, which commits what is durable before it
answers: the commit interval is then so long that no other commit happens.
"""

import argparse
import tempfile
from contextlib import ExitStack
from pathlib import Path

from brokers import Wal, streamlake_broker
from report import Report, plot_bars
from rich.progress import Progress

from streamlake.bench.load import Latencies
from streamlake.cli.bench_table import produce_to_select

RECORD_BYTES = 512
ATTACHED_RATE, ATTACHED_INTERVAL_MS = 1_000, 600_000
ATTACHED_P50_MS_MAX, ATTACHED_P99_MS_MAX = 300, 2_000
WARM_UP_S = 3.0


def measure(wal: Wal, interval_ms: int, rate: float, seconds: float, attached: bool) -> Latencies:
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        broker = stack.enter_context(streamlake_broker(Path(directory), wal))
        progress = stack.enter_context(Progress(transient=True))
        name = f"{wal} WAL, commits every {interval_ms} ms"
        for title, run_s in ((f"{name}, warming up", WARM_UP_S), (name, seconds)):
            task = progress.add_task(title, total=rate * run_s)
            ages = produce_to_select(
                broker.bootstrap,
                broker.http,
                rate,
                run_s,
                RECORD_BYTES,
                interval_ms,
                lambda rows, task=task: progress.update(task, completed=rows),
                attached,
            )
    return ages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--rate", type=float, help="records a second")
    parser.add_argument("--intervals-ms", type=int, nargs="+", default=[1_000])
    parser.add_argument("--wals", choices=["file", "object"], nargs="+")
    parser.add_argument("--attached", action="store_true", help="read through the Iceberg REST catalog")
    arguments = parser.parse_args()
    attached = arguments.attached
    report = Report("e2e_attached" if attached else "e2e")
    rate = arguments.rate or (ATTACHED_RATE if attached else 200)
    bars: dict[str, Latencies] = {}
    for wal in arguments.wals or (["file"] if attached else ["file", "object"]):
        for interval_ms in [ATTACHED_INTERVAL_MS] if attached else arguments.intervals_ms:
            ages = measure(wal, interval_ms, rate, arguments.seconds, attached)
            bars[f"{wal} WAL, {interval_ms} ms"] = ages
            for name in ("p50_ms", "p99_ms", "max_ms"):
                value = getattr(ages, name)
                report.figure(
                    f"produce to SELECT, {name[:-3]}",
                    value,
                    "ms",
                    wal=wal,
                    interval_ms=interval_ms,
                    rate=rate,
                    rows=ages.count,
                )
            if attached:
                report.goal(f"{wal} WAL, produce to SELECT, p50", ages.p50_ms, ATTACHED_P50_MS_MAX, "ms", "lower")
                report.goal(f"{wal} WAL, produce to SELECT, p99", ages.p99_ms, ATTACHED_P99_MS_MAX, "ms", "lower")
    report.write()
    series = {name: [getattr(ages, f"{name}_ms") for ages in bars.values()] for name in ("p50", "p99", "max")}
    plot_bars(report.name, "From produce to SELECT", "ms", list(bars), series)


if __name__ == "__main__":
    main()
