"""Load on a topic that is an Iceberg table: how fast records become rows, and how soon SELECT sees them.

Needs StreamLake's HTTP port (registry, /v1/tables) beside its Kafka address. Progress is what the server reports of a
table; freshness is what DuckDB reads from the newest snapshot, as `streamlake sql` does.
"""

import json
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from io import BytesIO
from typing import Any
from uuid import UUID

from streamlake.bench.librdkafka import require_client
from streamlake.bench.load import (
    ACK_TIMEOUT_S,
    VALUES,
    Latencies,
    produce_latency,
    produce_throughput,
    temporary_topic,
    values,
)
from streamlake.bench.process import Child, in_child
from streamlake.core.clock import SystemClock
from streamlake.core.errors import StreamLakeError, Unavailable
from streamlake.lake import sql as lake_sql

NAMESPACE = "bench"
TABLE = {"streamlake.table.enable": "true", "streamlake.table.namespace": NAMESPACE}
AVRO = {"streamlake.table.convert.value.type": "by_schema_id", "streamlake.table.transform.value.type": "flatten"}
COMMIT_INTERVAL = "streamlake.table.commit.interval.ms"
MESSAGE_BYTES = 512
FRAME_BYTES = 1 + 4 + 1  # magic, schema id, and one more for the length of the body
ROWS_TIMEOUT_S = 60  # without a new row
POLL_S = 0.02
Update = Callable[[int], None]

FIELDS: dict[str, Any] = {
    "id": "long",
    "user": "string",
    "amount": "double",
    "quantity": "int",
    "paid": "boolean",
    "ordered_at": {"type": "long", "logicalType": "timestamp-micros"},
    "due": {"type": "int", "logicalType": "date"},
    "price": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2},
    "status": {"type": "enum", "name": "Status", "symbols": ["NEW", "SENT", "DONE"]},
    "note": ["null", "string"],
    "score": ["null", "float"],
    "trace": {"type": "string", "logicalType": "uuid"},
    "tags": {"type": "array", "items": "string"},
    "counts": {"type": "map", "values": "long"},
    "place": {
        "type": "record",
        "name": "Place",
        "fields": [{"name": "lat", "type": "double"}, {"name": "lon", "type": "double"}],
    },
    "body": "string",  # fills the message up
}
SCHEMA = {"type": "record", "name": "Order", "fields": [{"name": n, "type": t} for n, t in FIELDS.items()]}
NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class TableThroughput:
    """`first_s`, `first_rows`: when the first commit was seen, and what it had. `bytes` are those of the values."""

    rows: int
    bytes: int
    first_rows: int
    first_s: float
    seconds: float

    @property
    def rows_per_s(self) -> float:
        """From the first commit on; all rows over all the time if there was one commit only."""
        if self.rows > self.first_rows:
            return (self.rows - self.first_rows) / (self.seconds - self.first_s)
        return self.rows / self.seconds

    @property
    def mib_per_s(self) -> float:
        return self.rows_per_s * self.bytes / self.rows / (1 << 20)


def require_tables(http: str) -> None:
    """What tables() raises, with what is missing."""
    require_client()
    try:
        lake_sql.tables(http)
    except StreamLakeError as error:
        raise type(error)(f"tables need StreamLake; {error}") from None


def orders(schema_id: int) -> list[bytes]:
    """Different messages of about MESSAGE_BYTES, as a serializer with a schema registry makes them."""
    import fastavro  # here: every command imports this module

    def avro(order: dict[str, Any]) -> bytes:
        out = BytesIO()
        fastavro.schemaless_writer(out, parsed, order)
        return out.getvalue()

    parsed, made = fastavro.parse_schema(SCHEMA), []
    for n, text in enumerate(values(MESSAGE_BYTES, VALUES)):
        order = {
            "id": n, "user": f"user-{n}", "amount": n / 7, "quantity": n % 100, "paid": n % 2 == 0,
            "ordered_at": NOON + timedelta(seconds=n), "due": date(2024, 1, 1 + n % 28),
            "price": Decimal(n * 7919).scaleb(-2), "status": ("NEW", "SENT", "DONE")[n % 3],
            "note": None if n % 3 else f"note {n}", "score": None if n % 5 == 0 else n / 3, "trace": UUID(int=n << 64),
            "tags": ["a", "bb"], "counts": {"x": n}, "place": {"lat": 1.5, "lon": 2.5}, "body": "",
        }  # fmt: skip
        body = text[: MESSAGE_BYTES - FRAME_BYTES - len(avro(order))].decode()
        made.append(b"\0" + schema_id.to_bytes(4, "big") + avro(order | {"body": body}))
    return made


