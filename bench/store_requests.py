"""What storage costs in requests: PUT, GET, LIST and DELETE for each GiB that is produced, read and put into a table.

    python bench/store_requests.py [--gib 1]

Records of 1 KB go through a StreamLake on SeaweedFS, with a consumer at the tail of the log; when all of them lie in
objects, the broker is started anew and a consumer reads everything again from objects. SeaweedFS counts what arrives,
by bucket (lake, and warehouse for the table); the broker's own counters stand beside it, and must say the same.

Requests of an object WAL depend on the rate: a batch is closed when it is full, or when nothing is under way.

The case `commits` makes small commits to a table in a bucket, through a proxy that counts their requests, by our FileIO
and by PyIceberg's own.
"""

import argparse
import asyncio
import re
import time
import urllib.request
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from brokers import Bucket, Config, StreamLake, Wal, merged, seaweedfs_bucket, streamlake_broker
from commits import Lane, TimedExecutor
from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from report import Report, console, plot_bars
from support.apache_kafka import free_ports
from support.fault_proxy import FaultProxy
from support.postgres import Postgres
from support.seaweedfs import SeaweedFS

from streamlake.catalogs.config import CatalogConfig
from streamlake.catalogs.kinds import load

GIB = 1 << 30
MB = 1_000_000
RECORD_BYTES = 1_000
RECORDS_PER_PACE = 500
TOPIC = "requests"
GOAL_PUTS, GOAL_GETS = 150, 50  # a GiB
GOAL_COMMIT_PUTS = 4  # data file, manifest, manifest list, metadata file
COMMITS = 40  # the merging of manifests after fifty is a commit of its own
COMMIT_ROWS = 200
COMMITS_CASE = "commits"
FILE_IOS = {"our FileIO": {}, "PyIceberg's FileIO": {"py-io-impl": "pyiceberg.io.pyarrow.PyArrowFileIO"}}
PUT_CLASS = ("put", "create", "multipart_start", "multipart_part", "multipart_complete")
TIMEOUT_S = 900.0
KINDS = ("PUT", "GET", "LIST", "DELETE")
# As a bill counts them: the steps of a multipart upload are PUTs, a HEAD is a GET.
KIND_OF = {"PUT": "PUT", "POST": "PUT", "GET": "GET", "HEAD": "GET", "LIST": "LIST", "DELETE": "DELETE"}


