"""Produce latency at fixed rates, beside what the disk or the store itself takes for the same bytes in the same run.

    python bench/latency.py [--seconds 10] [--rounds 3] [--wals file object] [--no-kafka]

Open loop on both sides: records are due in ticks of a millisecond, and latency counts from then. The disk's own is the
best that a group commit could do: all that is due is written and fdatasynced, again and again, in a process of its own.
The store's own is PUTs of the size that the object WAL's objects had in this run. What the client and the operating
system add is seen in Apache Kafka without a flush, which waits for no disk.
"""

import argparse
import os
import tempfile
import time
import urllib.request
from array import array
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import obstore
from brokers import Broker, Bucket, StreamLake, apache_kafka, seaweedfs_bucket, streamlake_broker
from obstore.store import S3Store
from report import Report, median, plot_lines, take_turns

from streamlake.bench.load import Latencies, Progress, arrivals, produce_latency, temporary_topic
from streamlake.bench.process import Tell, in_child
from streamlake.s3stream.wal.object.settings import ObjectWalSettings

RECORD_BYTES = 1000
RATES_MB_PER_S = (1, 5, 20)
GOAL_RATE_MB_PER_S = 20
WARM_UP_S = 2.0
LOAD_TIMEOUT_S = 120
FILE_BYTES = 256 << 20  # zeroed before and written in a ring, as the WAL's recycled segments are
PUTS = 20
# Of the client. Whoever waits for a PUT does not mind librdkafka's default, and saves the broker small requests.
CLIENT_LINGER_MS = {"file": 0, "object": 5}
WAL_LINGER_MS = ObjectWalSettings().linger_ms
CONFIG = {"tables": {"enabled": False}}


def raw_disk(directory: str, *, rate: float, seconds: float, tell: Tell) -> tuple[Latencies, Latencies]:
    """What a record waits for, and what each write with its fdatasync takes."""
    path = Path(directory, "raw")
    records_s, syncs_s = array("d"), array("d")
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        _zero(fd)
        data, at, waiting = memoryview(bytes(8 << 20)), 0, []
        schedule, started = arrivals(rate, WARM_UP_S + seconds), time.perf_counter()
        measured_from, progress = started + WARM_UP_S, Progress(tell)
        following = next(schedule, None)
        while following or waiting:
            now = time.perf_counter()
            while following and started + following[0] <= now:
                waiting.append((started + following[0], following[1]))
                following = next(schedule, None)
            if not waiting:
                assert following is not None
                time.sleep(max(0, started + following[0] - time.perf_counter()))
                continue
            size = min(RECORD_BYTES * sum(count for _, count in waiting), len(data))
            at = at if at + size <= FILE_BYTES else 0
            began = time.perf_counter()
            os.pwrite(fd, data[:size], at)
            os.fdatasync(fd)
            ended = time.perf_counter()
            at += size
            if began >= measured_from:
                syncs_s.append(ended - began)
            for due, count in waiting:
                records_s.extend([ended - due] * count if due >= measured_from else [])
            waiting.clear()
            progress.at(len(records_s), ended)
    finally:
        os.close(fd)
        path.unlink()
    return Latencies.of(records_s), Latencies.of(syncs_s)


def _zero(fd: int) -> None:
    zeros = bytes(1 << 20)
    for at in range(0, FILE_BYTES, len(zeros)):
        os.pwrite(fd, zeros, at)
    os.fsync(fd)


def raw_puts(bucket: Bucket, size_bytes: int) -> Latencies:
    store = S3Store(**bucket.client)
    data, taken_s = os.urandom(size_bytes), array("d")
    for n in range(PUTS):
        started = time.perf_counter()
        obstore.put(store, f"raw/{n}", data)
        taken_s.append(time.perf_counter() - started)
    return Latencies.of(taken_s)


def produce(broker: Broker, rate: float, seconds: float, linger_ms: int) -> Latencies:
    with temporary_topic(broker.bootstrap) as topic:
        return in_child(
            produce_latency, LOAD_TIMEOUT_S, None,
            bootstrap=broker.bootstrap, topic=topic, rate=rate, record_bytes=RECORD_BYTES, seconds=seconds,
            warm_up_s=WARM_UP_S, settings={"linger.ms": linger_ms},
        )  # fmt: skip


def wal_counters(broker: StreamLake) -> tuple[float, float]:
    """Bytes written to the WAL, and in how many syncs or objects."""
    with urllib.request.urlopen(f"{broker.http}/metrics", timeout=10) as response:
        lines = dict(line.rsplit(" ", 1) for line in response.read().decode().splitlines() if line[:1] != "#")
    return float(lines["streamlake_wal_bytes_total"]), float(lines["streamlake_wal_syncs_total"])


def of_rounds(found: list[Latencies], what: str) -> float:
    return median([getattr(latencies, what) for latencies in found])


def record(report: Report, name: str, found: list[Latencies], **facts: Any) -> None:
    report.figure(
        name, of_rounds(found, "p99_ms"), "ms, p99",
        p50_ms=round(of_rounds(found, "p50_ms"), 3), p999_ms=round(of_rounds(found, "p999_ms"), 3),
        worst_ms=round(max(f.max_ms for f in found), 3), count=sum(f.count for f in found),
        rounds_p99_ms=[round(f.p99_ms, 3) for f in found], **facts,
    )  # fmt: skip


