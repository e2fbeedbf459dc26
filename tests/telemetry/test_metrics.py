"""Plain integers in, Prometheus text out."""

from streamlake.telemetry.metric import Metric, gauge
from streamlake.telemetry.metrics import Metrics


def test_values_are_read_when_scraped() -> None:
    metrics = Metrics()
    count = {"n": 1}
    requests = Metric("counter", "streamlake_requests", "Requests.", lambda: [(count["n"], {"api": "produce"})])
    metrics.add([requests, gauge("streamlake_connections", "Open connections.", lambda: 7)])
    assert b'streamlake_requests_total{api="produce"' in metrics.render()
    count["n"] = 42
    text = metrics.render().decode()
    (line,) = [x for x in text.splitlines() if x.startswith("streamlake_requests_total{")]
    assert line.endswith(" 42.0")
    assert "# TYPE streamlake_connections gauge" in text
    metrics.close()


def test_two_meters_do_not_share_a_registry() -> None:
    first, second = Metrics(), Metrics()
    first.add([gauge("streamlake_only_here", "One.", lambda: 1)])
    assert b"streamlake_only_here" not in second.render()
    first.close()
    second.close()
