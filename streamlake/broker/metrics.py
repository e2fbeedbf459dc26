"""Which of the broker's plain integers are exported, and under which names (docs/adr/0004). Read at scrape time only.

Names are stable: dashboards are built on them. Counters end in `_total` in Prometheus' text.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from streamlake.broker.table_worker import TableWorker
from streamlake.cluster.store.database import Database
from streamlake.cluster.store.membership import Membership
from streamlake.coordinator.offsets import Offsets
from streamlake.coordinator.shell import Groups
from streamlake.log.manager import LogManager
from streamlake.s3stream.store.port import ObjectStore
from streamlake.s3stream.streams import Streams
from streamlake.s3stream.wal.file.flusher import Flusher
from streamlake.s3stream.wal.file.wal import FileWal
from streamlake.s3stream.wal.object.wal import ObjectWal
from streamlake.s3stream.wal.port import LATENCY_BOUNDS_MS
from streamlake.server.connection import Counters
from streamlake.table.task.control import TableReport
from streamlake.telemetry.loop_lag import LoopLag
from streamlake.telemetry.metrics import Metrics, Sample

Read = Callable[[], Iterable[Sample]]


@dataclass(frozen=True, slots=True)
class Sources:
    connections: Counters
    logs: LogManager
    streams: Streams
    wal: FileWal | ObjectWal
    store: ObjectStore
    database: Database
    membership: Membership
    groups: Groups
    offsets: Offsets
    worker: TableWorker
    loop_lag: LoopLag


def export(metrics: Metrics, sources: Sources) -> None:
    _export_wire(metrics, sources)
    _export_log(metrics, sources)
    _export_storage(metrics, sources)
    _export_tables(metrics, sources.worker)


def _export_wire(metrics: Metrics, sources: Sources) -> None:
    wire = sources.connections
    requests = "streamlake_requests"
    metrics.counter(requests, "Requests by API.", lambda: [(n, {"api": api}) for api, n in list(wire.requests.items())])
    metrics.gauge("streamlake_connections", "Open Kafka connections.", _one(lambda: wire.connections))
    counters = {
        "connections_accepted": ("Connections accepted.", lambda: wire.connections_accepted),
        "connections_refused": ("Connections over server.connections_max.", lambda: wire.connections_refused),
        "requests_malformed": ("Connections closed for bytes that are not Kafka.", lambda: wire.malformed),
        "requests_failed": ("Requests that failed unexpectedly.", lambda: wire.failures),
        "bytes_received": ("Bytes from Kafka clients.", lambda: wire.bytes_in),
        "bytes_sent": ("Bytes to Kafka clients.", lambda: wire.bytes_out),
        "loop_lag_seconds": ("Sum of the event loop's lateness.", lambda: sources.loop_lag.seconds),
    }
    _counters(metrics, counters)
    worst = "Worst lateness of the event loop since the last scrape."
    metrics.gauge("streamlake_loop_lag_worst_seconds", worst, _one(sources.loop_lag.take_worst_s))


def _export_log(metrics: Metrics, sources: Sources) -> None:
    logs, log, groups = sources.logs, sources.logs.counters, sources.groups
    counters = {
        "log_batches_appended": ("Record batches appended.", lambda: log.batches_in),
        "log_records_appended": ("Records appended.", lambda: log.records_in),
        "log_bytes_appended": ("Bytes appended.", lambda: log.bytes_in),
        "log_duplicates": ("Batches of idempotent producers sent again.", lambda: log.duplicates),
        "log_bytes_fetched": ("Bytes read by consumers.", lambda: log.bytes_out),
        "log_offsets_expired": ("Offsets that retention let go.", lambda: logs.offsets_expired),
        "offset_commits": ("OffsetCommit requests that became durable.", lambda: sources.offsets.commits),
        "log_retention_failures": ("Partitions that retention will try again.", lambda: logs.retention_failures),
        "log_producers_expired": ("Idempotent producers forgotten for silence.", lambda: logs.producers_expired),
        "offset_commits_failed": ("OffsetCommit requests that failed.", lambda: sources.offsets.failed_commits),
        "group_saves_failed": ("Generations that could not be stored.", lambda: groups.failed_saves),
        "group_joins_refused": ("Joins refused because the coordinator is full.", lambda: groups.refused_joins),
        "group_members_expired": ("Members that missed their session timeout.", lambda: groups.expired_members),
    }
    _counters(metrics, counters)
    metrics.gauge("streamlake_partitions", "Open partitions.", _one(lambda: len(logs)))
    metrics.gauge("streamlake_groups", "Consumer groups.", _one(lambda: len(groups)))
    metrics.gauge("streamlake_group_members", "Members of consumer groups.", _one(lambda: groups.member_count))


def _export_storage(metrics: Metrics, sources: Sources) -> None:
    wal, store, streams, membership = sources.wal, sources.store, sources.streams, sources.membership
    writes = wal.flusher if isinstance(wal, FileWal) else wal
    counters = {
        "wal_records": ("Records written to the write-ahead log.", lambda: wal.appended_records),
        "wal_bytes": ("Bytes written to the write-ahead log.", lambda: wal.appended_bytes),
        "wal_syncs": ("Syncs of a file WAL, uploads of an object WAL.", lambda: _writes(writes)),
        "wal_sync_milliseconds": ("Time in them.", lambda: writes.latency_sum_ms),
        "lease_renewals": ("Renewals of the broker's lease.", lambda: membership.renewals),
        "lease_renewals_failed": ("Renewals that failed.", lambda: membership.failed_renewals),
        "uploads": ("Stream-set objects committed.", lambda: streams.uploader.uploads),
        "upload_bytes": ("Bytes in committed stream-set objects.", lambda: streams.uploader.upload_bytes),
        "upload_retries": ("Uploads tried again.", lambda: streams.uploader.retries),
        "damaged_reads": ("Reads of objects that are not what was stored.", lambda: streams.reads.reader.damaged_reads),
        "block_cache_hits": ("Blocks found in the cache.", lambda: streams.blocks.hits),
        "block_cache_misses": ("Blocks read from the store.", lambda: streams.blocks.misses),
        "catch_up_wait_seconds": (
            "Time that reads from objects waited so that producers did not.",
            lambda: streams.read_throttle.waited_s,
        ),
        "uploads_abandoned": ("Uploads that took too long and began anew.", lambda: streams.uploader.abandoned_uploads),
        "gc_failures": ("Rounds of garbage collection that failed.", lambda: streams.gc.failed_rounds),
        "metadata_commits_failed": ("Transactions that failed.", lambda: sources.database.failed_groups),
        "objects_deleted": ("Objects that garbage collection deleted.", lambda: streams.gc.deleted_objects),
        "metadata_commits": ("Transactions of the metadata store.", lambda: sources.database.commits),
        "metadata_writes": ("Writes that shared them.", lambda: sources.database.writes),
    }
    _counters(metrics, counters)
    pending = "Bytes that are not in objects yet."
    metrics.gauge("streamlake_unuploaded_bytes", pending, _one(lambda: streams.appender.unuploaded_bytes))
    rate = "Bytes a second that readers may take from objects while there are producers."
    metrics.gauge("streamlake_catch_up_rate_bytes", rate, _one(lambda: streams.read_throttle.rate))
    kinds = ("puts", "gets", "lists", "deletes")
    metrics.counter(
        "streamlake_store_requests",
        "Requests to the object store by kind.",
        lambda: [(getattr(store, kind), {"kind": kind.removesuffix("s")}) for kind in kinds],
    )
    metrics.counter(
        "streamlake_wal_sync_bucket", "Syncs by latency, cumulative.", lambda: _buckets(writes.latency_buckets)
    )


def _export_tables(metrics: Metrics, worker: TableWorker) -> None:
    def of_each(read: Callable[[TableReport], float]) -> Read:
        return lambda: [(read(report), {"topic": report.topic, "table": report.table}) for report in worker.reports]

    dead = "Records that became dead letters."
    metrics.counter("streamlake_table_rows", "Rows committed.", of_each(lambda r: r.rows))
    metrics.counter("streamlake_table_dead_letters", dead, of_each(lambda r: r.dead_letters))
    metrics.counter("streamlake_table_commits", "Snapshots committed by this worker.", of_each(lambda r: r.commits))
    metrics.counter("streamlake_table_conflicts", "Commits that somebody overtook.", of_each(lambda r: r.conflicts))
    metrics.gauge("streamlake_table_lag", "Log positions not in the table yet.", of_each(lambda r: r.lag))
    running = "1 if the table is being written, 0 if it waits or has failed."
    metrics.gauge("streamlake_table_running", running, of_each(lambda r: float(r.state == "running")))
    unreadable = "1 if files that the table needs are gone: nothing is committed on top."
    metrics.gauge("streamlake_table_unreadable", unreadable, of_each(lambda r: float(r.state == "unreadable")))
    failures = "Failures of the table's maintenance: merging manifests, removing files of no use."
    metrics.counter("streamlake_table_maintenance_failures", failures, of_each(lambda r: r.maintenance_failures))
    metrics.counter("streamlake_worker_starts", "Starts of the table worker.", _one(lambda: worker.starts))


def _counters(metrics: Metrics, counters: Mapping[str, tuple[str, Callable[[], float]]]) -> None:
    for name, (text, read) in counters.items():
        metrics.counter(f"streamlake_{name}", text, _one(read))


def _one(read: Callable[[], float]) -> Read:
    return lambda: [(read(), {})]


def _writes(writer: Flusher | ObjectWal) -> int:
    return writer.syncs if isinstance(writer, Flusher) else writer.uploads


def _buckets(latency_buckets: list[int]) -> list[Sample]:
    bounds = [f"{bound:g}" for bound in LATENCY_BOUNDS_MS] + ["+Inf"]
    total = 0
    samples: list[Sample] = []
    for bound, count in zip(bounds, latency_buckets, strict=True):
        total += count
        samples.append((total, {"le_ms": bound}))
    return samples
