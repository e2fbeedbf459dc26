"""Fetch: what consumers at the tail and consumers that catch up read, and what the latter cost producers.

    python bench/fetch.py [--seconds 10] [--rounds 3] [--latency-rounds 9] [--gb 1] [--no-kafka] [--before CHECKOUT]

Tail: the broker still has the records in its log cache. Catch-up: they lie in objects only, and the broker has just
started; the operating system's page cache may have the objects. Each is read by librdkafka, and by a raw client that
looks at batch headers only, so that the broker is the limit. Apache Kafka reads all from the page cache. Behind an
object WAL the objects come from a store on this machine: what a client gets that only downloads them is the limit.
"""

import argparse
import asyncio
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from brokers import Broker, StreamLake, apache_kafka, streamlake_broker
from obstore.store import S3Store
from report import Report, median, plot_bars, take_turns

from streamlake.bench.load import (
    Latencies,
    Throughput,
    fetch_throughput,
    produce_latency,
    produce_throughput,
    temporary_topic,
    values,
)
from streamlake.bench.process import Child, Tell, in_child
from streamlake.bench.raw import fetch_requests

RECORD_BYTES = 1000
TAIL_RECORDS = 100_000  # fewer bytes than the log cache has
LATENCY_RATE = 5_000  # records a second
WARM_UP_S = 2.0
LOAD_TIMEOUT_S = 120
UPLOAD_TIMEOUT_S = 120
GOAL_RATIO = 1.5
LARGE_OBJECT_BYTES = 1 << 20  # those with records
DOWNLOADS = 4  # at once
CONFIG = {"storage": {"upload_interval_s": 1, "gc_interval_s": 5, "gc_grace_s": 5}, "tables": {"enabled": False}}

READERS = ("librdkafka", "raw")


def fill(broker: Broker, topic: str, records: int) -> int:
    """How many there are at the end."""
    sent = in_child(
        produce_throughput, LOAD_TIMEOUT_S, None,
        bootstrap=broker.bootstrap, topic=topic, ring=values(RECORD_BYTES), seconds=float("inf"), records=records,
    )  # fmt: skip
    return int(sent.records)


def read(broker: Broker, topic: str, records: int, reader: str) -> Throughput:
    common: dict[str, Any] = {"bootstrap": broker.bootstrap, "topic": topic, "records": records}
    if reader == "raw":
        return in_child(fetch_requests, LOAD_TIMEOUT_S, None, **common)
    return in_child(fetch_throughput, LOAD_TIMEOUT_S, None, **common, partitions=1, record_bytes=RECORD_BYTES)


def tail(broker: Broker, reader: str) -> Throughput:
    with temporary_topic(broker.bootstrap) as topic:
        return read(broker, topic, fill(broker, topic, TAIL_RECORDS), reader)


def catch_up(broker: Broker, topic: str, records: int, reader: str) -> Throughput:
    if isinstance(broker, StreamLake):
        broker.stop()
        broker.start()
    return read(broker, topic, records, reader)


def wait_for_upload(broker: StreamLake) -> None:
    deadline = time.monotonic() + UPLOAD_TIMEOUT_S
    while _unuploaded_bytes(broker):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{broker.name} did not upload all within {UPLOAD_TIMEOUT_S} s:\n{broker.log[-2000:]}")
        time.sleep(0.1)


def _unuploaded_bytes(broker: StreamLake) -> float:
    with urllib.request.urlopen(f"{broker.http}/metrics", timeout=10) as response:
        for line in response.read().decode().splitlines():
            if line.startswith("streamlake_unuploaded_bytes "):
                return float(line.split()[1])
    raise RuntimeError(f"{broker.http}/metrics does not tell unuploaded bytes")


def latency(broker: Broker, seconds: float) -> Latencies:
    with temporary_topic(broker.bootstrap) as topic:
        return in_child(
            produce_latency, LOAD_TIMEOUT_S, None,
            bootstrap=broker.bootstrap, topic=topic, rate=LATENCY_RATE, record_bytes=RECORD_BYTES, seconds=seconds,
            warm_up_s=WARM_UP_S,
        )  # fmt: skip


def latency_beside_reader(
    broker: Broker, topic: str, records: int, seconds: float, read_mb_per_s: list[float]
) -> Latencies:
    reader = Child(
        fetch_throughput,
        bootstrap=broker.bootstrap, topic=topic, partitions=1, records=records, record_bytes=RECORD_BYTES,
        at_least_s=WARM_UP_S + seconds + 1,
    )  # fmt: skip
    with reader:
        taken = latency(broker, seconds)
        if reader.is_done():
            raise RuntimeError("the reader ended before the latency was measured")
        read_mb_per_s.append(reader.result(LOAD_TIMEOUT_S).mb_per_s)
    return taken


