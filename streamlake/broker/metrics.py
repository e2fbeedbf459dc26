"""What a broker exports: each component offers what it counts (telemetry/metric.py); S3Stream's is gathered here."""

from collections.abc import Iterable, Iterator

from streamlake.broker.services import Services
from streamlake.broker.table_worker import TableWorker
from streamlake.s3stream.store.port import ObjectStore
from streamlake.s3stream.streams import Streams
from streamlake.s3stream.wal.file.flusher import LATENCY_BOUNDS_MS, Flusher
from streamlake.s3stream.wal.file.wal import FileWal
from streamlake.s3stream.wal.object.wal import ObjectWal
from streamlake.server.connection import Counters
from streamlake.telemetry.loop_lag import LoopLag
from streamlake.telemetry.metric import Component, Metric, Sample, counter, gauge


def metrics_of(services: Services, connections: Counters, worker: TableWorker, loop_lag: LoopLag) -> Iterator[Metric]:
    components: tuple[Component, ...] = (
        connections,
        services.logs,
        services.groups,
        services.offsets,
        services.database,
        services.membership,
        worker,
        loop_lag,
    )
    for component in components:
        yield from component.metrics()
    yield from _streams(services.streams)
    yield from _wal(services.wal)
    yield from _store(services.store)


def _streams(streams: Streams) -> Iterable[Metric]:
    uploader, reader, blocks, gc = streams.uploader, streams.reads.reader, streams.blocks, streams.gc
    return (
        gauge("streamlake_unuploaded_bytes", "Bytes of record batches not yet uploaded to objects.",
            lambda: streams.appender.unuploaded_bytes),
        counter("streamlake_uploads", "Stream-set objects uploaded and committed.", lambda: uploader.uploads),
        counter("streamlake_upload_bytes", "Bytes of stream-set objects uploaded and committed.",
            lambda: uploader.upload_bytes),
        counter("streamlake_upload_retries", "Retries of a failed step of an upload.", lambda: uploader.retries),
        counter("streamlake_uploads_abandoned", "Uploads abandoned because they took too long, and restarted.",
            lambda: uploader.abandoned_uploads),
        counter("streamlake_damaged_reads", "Reads of objects whose content was corrupt.",
            lambda: reader.damaged_reads),
        counter("streamlake_block_cache_hits", "Blocks and indexes found in the block cache.", lambda: blocks.hits),
        counter("streamlake_block_cache_misses", "Blocks and indexes not found in the block cache.",
            lambda: blocks.misses),
        gauge("streamlake_catch_up_rate_bytes",
            "Bytes per second that reads from objects may take while producers are active.",
            lambda: streams.pace.rate),
        counter("streamlake_catch_up_wait_seconds",
            "Total time that reads from objects were throttled in favour of producers.",
            lambda: streams.pace.waited_s),
        counter("streamlake_objects_deleted", "Objects deleted by garbage collection.", lambda: gc.deleted_objects),
        counter("streamlake_gc_failures", "Rounds of garbage collection that failed and will be retried.",
            lambda: gc.failed_rounds),
    )  # fmt: skip


def _wal(wal: FileWal | ObjectWal) -> Iterable[Metric]:
    writes = wal.flusher if isinstance(wal, FileWal) else wal
    return (
        counter("streamlake_wal_records", "Records appended to the write-ahead log, each one or more record batches.",
            lambda: wal.appended_records),
        counter("streamlake_wal_bytes", "Bytes of record batches appended to the write-ahead log.",
            lambda: wal.appended_bytes),
        counter("streamlake_wal_syncs",
            "Writes that made records durable: syncs of a file WAL, uploads of an object WAL.",
            lambda: writes.syncs if isinstance(writes, Flusher) else writes.uploads),
        counter("streamlake_wal_sync_milliseconds", "Total duration of WAL syncs (or uploads), in milliseconds.",
            lambda: writes.latency_sum_ms),
        Metric("counter", "streamlake_wal_sync_bucket", "WAL syncs (or uploads) that took at most le_ms milliseconds.",
            lambda: _buckets(writes.latency_buckets)),
    )  # fmt: skip


def _store(store: ObjectStore) -> Iterable[Metric]:
    kinds = ("puts", "gets", "lists", "deletes")

    def requests() -> list[Sample]:
        return [(getattr(store, kind), {"kind": kind.removesuffix("s")}) for kind in kinds]

    return (Metric("counter", "streamlake_store_requests", "Requests to the object store, by kind.", requests),)


def _buckets(latency_buckets: list[int]) -> list[Sample]:
    bounds = [f"{bound:g}" for bound in LATENCY_BOUNDS_MS] + ["+Inf"]
    total = 0
    samples: list[Sample] = []
    for bound, count in zip(bounds, latency_buckets, strict=True):
        total += count
        samples.append((total, {"le_ms": bound}))
    return samples
