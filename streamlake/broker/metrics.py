"""What a broker exports: each component offers what it counts (telemetry/metric.py)."""

from collections.abc import Iterator

from streamlake.broker.services import Services
from streamlake.broker.table_worker import TableWorker
from streamlake.s3stream.store.port import store_metrics
from streamlake.s3stream.wal.port import wal_metrics
from streamlake.server.connection import Counters
from streamlake.telemetry.loop_lag import LoopLag
from streamlake.telemetry.metric import Component, Metric


def metrics_of(services: Services, connections: Counters, worker: TableWorker, loop_lag: LoopLag) -> Iterator[Metric]:
    components: tuple[Component, ...] = (
        connections,
        services.connection_memory,
        services.logs,
        services.streams,
        services.slots,
        services.groups,
        services.offsets,
        services.transactions,
        services.markers,
        services.database,
        services.membership,
        services.pokes,
        worker,
        loop_lag,
    )
    for component in components:
        yield from component.metrics()
    yield from wal_metrics(services.wal)
    yield from store_metrics(services.store)