def throughput(
    brokers: list[Broker], topics: dict[str, tuple[str, int]], rounds: int, report: Report
) -> dict[str, list[float | None]]:
    bars: dict[str, list[float | None]] = {b.name: [] for b in brokers}
    for reader in READERS:
        for what in ("tail", "catch-up"):
            runs = {
                b.name: partial(tail, b, reader) if what == "tail" else partial(catch_up, b, *topics[b.name], reader)
                for b in brokers
            }
            found = take_turns(rounds, runs)
            for name, reached in found.items():
                mb_per_s = median([r.mb_per_s for r in reached])
                bars[name].append(mb_per_s)
                report.figure(
                    f"{what}, {reader}", mb_per_s, "MB/s", broker=name,
                    load_cpu_s=round(median([r.cpu_s for r in reached]), 2),
                    requests=round(median([r.requests for r in reached])),
                    rounds=[round(r.mb_per_s, 1) for r in reached],
                )  # fmt: skip
    return bars


def store_alone(broker: StreamLake, rounds: int, report: Report) -> None:
    """A client that downloads the broker's objects, a few at once, and does nothing with them."""
    assert broker.bucket is not None
    runs = {broker.name: partial(in_child, download, LOAD_TIMEOUT_S, None, bucket=broker.bucket.client)}
    for name, mb_per_s in take_turns(rounds, runs).items():
        report.figure("objects downloaded without a broker", median(mb_per_s), "MB/s", broker=name,
                      rounds=[round(m, 1) for m in mb_per_s])  # fmt: skip


def download(bucket: Mapping[str, Any], tell: Tell) -> float:
    """MB/s. Its progress is not told: it takes a moment."""
    return asyncio.run(_download(S3Store(**bucket)))


async def _download(store: S3Store) -> float:
    paths = [meta["path"] for chunk in store.list() for meta in chunk if meta["size"] >= LARGE_OBJECT_BYTES]
    at_once = asyncio.Semaphore(DOWNLOADS)

    async def size_bytes(path: str) -> int:
        async with at_once:
            return len(await (await store.get_async(path)).bytes_async())

    began = time.monotonic()
    sizes = await asyncio.gather(*map(size_bytes, paths))
    return sum(sizes) / 1e6 / (time.monotonic() - began)


def beside_catch_up(
    broker: Broker, topic: tuple[str, int], seconds: float, rounds: int, report: Report, is_goal: bool
) -> None:
    read_mb_per_s: list[float] = []
    runs = {
        "alone": partial(latency, broker, seconds),
        "beside a catch-up reader": partial(latency_beside_reader, broker, *topic, seconds, read_mb_per_s),
    }
    found = take_turns(rounds, runs)
    for what, taken in found.items():
        facts = {"read_mb_per_s": round(median(read_mb_per_s), 1)} if what != "alone" else {}
        report.figure(
            f"produce at {LATENCY_RATE * RECORD_BYTES / 1e6:g} MB/s {what}, {broker.name}",
            median([t.p99_ms for t in taken]), "ms, p99",
            p50_ms=round(median([t.p50_ms for t in taken]), 3), p999_ms=round(median([t.p999_ms for t in taken]), 3),
            rounds_p99_ms=[round(t.p99_ms, 2) for t in taken], **facts,
        )  # fmt: skip
    alone, beside = (median([t.p99_ms for t in taken]) for taken in found.values())
    what = f"a catch-up reader moves produce p99, {broker.name}"
    if is_goal:
        report.goal(what, beside / alone, GOAL_RATIO, "x", "lower")
    else:
        report.figure(what, beside / alone, "x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement of latency")
    parser.add_argument("--rounds", type=int, default=3, help="of throughput")
    parser.add_argument(
        "--latency-rounds", type=int, default=9, help="more, as a p99 differs by three times from round to round"
    )
    parser.add_argument("--gb", type=float, default=1, help="what there is to catch up; more than the caches hold")
    parser.add_argument("--no-kafka", action="store_true", help="leave Apache Kafka out")
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="another checkout to measure in turns")
    parser.add_argument("--directory", help="for the brokers' data; on the disk that is to be measured, no tmpfs")
    given = parser.parse_args()
    report = Report("fetch")
    with tempfile.TemporaryDirectory(dir=given.directory) as directory, ExitStack() as stack:
        place = Path(directory)
        checkouts = {"now": None} if given.before is None else {"now": None, "before": given.before}
        brokers: list[Broker] = [
            stack.enter_context(streamlake_broker(place / f"{wal}-{when}", wal, CONFIG, before=checkout))
            for wal in ("file", "object")
            for when, checkout in checkouts.items()
        ]
        kafka = None if given.no_kafka else stack.enter_context(apache_kafka(place / "kafka"))
        brokers += [kafka] if kafka else []
        topics = {}
        for broker in brokers:
            topic = stack.enter_context(temporary_topic(broker.bootstrap))
            topics[broker.name] = topic, fill(broker, topic, int(given.gb * 1e9 / RECORD_BYTES))
            if isinstance(broker, StreamLake):
                wait_for_upload(broker)
        bars = throughput(brokers, topics, given.rounds, report)
        for broker in brokers:
            if isinstance(broker, StreamLake) and broker.bucket is not None:
                store_alone(broker, given.rounds, report)
        groups = [f"{what}, {reader}" for reader in READERS for what in ("tail", "catch-up")]
        plot_bars("fetch", f"Fetch of records of {RECORD_BYTES:,} B", "MB/s", groups, bars)
        for broker in brokers:
            is_ours = isinstance(broker, StreamLake)
            beside_catch_up(broker, topics[broker.name], given.seconds, given.latency_rounds, report, is_ours)
    report.write()


if __name__ == "__main__":
    main()
