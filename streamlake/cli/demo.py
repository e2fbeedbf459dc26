"""`streamlake demo`: five real tables through an unmodified Kafka client into Iceberg, and SQL on the result.

Starts a server of its own on free ports with its data in a directory of its own, produces with confluent-kafka
(Avro, schema registry), waits until every row is in the tables and prints what DuckDB computes from the Iceberg files.
"""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from streamlake.cli.console import Difference, group, out, say, show
from streamlake.cli.demo_tables import TABLES, DemoTable
from streamlake.core.errors import Invalid, Unavailable
from streamlake.core.version import install_hint
from streamlake.lake import sql
from streamlake.lake.child_server import ChildServer

app = group()

TABLES_TIMEOUT_S = 120
COMMIT_INTERVAL_MS = 1000
DONE = ("✓ ", "green")
JOIN = """
    SELECT CASE WHEN w.visib < 2 THEN '1: under 2 miles' WHEN w.visib < 5 THEN '2: 2 to 5 miles'
                WHEN w.visib < 10 THEN '3: 5 to 10 miles' ELSE '4: 10 miles, clear' END AS visibility,
           count(*) AS flights,
           round(avg(f.dep_delay), 1) AS avg_delay_min,
           round(100.0 * count(*) FILTER (f.dep_delay >= 60) / count(*), 1) AS pct_over_1h,
           round(100.0 * count(*) FILTER (f.dep_time IS NULL) / count(*), 1) AS pct_cancelled
    FROM flights f JOIN weather w USING (origin, time_hour)
    GROUP BY visibility ORDER BY visibility
"""


@app.command()
def demo(
    data_dir: Annotated[Path, typer.Option(help="Where the demo keeps its data; emptied at the start.")] = Path(
        ".demo"
    ),
) -> None:
    """Five real tables through a Kafka client into Iceberg, and SQL on them, in about a minute."""
    try:
        import confluent_kafka  # noqa: F401
    except ImportError:
        raise Invalid(f"the demo needs a Kafka client and its data: {install_hint('demo')}") from None
    _empty(data_dir)
    server = ChildServer(data_dir)
    try:
        bootstrap, http = server.bootstrap, server.http
        say(DONE, f"StreamLake runs: Kafka {bootstrap}, registry and tables {http}, data in {data_dir}/")
        create_topics(bootstrap)
        started = time.perf_counter()
        produce(bootstrap, http)
        produced_s = time.perf_counter() - started
        wait_for_tables(http)
        in_tables_s = time.perf_counter() - started
        report(bootstrap, http, produced_s, in_tables_s)
    finally:
        server.stop()
    _farewell(data_dir)


def _empty(data_dir: Path) -> None:
    marker = data_dir / ".streamlake-demo"
    if data_dir.exists():
        if not marker.exists() and any(data_dir.iterdir()):
            raise Invalid(f"{data_dir} holds something that is not a demo's: give another --data-dir")
        shutil.rmtree(data_dir)
    data_dir.mkdir(parents=True)
    marker.touch()


def create_topics(bootstrap: str) -> None:
    from confluent_kafka.admin import AdminClient
    from confluent_kafka.cimpl import NewTopic

    topics = []
    for table in TABLES:
        config = {
            "streamlake.table.enable": "true",
            "streamlake.table.convert.value.type": "by_schema_id",
            "streamlake.table.transform.value.type": "flatten",
            "streamlake.table.commit.interval.ms": str(COMMIT_INTERVAL_MS),
        }
        if table.partition_by:
            config["streamlake.table.partition.by"] = table.partition_by
        topics.append(NewTopic(table.name, table.partitions, config=config))
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.create_topics(topics).values():
        future.result(timeout=30)
    say(DONE, f"{len(topics)} table topics created")


def _progress() -> Progress:
    return Progress(
        TextColumn("  {task.description:<22}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("rows"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[rate]}", style="dim", markup=False),
        console=out,
    )


def produce(bootstrap: str, http: str) -> None:
    from confluent_kafka import Producer
    from confluent_kafka.schema_registry import SchemaRegistryClient

    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 20})
    registry = SchemaRegistryClient({"url": http})
    with _progress() as progress:
        task = progress.add_task("produce", total=sum(t.rows for t in TABLES), rate="")
        started = time.perf_counter()
        done = 0
        for table in TABLES:
            progress.update(task, description=f"produce {table.name}")
            for sent in _produce_table(producer, registry, table):
                done += sent
                rate = f"{done / (time.perf_counter() - started):,.0f} rows/s"
                progress.update(task, completed=done, rate=rate)
        left = producer.flush(60)
        if left:
            raise Unavailable(f"{left} records were not acknowledged within a minute")
        progress.update(task, description="produced, all acked")