class MeteredSeaweedFS(SeaweedFS):
    """Counts its S3 requests."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        (self._metrics_port,) = free_ports(1)

    def _flags(self) -> list[str]:
        return [*super()._flags(), f"-metricsPort={self._metrics_port}"]

    def requests(self, bucket: str) -> Counter[str]:
        text = scrape(f"http://127.0.0.1:{self._metrics_port}")
        pattern = rf'^SeaweedFS_s3_request_total{{bucket="{bucket}",code="\d+",type="(\w+)"}} (\S+)$'
        found: Counter[str] = Counter()
        for kind, count in re.findall(pattern, text, re.MULTILINE):
            found[KIND_OF[kind]] += int(float(count))
        return found


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    wal: Wal
    rate_mb_s: float  # 0: as fast as it goes
    partitions: int = 1
    table: bool = False


CASES = (
    Case("file WAL", "file", 0),
    Case("file WAL, 100 partitions", "file", 0, partitions=100),
    Case("object WAL", "object", 0),
    Case("object WAL, 40 MB/s", "object", 40),
    Case("object WAL, 10 MB/s", "object", 10),
    Case("file WAL, table", "file", 0, table=True),
    Case("object WAL, 40 MB/s, table", "object", 40, table=True),
)


@dataclass(slots=True)
class Place:
    """A broker, its buckets and all counters."""

    broker: StreamLake
    store: MeteredSeaweedFS
    lake: str
    warehouse: str | None

    def counts(self) -> dict[str, Counter[str]]:
        counts = {"lake": self.store.requests(self.lake)}
        if self.warehouse:
            counts["warehouse"] = self.store.requests(self.warehouse)
        metrics = scrape(self.broker.http)
        own = re.findall(r'^streamlake_store_requests_total{kind="(\w+)"} (\S+)$', metrics, re.MULTILINE)
        counts["broker"] = Counter({kind.upper(): int(float(count)) for kind, count in own})
        counts["broker"]["wal_objects"] = int(metric(metrics, "streamlake_wal_syncs_total"))
        counts["broker"]["objects"] = int(metric(metrics, "streamlake_uploads_total"))
        commits = re.findall(r"^streamlake_table_commits_total{.*} (\S+)$", metrics, re.MULTILINE)
        counts["broker"]["commits"] = int(sum(map(float, commits)))
        return counts

    def since(self, before: Mapping[str, Counter[str]]) -> dict[str, Counter[str]]:
        """What came since `before`; nothing is forgotten that is zero now."""
        now = self.counts()
        return {place: Counter({k: now[place][k] - before[place][k] for k in now[place]}) for place in now}

    def wait_until_uploaded(self) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while metric(scrape(self.broker.http), "streamlake_unuploaded_bytes") > 0:
            if time.monotonic() > deadline:
                raise SystemExit(f"not everything was uploaded after {TIMEOUT_S:.0f} s: see {self.broker.data_dir}")
            time.sleep(0.5)


def scrape(address: str) -> str:
    with urllib.request.urlopen(f"{address}/metrics", timeout=30) as response:
        text: str = response.read().decode()
    return text


def metric(text: str, name: str) -> float:
    found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
    if found is None:
        raise KeyError(f"the broker exports no {name}")
    return float(found[1])


# -- load: in processes of their own -------------------------------------------------------------------------------


def produce(bootstrap: str, partitions: int, records: int, rate_mb_s: float) -> float:
    """Seconds until all records are acknowledged."""
    config = {"bootstrap.servers": bootstrap, "linger.ms": 5, "queue.buffering.max.messages": 200_000, "log_level": 0}
    failed: list[object] = []
    producer = Producer(config | {"on_delivery": lambda error, _: failed.append(error) if error else None})
    value = bytes(range(250)) * (RECORD_BYTES // 250)
    started = time.perf_counter()
    for at in range(records):
        while True:
            try:
                producer.produce(TOPIC, value, partition=at // RECORDS_PER_PACE % partitions)
                break
            except BufferError:
                producer.poll(0.05)
        if at % RECORDS_PER_PACE == 0:
            producer.poll(0)
            if rate_mb_s:
                due = started + at * RECORD_BYTES / (rate_mb_s * MB)
                time.sleep(max(0.0, due - time.perf_counter()))
    if producer.flush(TIMEOUT_S) or failed:
        raise RuntimeError(f"records were not acknowledged: {failed[:3]}")
    return time.perf_counter() - started


def consume(bootstrap: str, partitions: int, records: int) -> float:
    """Seconds until all records, from the first on, are read."""
    from confluent_kafka import TopicPartition

    # Behind a rate limit nothing comes for a while; a batch of records waits in the client, as its defaults say.
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "none", "enable.auto.commit": False})
    consumer.assign([TopicPartition(TOPIC, index, 0) for index in range(partitions)])
    started, seen = time.perf_counter(), 0
    while seen < records:
        if time.perf_counter() - started > TIMEOUT_S:
            raise RuntimeError(f"{seen} of {records} records read after {TIMEOUT_S:.0f} s")
        for message in consumer.consume(10_000, 0.5):
            if message.error():
                raise KafkaException(message.error())
            seen += 1
    seconds = time.perf_counter() - started
    consumer.close()
    return seconds


# -- cases ---------------------------------------------------------------------------------------------------------


def create(broker: StreamLake, case: Case) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    config = {"streamlake.table.enable": "true"} if case.table else {}
    for created in admin.create_topics([NewTopic(TOPIC, case.partitions, 1, config=config)]).values():
        created.result(60)


def run(case: Case, records: int, report: Report) -> dict[str, float]:
    """PUTs and GETs a GiB: while producing with a reader at the tail, and of a reader that catches up."""
    gib = records * RECORD_BYTES / GIB
    with ExitStack() as stack:
        place = start(case, stack)
        loads = stack.enter_context(ProcessPoolExecutor(2, mp_context=get_context("spawn")))
        create(place.broker, case)
        before = place.counts()
        bootstrap = place.broker.bootstrap
        tail: Future[float] = loads.submit(consume, bootstrap, case.partitions, records)
        seconds = loads.submit(produce, bootstrap, case.partitions, records, case.rate_mb_s).result(TIMEOUT_S)
        tail.result(TIMEOUT_S)
        if case.table:
            place.broker.wait_for_table(TOPIC, records)
        place.wait_until_uploaded()
        produced = place.since(before)
        place.broker.stop()
        place.broker.start()  # nothing is in a cache
        before = place.counts()
        caught_up_s = loads.submit(consume, bootstrap, case.partitions, records).result(TIMEOUT_S)
        caught_up = place.since(before)
    load = {"mb_s": round(records * RECORD_BYTES / seconds / MB)}
    tell(report, f"{case.name}: produce, read at the tail", produced, gib, load, case)
    load = {"mb_s": round(records * RECORD_BYTES / caught_up_s / MB)}
    tell(report, f"{case.name}: catch up", caught_up, gib, load, case)
    both = produced["lake"] + produced.get("warehouse", Counter())
    return {"PUT": both["PUT"] / gib, "GET": both["GET"] / gib, "catch-up GET": caught_up["lake"]["GET"] / gib}


def start(case: Case, stack: ExitStack) -> Place:
    directory = Path(stack.enter_context(TemporaryDirectory()))
    bucket: Bucket = stack.enter_context(seaweedfs_bucket(directory / "seaweedfs", MeteredSeaweedFS))
    warehouse = None
    config: Config = {"tables": {"enabled": case.table}}
    if case.table:
        postgres = stack.enter_context(Postgres())
        warehouse = bucket.store.bucket()
        metadata = {"storage": {"metadata_url": postgres.url(postgres.database())}}
        config = merged(config, metadata, {"tables": {"warehouse": f"s3://{warehouse}/tables"}})
    broker = stack.enter_context(streamlake_broker(directory, case.wal, config, bucket))
    assert isinstance(bucket.store, MeteredSeaweedFS)
    return Place(broker, bucket.store, bucket.name, warehouse)


def tell(
    report: Report, name: str, counts: Mapping[str, Counter[str]], gib: float, load: Mapping[str, int], case: Case
) -> None:
    """A line for each kind of request, with what the broker says it sent them for."""
    own, lake = counts["broker"], counts["lake"]
    for kind in KINDS:
        if not lake[kind]:
            continue
        facts: dict[str, Any] = dict(load)
        if kind == "PUT":
            facts["objects"] = round(own["objects"] / gib)
            if case.wal == "object":
                facts["wal"] = round(own["wal_objects"] / gib)
        if own[kind] != lake[kind]:
            facts["broker_counted"] = own[kind] / gib
        report.figure(name, lake[kind] / gib, f"{kind}/GiB", **facts)
    for kind, count in counts.get("warehouse", Counter()).items():
        if count and own["commits"]:
            commits = {"commits": own["commits"], "a_commit": round(count / own["commits"], 1)}
            report.figure(f"{name}, warehouse", count / gib, f"{kind}/GiB", **commits)


# -- commits -------------------------------------------------------------------------------------------------------


async def commit_requests(report: Report) -> None:
    """Requests of a small commit to a table in a bucket, by our FileIO and by PyIceberg's."""
    for name, chosen in FILE_IOS.items():
        found = await requests_of_commits(chosen)
        kinds = {kind: count / COMMITS for kind, count in sorted(found.items())}
        report.figure(f"a commit, {name}", sum(kinds.values()), "requests", **kinds)
        if not chosen:
            puts = sum(kinds.get(kind, 0) for kind in PUT_CLASS)
            report.goal("PUT requests of a commit", puts, GOAL_COMMIT_PUTS, "a commit", better="lower")


