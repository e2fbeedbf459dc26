"""What components offer."""

from streamlake.telemetry.metric import counter, gauge


def test_values_are_read_late() -> None:
    count = {"n": 1}
    metric = counter("streamlake_things", "Things.", lambda: count["n"])
    count["n"] = 2
    assert (metric.kind, metric.name, list(metric.read())) == ("counter", "streamlake_things", [(2, {})])
    assert gauge("streamlake_open", "Open.", lambda: 0.5).kind == "gauge"
