"""`streamlake bench …`: how fast a Kafka-compatible address is, with native load from a process of its own.

Each command makes a topic of a random name, puts its load on it, deletes it and prints what was reached: a table, or
JSON. `produce` and `fetch` run against any broker; `table` and `e2e` measure Iceberg tables, which only StreamLake has.

On one machine broker and load share the cores: compare runs on the same machine only. The scripts in bench/ do.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from streamlake.bench.load import (
    ACK_TIMEOUT_S,
    Latencies,
    Throughput,
    fetch_throughput,
    produce_latency,
    produce_throughput,
    temporary_topic,
    values,
)
from streamlake.bench.process import broker_pid, cpu_s, in_child
from streamlake.cli import bench_table
from streamlake.cli.addresses import DEFAULT_BOOTSTRAP, DEFAULT_HTTP, Bootstrap, Http
from streamlake.cli.console import Usage, err, group, show

app = group("Measure a Kafka-compatible broker: produce, fetch, tables.")
SILENCE_S = 2 * ACK_TIMEOUT_S  # the load's own timeouts come first


class Client(StrEnum):
    LIBRDKAFKA = "librdkafka"
    RAW = "raw"


class Acks(StrEnum):
    NONE = "0"
    LEADER = "1"
    ALL = "all"


class Compression(StrEnum):
    NONE = "none"
    GZIP = "gzip"
    SNAPPY = "snappy"
    LZ4 = "lz4"
    ZSTD = "zstd"


Seconds = Annotated[float, typer.Option(help="How long to put load on.", min=0.1)]
RecordBytes = Annotated[int, typer.Option(help="Bytes of a record's value.", min=1)]
Partitions = Annotated[int, typer.Option("--partitions", "-p", help="Of the topic that is made.", min=1)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
ClientKind = Annotated[
    Client,
    typer.Option(help="raw: ready-made requests over plain sockets, so that the load costs next to nothing."),
]


@app.command("produce")
def produce(
    records: Annotated[int | None, typer.Option(help="Stop after so many records, before --seconds.", min=1)] = None,
    seconds: Seconds = 10,
    record_bytes: RecordBytes = 1000,
    rate: Annotated[
        float | None, typer.Option(help="Records a second. Measures latency instead of the most that goes.")
    ] = None,
    partitions: Partitions = 1,
    batch_records: Annotated[
        int | None, typer.Option(help="Most records of a batch. Left to librdkafka if not given; raw: 1.", min=1)
    ] = None,
    linger_ms: Annotated[
        float | None, typer.Option(help="How long to fill a batch. librdkafka's default; 0 with --rate.", min=0)
    ] = None,
    acks: Annotated[Acks, typer.Option(help="Which acknowledgement to wait for.")] = Acks.ALL,
    compression: Annotated[Compression, typer.Option(help="Of the batches.")] = Compression.NONE,
    client: ClientKind = Client.LIBRDKAFKA,
    in_flight: Annotated[int, typer.Option(help="raw: requests without an answer, on each connection.", min=1)] = 64,
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
    as_json: AsJson = False,
) -> None:
    """How many MB and requests a second go in; with --rate how long an acknowledgement takes (p50, p99, p99.9)."""
    if client is Client.RAW and (compression is not Compression.NONE or linger_ms is not None or rate is not None):
        raise Usage("--client raw sends ready-made batches: no --compression, --linger-ms or --rate")
    settings: dict[str, str | float] = {"acks": acks.value, "compression.codec": compression.value}
    if batch_records is not None:
        settings["batch.num.messages"] = batch_records
    if linger_ms is not None:
        settings["linger.ms"] = linger_ms
    with temporary_topic(bootstrap, partitions) as topic, _broker(bootstrap) as broker_cpu_s:
        common = {"bootstrap": bootstrap, "topic": topic, "seconds": seconds}
        if rate is not None:
            taken = _load(
                "produce at a fixed rate", int(rate * seconds), produce_latency,
                **common, rate=rate, record_bytes=record_bytes, settings=settings,
            )  # fmt: skip
            _print_latency("produce", bootstrap, rate, record_bytes, taken, as_json)
            return
        if client is Client.RAW:
            from streamlake.bench.raw import produce_requests

            reached = _load(
                "produce", records, produce_requests,
                **common, records=records, record_bytes=record_bytes, batch_records=batch_records or 1,
                in_flight=in_flight, acks={"0": 0, "1": 1, "all": -1}[acks],
            )  # fmt: skip
        else:
            ring = values(record_bytes)
            reached = _load(
                "produce", records, produce_throughput, **common, records=records, ring=ring, settings=settings
            )
        _print_throughput("produce", bootstrap, reached, broker_cpu_s(), as_json)


@app.command("fetch")
def fetch(
    records: Annotated[int, typer.Option(help="Records that are produced and then read.", min=2)] = 500_000,
    record_bytes: RecordBytes = 1000,
    seconds: Annotated[float, typer.Option(help="Read them over and over for so long; 0: once.", min=0)] = 0,
    partitions: Partitions = 1,
    client: ClientKind = Client.LIBRDKAFKA,
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
    as_json: AsJson = False,
) -> None:
    """How many MB a second come out: produces records, then reads them from the start.

    What the broker still has in its cache comes from there: choose --records for more than it holds to read its store.
    """
    with temporary_topic(bootstrap, partitions) as topic:
        common = {"bootstrap": bootstrap, "topic": topic}
        ring = values(record_bytes)
        sent = _load("produce", records, produce_throughput, **common, ring=ring, seconds=float("inf"), records=records)
        with _broker(bootstrap) as broker_cpu_s:
            if client is Client.RAW:
                from streamlake.bench.raw import fetch_requests

                reached = _load("fetch", records, fetch_requests, **common, records=sent.records, at_least_s=seconds)
            else:
                reached = _load(
                    "fetch", records, fetch_throughput,
                    **common, partitions=partitions, records=sent.records, record_bytes=record_bytes,
                    at_least_s=seconds,
                )  # fmt: skip
            _print_throughput("fetch", bootstrap, reached, broker_cpu_s(), as_json)


@app.command("table")
def table(
    records: Annotated[int, typer.Option(help="Records that become rows.", min=1)] = 500_000,
    partitions: Partitions = 1,
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
    http: Http = DEFAULT_HTTP,
    as_json: AsJson = False,
) -> None:
    """How fast a topic becomes an Iceberg table: rows and MiB a second of Avro records of 16 mixed fields, 512 bytes.

    The topic is full before its table is switched on, and deleted at the end. The Iceberg table stays, in the namespace
    `bench`: StreamLake deletes no tables.
    """
    bench_table.require_tables(http)
    with _bar("topic to table", records) as update:
        reached = bench_table.table_throughput(bootstrap, http, records, partitions, update)
    figures = asdict(reached) | {"rows_per_s": reached.rows_per_s, "mib_per_s": reached.mib_per_s}
    rows = [
        ["rows", f"{reached.rows:,}"],
        ["first rows in the table after", f"{reached.first_s:.2f} s"],
        ["all rows in the table after", f"{reached.seconds:.2f} s"],
        ["from the first rows on", f"{reached.rows_per_s:,.0f} rows/s, {reached.mib_per_s:.1f} MiB/s"],
    ]
    _print(f"topic to table, {http}", "table", figures, rows, as_json)


@app.command("e2e")
def e2e(
    rate: Annotated[float, typer.Option(help="Records a second.", min=0.1)] = 100,
    seconds: Seconds = 20,
    record_bytes: RecordBytes = 100,
    commit_interval_ms: Annotated[int, typer.Option(help="Of the table: streamlake.table.commit.interval.ms.")] = 1000,
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
    http: Http = DEFAULT_HTTP,
    as_json: AsJson = False,
) -> None:
    """How old a row is when DuckDB's SELECT first sees it, from when its record was due to be produced.

    The topic is deleted at the end; its Iceberg table stays, in the namespace `bench`: StreamLake deletes no tables.
    """
    bench_table.require_tables(http)
    with _bar("produce to SELECT", int(rate * seconds)) as update:
        taken = bench_table.produce_to_select(bootstrap, http, rate, seconds, record_bytes, commit_interval_ms, update)
    _print_latency("e2e", bootstrap, rate, record_bytes, taken, as_json)


def _load(what: str, total: int | None, load: Callable[..., Any], **arguments: Any) -> Any:
    """In a child process, with a bar; without a total it shows how many there were."""
    with _bar(what, total) as update:
        return in_child(load, SILENCE_S, update, **arguments)


@contextmanager
def _bar(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """On stderr, so that --json can be piped."""
    columns = TextColumn("{task.description:<24}"), BarColumn(), TextColumn("{task.completed:,} records")
    hidden = not err.is_terminal
    with Progress(*columns, TimeElapsedColumn(), console=err, transient=True, disable=hidden) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.update(task, completed=done)


@contextmanager
def _broker(bootstrap: str) -> Iterator[Callable[[], float | None]]:
    """What CPU time the broker has used since, if it runs here."""
    pid = broker_pid(bootstrap)
    before_s = cpu_s(pid) if pid is not None else 0.0
    yield lambda: cpu_s(pid) - before_s if pid is not None else None


def _print_throughput(
    bench: str, bootstrap: str, reached: Throughput, broker_cpu_s: float | None, as_json: bool
) -> None:
    per_core = reached.requests / broker_cpu_s if broker_cpu_s else None
    figures = asdict(reached) | {
        "mb_per_s": reached.mb_per_s,
        "records_per_s": reached.records_per_s,
        "requests_per_s": reached.requests_per_s,
        "broker_cpu_s": broker_cpu_s,
        "requests_per_broker_cpu_s": per_core,
    }
    rows = [
        ["records", f"{reached.records:,} in {reached.seconds:.2f} s"],
        ["MB/s", f"{reached.mb_per_s:,.1f}"],
        ["records/s", f"{reached.records_per_s:,.0f}"],
        ["requests/s", f"{reached.requests_per_s:,.0f}"],
        ["CPU time of the load", f"{reached.cpu_s:.2f} s"],
        ["CPU time of the broker", "unknown: not on this machine" if broker_cpu_s is None else f"{broker_cpu_s:.2f} s"],
    ]
    if per_core is not None:
        rows.append(["requests for a second of its CPU time", f"{per_core:,.0f}"])
    _print(f"{bench}, {bootstrap}", bench, figures, rows, as_json)


def _print_latency(bench: str, bootstrap: str, rate: float, record_bytes: int, taken: Latencies, as_json: bool) -> None:
    figures = {"rate": rate, "record_bytes": record_bytes, **asdict(taken)}
    rows = [
        ["rate", f"{rate:,.0f} records/s, {rate * record_bytes / 1e6:.2f} MB/s"],
        ["records", f"{taken.count:,}"],
        ["p50", f"{taken.p50_ms:,.2f} ms"],
        ["p99", f"{taken.p99_ms:,.2f} ms"],
        ["p99.9", f"{taken.p999_ms:,.2f} ms"],
        ["worst", f"{taken.max_ms:,.2f} ms"],
    ]
    _print(f"{bench}, {bootstrap}", bench, figures, rows, as_json)


def _print(title: str, bench: str, figures: dict[str, Any], rows: list[list[Any]], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"bench": bench, **figures}))
    else:
        show(title, ["", "measured"], rows, ("measured",))
