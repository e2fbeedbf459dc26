"""Every metric has a stable name, reads what the broker counts, and is on the page docs/guides/metrics.md."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest
from support.pages import code, rows

from streamlake import config
from streamlake.broker.machine import RealMachine
from streamlake.broker.metrics import metrics_of
from streamlake.broker.services import Services
from streamlake.broker.table_worker import TableWorker
from streamlake.server.connection import Counters
from streamlake.table.task.control import TableReport, WorkerSettings
from streamlake.telemetry.loop_lag import LoopLag
from streamlake.telemetry.metrics import Metrics

REPORT = TableReport(
    "orders", UUID(int=1), "db.orders", "running", rows=9, dead_letters=2, commits=4, lag=7, maintenance_failures=3
)


SETTINGS = WorkerSettings("127.0.0.1", 1, 0, "http://127.0.0.1:2", "c", 1, 1, "info", False, {}, "")


class ReportedOnce(TableWorker):
    """Its process never ran, and reported a table all the same."""

    reports = (REPORT,)


@dataclass
class Site:
    """The real services of a broker, and what counts beside them."""

    services: Services
    connections: Counters
    worker: TableWorker

    def metrics(self) -> Metrics:
        metrics = Metrics()
        metrics.add(metrics_of(self.services, self.connections, self.worker, LoopLag()))
        return metrics

    def render(self) -> str:
        metrics = self.metrics()
        text = metrics.render().decode()
        metrics.close()
        return text


@pytest.fixture(params=["file", "object"])
async def site(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    """With either WAL."""
    storage = {"data_dir": tmp_path, "wal": request.param, "wal_capacity_bytes": 1 << 20, "wal_segment_bytes": 1 << 16}
    loaded = config.load(None, {}, {"storage": storage})
    machine = RealMachine(loaded.s3)
    failures: list[BaseException] = []
    services = Services(loaded, machine, failures.append)
    await services.start("127.0.0.1", 9092)
    worker = ReportedOnce(
        SETTINGS, services.topics, services.configs, services.progress, services.logs, machine.clock, machine.ids, None
    )
    site = Site(services, Counters(), worker)
    site.connections.requests = {"produce": 5, "fetch": 6}
    worker.starts = 2
    yield site
    await services.stop()
    machine.close()
    assert not failures


async def test_the_page_lists_every_metric_as_it_is_exported(site: Site) -> None:
    """Name, type, labels and meaning. What differs is to be changed on the page, or, for a name, not at all: dashboards
    are built on it."""
    text = site.render()
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    helps = dict(re.findall(r"^# HELP (\S+) (.*)$", text, re.MULTILINE))
    labels = {name: set(re.findall(r'(\w+)="', row)) for name, row in re.findall(r"^(\w+)(.*)$", text, re.MULTILINE)}
    exported = {name: (types[name], labels[name], helps[name]) for name in types}
    on_page = [row for row in rows("metrics.md") if "metric" in row]
    written = {
        code(row["metric"]): (row["type"], set(re.findall(r"`(\w+)`", row["labels"])), row["meaning"])
        for row in on_page
    }
    assert len(written) == len(on_page), "a metric is on the page twice"
    assert written == exported
    assert all(text.endswith(".") for text in helps.values())


async def test_values(site: Site) -> None:
    site.services.logs.counters.count(batches=2, records=20, size_bytes=200)
    site.services.logs.offsets_expired = 12
    site.services.store.deletes = 4
    lines = site.render().splitlines()
    assert 'streamlake_requests_total{api="produce"} 5.0' in lines
    assert "streamlake_log_records_appended_total 20.0" in lines
    assert "streamlake_log_offsets_expired_total 12.0" in lines
    assert "streamlake_groups 0.0" in lines
    assert 'streamlake_store_requests_total{kind="delete"} 4.0' in lines
    assert "streamlake_worker_starts_total 2.0" in lines


async def test_the_latencies_of_both_wals_are_cumulative(site: Site) -> None:
    for latency_ms in (0.1, 3, 5000):
        site.services.wal.writes.add(latency_ms)
    lines = site.render().splitlines()
    for bound, count in (("0.1", 1), ("2.5", 1), ("5", 2), ("+Inf", 3)):
        assert f'streamlake_wal_sync_bucket_total{{le_ms="{bound}"}} {count}.0' in lines
    assert "streamlake_wal_syncs_total 3.0" in lines
    assert "streamlake_wal_sync_milliseconds_total 5003.1" in lines


async def test_tables(site: Site) -> None:
    lines = site.render().splitlines()
    values = {"rows_total": 9, "lag": 7, "running": 1, "unreadable": 0, "maintenance_failures_total": 3}
    for name, value in values.items():
        assert f'streamlake_table_{name}{{table="db.orders",topic="orders"}} {value:.1f}' in lines


async def test_they_are_read_at_scrape_time(site: Site) -> None:
    metrics = site.metrics()
    site.connections.requests["metadata"] = 1
    site.connections.connections = 9
    rendered = metrics.render().decode()
    metrics.close()
    assert 'streamlake_requests_total{api="metadata"} 1.0' in rendered
    assert "streamlake_connections 9.0" in rendered