async def requests_of_commits(chosen: Mapping[str, str]) -> Counter[str]:
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory()))
        store = stack.enter_context(SeaweedFS(directory / "seaweedfs"))
        bucket = store.bucket()
        proxy = stack.enter_context(FaultProxy(store.s3_endpoint, bucket))
        access = {"s3.access-key-id": store.access_key, "s3.secret-access-key": store.secret_key}
        place = {"s3.endpoint": proxy.endpoint, "s3.region": store.region, "warehouse": f"s3://{bucket}"}
        properties = {"uri": f"sqlite:///{directory}/catalog.db", **place, **access, **chosen}
        executor = TimedExecutor()
        lane = Lane("commits", executor, load(CatalogConfig("sql", "lake", properties)), COMMIT_ROWS)
        await lane.open()
        before = Counter(proxy.requests)
        for _ in range(COMMITS):
            await lane.commit()
        executor.close()
        return proxy.requests - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--gib",
        type=float,
        default=1.0,
        help="produced in each case; below 1 the first object, read piece by piece, weighs much",
    )
    names = [*(case.name for case in CASES), COMMITS_CASE]
    parser.add_argument("--case", action="append", choices=names, help="only these")
    arguments = parser.parse_args()
    records = int(arguments.gib * GIB / RECORD_BYTES)
    report = Report("store_requests")
    cases = [case for case in CASES if not arguments.case or case.name in arguments.case]
    if not arguments.case or COMMITS_CASE in arguments.case:
        asyncio.run(commit_requests(report))
    results: dict[str, dict[str, float]] = {}
    for case in cases:
        with console.status(f"{case.name}: {arguments.gib:g} GiB"):
            results[case.name] = run(case, records, report)
    for name, result in results.items():
        report.goal(f"{name}: PUT", result["PUT"], GOAL_PUTS, "a GiB", better="lower")
        report.goal(f"{name}: GET", result["GET"], GOAL_GETS, "a GiB", better="lower")
        report.goal(
            f"{name}: GET of a reader that catches up", result["catch-up GET"], GOAL_GETS, "a GiB", better="lower"
        )
    report.write()
    if not results:
        return
    series = {kind: [result[kind] for result in results.values()] for kind in ("PUT", "GET", "catch-up GET")}
    plot_bars(report.name, "Requests to the store", "requests a GiB", list(results), series)


if __name__ == "__main__":
    main()