def table_throughput(bootstrap: str, http: str, records: int, partitions: int, update: Update) -> TableThroughput:
    """Fills a topic, then makes it a table and waits until all rows are in."""
    from confluent_kafka.admin import (  # type: ignore[attr-defined]  # re-exported without __all__
        AdminClient,
        AlterConfigOpType,
        ConfigEntry,
        ConfigResource,
        ResourceType,
    )
    from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

    with temporary_topic(bootstrap, partitions) as topic:
        schema_id = SchemaRegistryClient({"url": http}).register_schema(
            f"{topic}-value", Schema(json.dumps(SCHEMA), "AVRO")
        )
        sent = in_child(
            produce_throughput, 2 * ACK_TIMEOUT_S, None,
            bootstrap=bootstrap, topic=topic, ring=orders(schema_id), seconds=float("inf"), records=records,
        )  # fmt: skip
        entries = [
            ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
            for name, value in {**TABLE, **AVRO, COMMIT_INTERVAL: "1000"}.items()
        ]
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
        admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
        started = time.perf_counter()
        admin.incremental_alter_configs([resource])[resource].result(ACK_TIMEOUT_S)
        return _wait_for_rows(http, topic, sent.records + 1, sent.bytes, started, update)


def _wait_for_rows(
    http: str, topic: str, rows: int, size_bytes: int, started: float, update: Update
) -> TableThroughput:
    first_rows, first_s, seen, seen_at = 0, 0.0, 0, started
    while seen < rows:
        found = _table(http, topic)
        now = time.perf_counter()
        if (count := found.get("rows") or 0) > seen:
            if not first_rows:
                first_rows, first_s = count, now - started
            seen, seen_at = count, now
            update(seen)
        elif now - seen_at > ROWS_TIMEOUT_S:
            raise Unavailable(f"{topic}: {seen} of {rows} rows, none for {ROWS_TIMEOUT_S} s: {found.get('message')}")
        time.sleep(POLL_S)  # noqa: TID251 - a person waits here, not an event loop
    return TableThroughput(rows, size_bytes, first_rows, first_s, seen_at - started)


def _table(http: str, topic: str) -> dict[str, Any]:
    return next((t for t in lake_sql.tables(http) if t["topic"] == topic), {})


Look = Callable[[int], list[tuple[int]] | None]


def produce_to_select(
    bootstrap: str,
    http: str,
    rate: float,
    seconds: float,
    record_bytes: int,
    commit_interval_ms: int,
    update: Update,
    attached: bool = False,
) -> Latencies:
    """Records at a fixed rate from a process of their own, while SELECT here asks again and again what is new: of the
    newest snapshot that the server reports, or (`attached`) of the server's REST catalog, which commits before it
    answers. A row's age is the time from its Kafka timestamp, set when librdkafka gets the record, to SELECT's answer.
    """
    clock = SystemClock()
    config = {**TABLE, COMMIT_INTERVAL: str(commit_interval_ms), "streamlake.table.convert.value.type": "string"}
    with temporary_topic(bootstrap, 1, config) as topic:
        load = Child(
            produce_latency,
            bootstrap=bootstrap, topic=topic, rate=rate, record_bytes=record_bytes, seconds=seconds, warm_up_s=0,
        )  # fmt: skip
        look = (_look_attached if attached else _look_at_snapshots)(http, topic)
        with load:
            ages_s, seen_at, wanted = array("d"), time.perf_counter(), None
            while wanted is None or len(ages_s) < wanted:
                if wanted is None and load.is_done():
                    wanted = load.result(ACK_TIMEOUT_S).count
                if rows := look(len(ages_s)):
                    now_ms, seen_at = clock.now_ms(), time.perf_counter()
                    ages_s.extend((now_ms - created_ms) / 1000 for (created_ms,) in rows)
                    update(len(ages_s))
                elif time.perf_counter() - seen_at > ROWS_TIMEOUT_S:
                    message = _table(http, topic).get("message")
                    raise Unavailable(f"{topic}: no new row for {ROWS_TIMEOUT_S} s: {message}")
                time.sleep(POLL_S)  # noqa: TID251 - a person waits here, not an event loop
        return Latencies.of(ages_s)


def _look_at_snapshots(http: str, topic: str) -> Look:
    """Timestamps of the rows from an offset on, whenever there is another snapshot."""
    lake, location = lake_sql.connect(), ""

    def look(offset: int) -> list[tuple[int]] | None:
        nonlocal location
        newest = (_table(http, topic).get("metadata_location") or "").removeprefix("file://")
        if newest == location:
            return None
        location = newest
        query = f"SELECT epoch_ms(_kafka.timestamp) FROM iceberg_scan(?) WHERE _kafka.offset >= {offset}"
        return lake.execute(query, [location]).fetchall()

    return look


def _look_attached(http: str, topic: str) -> Look:
    """The same through ATTACH: each look is one SELECT, for which DuckDB loads the table from the catalog."""
    lake, table = lake_sql.connect(), f'lake.{NAMESPACE}."{topic}"'
    attach = f"ATTACH 'streamlake' AS lake (TYPE iceberg, ENDPOINT '{http}/iceberg', AUTHORIZATION_TYPE 'none')"
    attached = False

    def look(offset: int) -> list[tuple[int]] | None:
        nonlocal attached
        if not attached:  # DuckDB does not notice a namespace that is made later
            if not _table(http, topic).get("rows"):
                return None
            lake.execute(attach)
            attached = True
        return lake.execute(
            f"SELECT epoch_ms(_kafka.timestamp) FROM {table} WHERE _kafka.offset >= {offset}"
        ).fetchall()

    return look
