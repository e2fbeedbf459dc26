"""Metrics: components count with plain integers; they are read only when somebody scrapes.

An OpenTelemetry instrument costs 6-7 microseconds a call, a plain int 0.06 (measured; docs/adr/0004). So nothing
on a request path calls OpenTelemetry: an observable callback reads the integers at scrape time.
"""

from collections.abc import Callable, Iterable

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry, generate_latest

from streamlake.telemetry.metric import Metric, Sample


class Metrics:
    """The process's meter. `render()` is the Prometheus text format, version 0.0.4."""

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self) -> None:
        # Without `disable_target_info` every scrape carries the SDK's own description of the process.
        self._registry = CollectorRegistry()
        reader = PrometheusMetricReader(disable_target_info=True, scope_info_enabled=False, registry=self._registry)
        self._provider = MeterProvider(metric_readers=[reader])
        self._meter = self._provider.get_meter("streamlake")

    def add(self, metrics: Iterable[Metric]) -> None:
        """Export these too."""
        for metric in metrics:
            meter = self._meter
            create = meter.create_observable_counter if metric.kind == "counter" else meter.create_observable_gauge
            create(metric.name, [_callback(metric.read)], "", metric.help)

    def render(self) -> bytes:
        return generate_latest(self._registry)

    def close(self) -> None:
        self._provider.shutdown()


def _callback(read: Callable[[], Iterable[Sample]]) -> Callable[[CallbackOptions], Iterable[Observation]]:
    return lambda _options: [Observation(value, dict(labels)) for value, labels in read()]