def _produce_table(producer: Any, registry: Any, table: DemoTable) -> Iterator[int]:
    """Produce all rows; yields how many were handed to the client since the last time."""
    from confluent_kafka.schema_registry.avro import AvroSerializer
    from confluent_kafka.serialization import MessageField, SerializationContext

    serialize = AvroSerializer(registry, table.avro_schema())
    context = SerializationContext(table.name, MessageField.VALUE)
    errors: list[str] = []

    def delivered(error: Any, _message: Any) -> None:
        if error is not None:
            errors.append(str(error))

    sent = 0
    for record in table.records():
        value, key = serialize(record, context), record[table.key]
        while True:
            try:
                producer.produce(table.name, value, key, on_delivery=delivered)
                break
            except BufferError:  # the client's queue is full: let it send
                producer.poll(0.1)
        sent += 1
        if sent == 2000:
            producer.poll(0)
            yield sent
            sent = 0
    if errors:
        raise Unavailable(f"{len(errors)} records of {table.name} were refused: {errors[0]}")
    yield sent


def wait_for_tables(http: str) -> None:
    wanted = {t.name: t.rows for t in TABLES}
    with _progress() as progress:
        task = progress.add_task("rows in Iceberg tables", total=sum(wanted.values()), rate="")
        deadline = time.perf_counter() + TABLES_TIMEOUT_S
        while True:
            tables = {t["topic"]: t for t in sql.tables(http)}
            rows = {name: tables.get(name, {}).get("rows") or 0 for name in wanted}
            progress.update(task, completed=sum(rows.values()))
            if rows == wanted:
                return
            if time.perf_counter() > deadline:
                states = {name: (t["state"], t.get("message")) for name, t in tables.items()}
                raise Unavailable(f"the tables hold {rows} of {wanted} rows after {TABLES_TIMEOUT_S} s: {states}")
            time.sleep(0.1)  # noqa: TID251 - a person waits here, not an event loop


def report(bootstrap: str, http: str, produced_s: float, in_tables_s: float) -> None:
    lake = sql.connect()
    locations = {t["topic"]: t["metadata_location"] for t in sql.refresh(lake, http)}
    rows = []
    for table in TABLES:
        in_topic = _topic_end(bootstrap, table)
        (in_table,) = _one(lake, f"SELECT count(*) FROM {table.name}")
        distinct = f"SELECT count(DISTINCT (_kafka.partition, _kafka.offset)) FROM {table.name}"
        (positions,) = _one(lake, distinct)
        equal = in_topic == in_table == positions == table.rows
        verdict = Text("equal", "green") if equal else Text("NOT EQUAL", "red")
        rows.append([table.name, table.rows, in_topic, in_table, positions, verdict])
    columns = ["table", "source rows", "topic records", "Iceberg rows", "distinct offsets", ""]
    say()
    show("Tables equal their topics (DuckDB on the Iceberg files)", columns, rows, tuple(columns[1:5]))
    result = lake.execute(JOIN)
    columns = [c[0] for c in result.description]
    say()
    show(
        "What fog does to New York's departures: flights ⋈ weather",
        columns,
        [list(r) for r in result.fetchall()],
        tuple(columns[1:]),
    )
    total = sum(t.rows for t in TABLES)
    freshness_s = max(_freshness_s(lake, locations[t.name], t.name) for t in TABLES)
    say()
    say(f"  produced        {total:,} rows in {produced_s:.1f} s = {total / produced_s:,.0f} rows/s, Avro included")
    say(f"  in the tables   {in_tables_s:.1f} s after the first produce = {total / in_tables_s:,.0f} rows/s end to end")
    say(f"  freshness       every table's last row could be read {freshness_s:.1f} s or less after it was produced")
    if any("NOT EQUAL" in str(r) for r in rows):
        raise Difference("a table does not equal its topic: please report this with the demo's directory")


def _topic_end(bootstrap: str, table: DemoTable) -> int:
    """Records in the topic, as an ordinary consumer sees them."""
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "demo-report"})
    try:
        ends = [consumer.get_watermark_offsets(TopicPartition(table.name, p), 10) for p in range(table.partitions)]
    finally:
        consumer.close()
    return sum(high - low for low, high in ends)


def _freshness_s(lake: Any, location: str, name: str) -> float:
    """From the newest record's Kafka timestamp to the commit of the snapshot that made it readable."""
    location = location.removeprefix("file://")
    (seconds,) = _one(
        lake,
        f"SELECT epoch(max(s.timestamp_ms::TIMESTAMP)) - epoch(max(t.newest) AT TIME ZONE 'UTC') FROM "
        f"(SELECT max(_kafka.timestamp) AS newest FROM {name}) t, iceberg_snapshots('{location}') s",
    )
    return float(seconds)


def _one(lake: Any, query: str) -> tuple[Any, ...]:
    row: tuple[Any, ...] = lake.execute(query).fetchone()
    return row


def _farewell(data_dir: Path) -> None:
    say()
    say(("Your turn:", "bold"))
    for what, command, remark in (
        ("run", f"streamlake server --data-dir {data_dir}", "Kafka on :9092, registry and tables on :8081"),
        ("produce", "streamlake topic create hello --table && echo hi | streamlake topic produce hello", ""),
        ("query", "streamlake sql --wait 'SELECT * FROM hello'", "or any Iceberg engine on the same files"),
    ):
        say(f"  {what:<8} {command}", (f"   # {remark}" if remark else "", "dim"))
