"""From produce to SELECT: how old a row is when a query of the newest snapshot first returns it.

    python bench/e2e.py [--seconds 30] [--rate 200] [--intervals-ms 1000] [--wals file object]

A real server with its table worker, records at a fixed rate from librdkafka in a process of its own, and DuckDB, which
looks for a newer snapshot again and again, as `streamlake sql` does for a person. A row waits for the rest of its
commit interval, half of it on average; what it waits beyond that is the cost of commit and query. The first rows also
wait until their table is made; a short run before, which starts the worker, is not counted.
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
WARM_UP_S = 3.0


def measure(wal: Wal, interval_ms: int, rate: float, seconds: float) -> Latencies:
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
            )
    return ages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--rate", type=float, default=200, help="records a second")
    parser.add_argument("--intervals-ms", type=int, nargs="+", default=[1_000])
    parser.add_argument("--wals", choices=["file", "object"], nargs="+", default=["file", "object"])
    arguments = parser.parse_args()
    report = Report("e2e")
    bars: dict[str, Latencies] = {}
    for wal in arguments.wals:
        for interval_ms in arguments.intervals_ms:
            ages = measure(wal, interval_ms, arguments.rate, arguments.seconds)
            bars[f"{wal} WAL, {interval_ms} ms"] = ages
            for name in ("p50_ms", "p99_ms", "max_ms"):
                value = getattr(ages, name)
                report.figure(
                    f"produce to SELECT, {name[:-3]}", value, "ms", wal=wal, interval_ms=interval_ms, rows=ages.count
                )
    report.write()
    series = {name: [getattr(ages, f"{name}_ms") for ages in bars.values()] for name in ("p50", "p99", "max")}
    plot_bars("e2e", "From produce to SELECT", "ms", list(bars), series)


if __name__ == "__main__":
    main()
