"""Every metric has a stable name, and reads what the broker counts."""

import re
from types import SimpleNamespace
from uuid import UUID

import pytest

from streamlake.broker.metrics import Sources, export
from streamlake.s3stream.wal.port import LATENCY_BOUNDS_MS
from streamlake.server.connection import Counters
from streamlake.table.task.control import TableReport
from streamlake.telemetry.loop_lag import LoopLag
from streamlake.telemetry.metrics import Metrics

REPORT = TableReport(
    "orders", UUID(int=1), "db.orders", "running", rows=9, dead_letters=2, commits=4, lag=7, maintenance_failures=3
)

NAMES = set(
    """
streamlake_block_cache_hits_total streamlake_block_cache_misses_total streamlake_bytes_received_total
streamlake_bytes_sent_total streamlake_connections streamlake_connections_accepted_total
streamlake_connections_refused_total streamlake_group_members streamlake_group_members_expired_total streamlake_groups
streamlake_log_batches_appended_total streamlake_log_bytes_appended_total streamlake_log_bytes_fetched_total
streamlake_lease_renewals_failed_total
streamlake_lease_renewals_total streamlake_log_duplicates_total streamlake_log_offsets_expired_total streamlake_log_records_appended_total
streamlake_loop_lag_seconds_total streamlake_loop_lag_worst_seconds streamlake_metadata_commits_total
streamlake_metadata_writes_total streamlake_objects_deleted_total streamlake_offset_commits_total streamlake_partitions
streamlake_requests_failed_total streamlake_requests_malformed_total streamlake_requests_total
streamlake_store_requests_total streamlake_table_commits_total streamlake_table_conflicts_total
streamlake_table_dead_letters_total streamlake_table_lag streamlake_table_maintenance_failures_total
streamlake_table_rows_total streamlake_table_running streamlake_table_unreadable
streamlake_unuploaded_bytes streamlake_upload_bytes_total streamlake_upload_retries_total streamlake_uploads_total
streamlake_wal_bytes_total streamlake_wal_records_total streamlake_wal_sync_bucket_total
streamlake_wal_sync_milliseconds_total streamlake_wal_syncs_total streamlake_worker_starts_total
""".split()  # noqa: SIM905 - a list of 45 would be a page
)


class Logs(list):
    offsets_expired = 12
    counters = SimpleNamespace(batches_in=2, records_in=20, bytes_in=200, duplicates=4, bytes_out=100)


class Groups(list):
    member_count, expired_members = 3, 1


@pytest.fixture
def sources() -> Sources:
    counters = Counters()
    counters.requests = {"produce": 5, "fetch": 6}
    uploader = SimpleNamespace(uploads=1, upload_bytes=2, retries=3)
    blocks, gc = SimpleNamespace(hits=1, misses=2), SimpleNamespace(deleted_objects=3)
    appender = SimpleNamespace(unuploaded_bytes=77)
    return Sources(
        connections=counters,
        logs=Logs("ab"),
        streams=SimpleNamespace(uploader=uploader, blocks=blocks, gc=gc, appender=appender),
        wal=SimpleNamespace(
            appended_records=1,
            appended_bytes=2,
            uploads=6,
            latency_sum_ms=9.5,
            latency_buckets=[1] * (len(LATENCY_BOUNDS_MS) + 1),
        ),
        store=SimpleNamespace(puts=1, gets=2, lists=3, deletes=4),
        database=SimpleNamespace(commits=1, writes=2),
        membership=SimpleNamespace(renewals=3, failed_renewals=0),
        groups=Groups("ab"),
        offsets=SimpleNamespace(commits=8),
        worker=SimpleNamespace(reports=[REPORT], starts=2),
        loop_lag=LoopLag(),
    )


def render(metrics: Metrics) -> str:
    """Without the labels that the exporter adds to every line."""
    text = re.sub(r'otel_scope_\w+="[^"]*",?', "", metrics.render().decode())
    metrics.close()
    return text.replace(",}", "}").replace("{}", "")


@pytest.fixture
def text(sources: Sources) -> str:
    metrics = Metrics()
    export(metrics, sources)
    return render(metrics)


def test_names_are_stable(text: str) -> None:
    assert set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE)) == NAMES


@pytest.mark.parametrize(
    "line",
    [
        'streamlake_requests_total{api="produce"} 5.0',
        "streamlake_log_records_appended_total 20.0",
        "streamlake_groups 2.0",
        "streamlake_group_members 3.0",
        'streamlake_store_requests_total{kind="delete"} 4.0',
        'streamlake_table_rows_total{table="db.orders",topic="orders"} 9.0',
        'streamlake_table_lag{table="db.orders",topic="orders"} 7.0',
        'streamlake_table_running{table="db.orders",topic="orders"} 1.0',
        'streamlake_table_unreadable{table="db.orders",topic="orders"} 0.0',
        'streamlake_table_maintenance_failures_total{table="db.orders",topic="orders"} 3.0',
        f'streamlake_wal_sync_bucket_total{{le_ms="+Inf"}} {len(LATENCY_BOUNDS_MS) + 1}.0',
        f'streamlake_wal_sync_bucket_total{{le_ms="{LATENCY_BOUNDS_MS[0]:g}"}} 1.0',
    ],
)
def test_values(text: str, line: str) -> None:
    assert line in text.splitlines()


def test_every_metric_says_what_it_is(text: str) -> None:
    helps = dict(re.findall(r"^# HELP (\S+) (.*)$", text, re.MULTILINE))
    assert all(helps[name].endswith(".") or name == "streamlake_table_running" for name in NAMES)


def test_they_are_read_at_scrape_time(sources: Sources) -> None:
    metrics = Metrics()
    export(metrics, sources)
    sources.connections.requests["metadata"] = 1
    sources.connections.connections = 9
    rendered = render(metrics)
    assert 'streamlake_requests_total{api="metadata"} 1.0' in rendered
    assert "streamlake_connections 9.0" in rendered