def file_wal(place: Path, seconds: float, rounds: int, report: Report, with_kafka: bool) -> None:
    points: dict[str, list[tuple[float, float]]] = {}
    linger_ms = CLIENT_LINGER_MS["file"]
    with ExitStack() as stack:
        broker = stack.enter_context(streamlake_broker(place / "file", "file", CONFIG))
        kafka = stack.enter_context(apache_kafka(place / "kafka", flush_each_batch=False)) if with_kafka else None
        brokers: list[Broker] = [broker, kafka] if kafka is not None else [broker]
        for mb_per_s in RATES_MB_PER_S:
            rate = mb_per_s * 1e6 / RECORD_BYTES
            raw: Callable[[], Any] = partial(
                in_child, raw_disk, LOAD_TIMEOUT_S, None, directory=str(place), rate=rate, seconds=seconds
            )
            loads = {b.name: partial(produce, b, rate, seconds, linger_ms) for b in brokers}
            found = take_turns(rounds, {"disk": raw, **loads})
            waits, syncs = ([pair[n] for pair in found["disk"]] for n in (0, 1))
            at = f"at {mb_per_s} MB/s"
            record(report, f"the disk alone {at}: a record", waits)
            record(report, f"the disk alone {at}: a write and fdatasync", syncs)
            for name in loads:
                record(report, f"{name} {at}", found[name], client_linger_ms=linger_ms)
            for what in ("p50_ms", "p99_ms"):
                ours, disk = of_rounds(found[broker.name], what), of_rounds(waits, what)
                report.figure(f"{broker.name} {at}: {what[:3]} / the disk's", ours / disk, "x")
                for name in loads:
                    points.setdefault(f"{name}, {what[:3]}", []).append((mb_per_s, of_rounds(found[name], what)))
                points.setdefault(f"the disk alone, {what[:3]}", []).append((mb_per_s, disk))
            if mb_per_s == GOAL_RATE_MB_PER_S:
                limit_ms = 1.5 * of_rounds(waits, "p99_ms") + 1
                ours = of_rounds(found[broker.name], "p99_ms")
                report.goal(f"{broker.name} {at}: p99 within 1.5 x the disk's + 1 ms", ours, limit_ms, "ms", "lower")
    plot_lines("latency_file", "Produce latency, file WAL", "MB/s", "ms", points, log_x=True, log_y=True)


def object_wal(place: Path, seconds: float, rounds: int, report: Report) -> None:
    points: dict[str, list[tuple[float, float]]] = {}
    with (
        seaweedfs_bucket(place / "seaweedfs") as bucket,
        streamlake_broker(place / "object", "object", CONFIG, bucket) as broker,
    ):
        for mb_per_s in RATES_MB_PER_S:
            rate = mb_per_s * 1e6 / RECORD_BYTES
            sizes: list[int] = []

            def ours(rate: float = rate, sizes: list[int] = sizes) -> Latencies:
                bytes_before, objects_before = wal_counters(broker)
                found = produce(broker, rate, seconds, CLIENT_LINGER_MS["object"])
                bytes_after, objects_after = wal_counters(broker)
                sizes.append(int((bytes_after - bytes_before) / (objects_after - objects_before)))
                return found

            def puts(sizes: list[int] = sizes) -> Latencies:
                return raw_puts(bucket, sizes[-1])

            found = take_turns(rounds, {broker.name: ours, "store": puts})
            at = f"at {mb_per_s} MB/s"
            record(report, f"the store alone {at}: a PUT", found["store"], size_bytes=int(median(sizes)))
            record(report, f"{broker.name} {at}", found[broker.name], client_linger_ms=CLIENT_LINGER_MS["object"])
            p50_ms, put_ms = of_rounds(found[broker.name], "p50_ms"), of_rounds(found["store"], "p50_ms")
            report.figure(f"{broker.name} {at}: p50 / a PUT's", p50_ms / put_ms, "x")
            limit_ms = WAL_LINGER_MS + 1.5 * put_ms
            report.goal(f"{broker.name} {at}: p50 within the linger + 1.5 x PUT", p50_ms, limit_ms, "ms", "lower")
            points.setdefault(f"{broker.name}, p50", []).append((mb_per_s, p50_ms))
            points.setdefault("a PUT, p50", []).append((mb_per_s, put_ms))
    plot_lines("latency_object", "Produce latency, object WAL", "MB/s", "ms", points, log_x=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--wals", nargs="+", choices=("file", "object"), default=("file", "object"))
    parser.add_argument("--no-kafka", action="store_true", help="leave Apache Kafka out")
    parser.add_argument("--directory", help="for the brokers' data; on the disk that is to be measured, no tmpfs")
    given = parser.parse_args()
    report = Report("latency")
    with tempfile.TemporaryDirectory(dir=given.directory) as directory:
        place = Path(directory)
        if "file" in given.wals:
            file_wal(place, given.seconds, given.rounds, report, not given.no_kafka)
        if "object" in given.wals:
            object_wal(place, given.seconds, given.rounds, report)
    report.write()


if __name__ == "__main__":
    main()
