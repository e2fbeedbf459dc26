"""Native kernels against their Python twins, in one run on one core.

    python bench/kernels.py [--rows 20000]

Runs take turns and the best of each counts, so the ratios hold on a busy machine too; the speeds are this machine's.
"""

import argparse
import asyncio
import json
import random
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from io import BytesIO
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

import fastavro
import pyarrow as pa
from google.protobuf.message_factory import GetMessageClass

from streamlake.cli.bench_table import NOON, SCHEMA
from streamlake.cluster.config.table import PREFIX, TableSettings
from streamlake.core.clock import SystemClock
from streamlake.core.disk import RealDisk, RealFile
from streamlake.core.tasks import ThreadExecutor
from streamlake.record import columns, validate
from streamlake.record.arrow import decode_fetched
from streamlake.record.batch import HEADER_BYTES, BatchHeader, frames
from streamlake.record.compression import decompress
from streamlake.record.decode import Record
from streamlake.record.encode import encode_batch
from streamlake.registry.protobuf.files import pool_of, with_imports
from streamlake.registry.protobuf.schema import parse_schema
from streamlake.s3stream.wal.file.flusher import Flusher
from streamlake.s3stream.wal.file.native_flusher import NativeFlusher
from streamlake.table.formats.avro import native as avro_native
from streamlake.table.formats.avro.convert import AvroReader
from streamlake.table.formats.port import WriterSchema
from streamlake.table.formats.protobuf import native as protobuf_native
from streamlake.table.formats.protobuf.convert import ProtobufReader
from streamlake.table.formats.resolve import SchemaCache
from streamlake.table.rows import pipeline

MIB = 1 << 20
ROUNDS = 5
FLUSHES = 300
BATCH_ROWS = 500
NO_LIMIT = 1 << 30
PROTO = """
syntax = "proto3";
import "google/protobuf/timestamp.proto";
message Order {
  int64 id = 1; string user = 2; double amount = 3; int32 quantity = 4; bool paid = 5;
  google.protobuf.Timestamp ordered_at = 6; string due = 7; uint64 price = 8;
  enum Status { NEW = 0; SENT = 1; DONE = 2; } Status status = 9;
  optional string note = 10; optional double score = 11; bytes trace = 12; repeated string tags = 13;
  map<string, int32> counts = 14; message Place { double lat = 1; double lon = 2; } Place place = 15; string body = 16;
}
"""


class OneSchema:
    def get(self, schema_id: int) -> WriterSchema:
        return WriterSchema("AVRO", json.dumps(SCHEMA))


class OneFile:
    def get(self, schema_id: int) -> WriterSchema:
        return WriterSchema("PROTOBUF", PROTO)


def protobuf_twin() -> SchemaCache:
    """Compiled while there is no kernel."""
    kernel, cache = protobuf_native._kernel, SchemaCache(OneFile())
    protobuf_native._kernel = None
    reader = cache.get(1)
    assert isinstance(reader, ProtobufReader)
    reader.codec((0,))
    protobuf_native._kernel = kernel
    return cache


class TwinOnly(SchemaCache):
    def get(self, schema_id: int) -> AvroReader:
        reader = super().get(schema_id)
        assert isinstance(reader, AvroReader)
        return AvroReader(replace(reader.schema, native=None))


def message(rng: random.Random, parsed: Any, n: int) -> bytes:
    out = BytesIO()
    order = {
        "id": n,
        "user": f"user-{rng.randrange(10_000)}",
        "amount": rng.random(),
        "quantity": rng.randrange(1_000),
        "paid": n % 2 == 0,
        "ordered_at": NOON + timedelta(seconds=n),
        "due": date(2024, 1, 1 + n % 28),
        "price": Decimal(rng.randrange(10**8)).scaleb(-2),
        "status": ("NEW", "SENT", "DONE")[n % 3],
        "note": None if n % 3 else f"note {n}",
        "score": None if n % 5 == 0 else rng.random(),
        "trace": UUID(int=rng.getrandbits(128)),
        "tags": ["a", "bb"],
        "counts": {"x": n},
        "place": {"lat": 1.5, "lon": 2.5},
        "body": f"{rng.getrandbits(4 * 390):x}",
    }
    fastavro.schemaless_writer(out, parsed, order)
    return b"\0\0\0\0\1" + out.getvalue()


def protobuf_message(kind: Any, rng: random.Random, n: int) -> bytes:
    """The same order, as far as Protobuf has the types."""
    order = kind(
        id=n,
        user=f"user-{rng.randrange(10_000)}",
        amount=rng.random(),
        quantity=rng.randrange(1_000),
        paid=n % 2 == 0,
        ordered_at={"seconds": 1_704_110_400 + n},
        due=f"2024-01-{1 + n % 28:02}",
        price=rng.randrange(10**8),
        status=n % 3,
        note=None if n % 3 else f"note {n}",
        score=None if n % 5 == 0 else rng.random(),
        trace=rng.getrandbits(128).to_bytes(16, "big"),
        tags=["a", "bb"],
        counts={"x": n},
        place={"lat": 1.5, "lon": 2.5},
        body=f"{rng.getrandbits(4 * 390):x}",
    )
    return b"\0\0\0\0\1\0" + order.SerializeToString()


def protobuf_values(rows: int, rng: random.Random) -> list[bytes]:
    compiled = parse_schema(PROTO, {}).compiled
    assert compiled is not None
    kind = GetMessageClass(pool_of(list(with_imports(compiled, {}))).FindMessageTypeByName("Order"))
    return [protobuf_message(kind, rng, n) for n in range(rows)]


def fetched(values: list[bytes]) -> bytes:
    batches = []
    for base in range(0, len(values), BATCH_ROWS):
        part = values[base : base + BATCH_ROWS]
        batches.append(encode_batch([Record(base + i, 1_700_000_000_000, b"k%d" % i, v) for i, v in enumerate(part)]))
    return b"".join(batches)


def best_ms(*candidates: Callable[[], Any]) -> list[float]:
    """The best time of each, taken in turns."""
    times = [[] for _ in candidates]  # type: list[list[float]]
    for _ in range(ROUNDS):
        for runs, run in zip(times, candidates, strict=True):
            started = time.perf_counter()
            run()
            runs.append((time.perf_counter() - started) * 1000)
    return [min(runs) for runs in times]


def show(what: str, size_bytes: int, twin_ms: float, kernel_ms: float) -> None:
    times = f"twin {twin_ms:8.1f} ms   kernel {kernel_ms:7.1f} ms   {twin_ms / kernel_ms:6.1f} x"
    print(f"{what:<44} {times}   {size_bytes / MIB / kernel_ms * 1000:6.0f} MiB/s")


def rows_of(rows: columns.Rows, batches: list[tuple[BatchHeader, bytes]]) -> Any:
    for header, payload in batches:
        rows.add(header, payload, 0)
    return rows.table()


def bench_records(values: list[bytes]) -> None:
    data = fetched(values)
    batches = [(h, decompress(h.compression, b[HEADER_BYTES:], NO_LIMIT)) for h, b in frames(data)]
    twin, kernel = best_ms(
        lambda: rows_of(columns.PythonRows(), batches), lambda: rows_of(columns.KernelRows(len(data)), batches)
    )
    show("records -> Arrow columns", len(data), twin, kernel)


def bench_produce() -> None:
    """Stage one of Produce for 1 KB records in batches of 64: all that the event loop does with the bytes."""
    records = [Record(i, 1_700_000_000_000 + i, None, b"v" * 1_000) for i in range(64)]
    batches = [encode_batch(records) for _ in range(100)]
    kernels = validate._kernel, validate._run_kernel
    slab = bytearray(MIB)

    def stage_one(of_records: Any, of_runs: Any) -> None:
        validate._kernel, validate._run_kernel = of_records, of_runs
        for batch in batches:
            validate.check_batch(batch, MIB).placed(7, 1).copy_to(slab, 0)
        validate._kernel, validate._run_kernel = kernels

    twin, kernel = best_ms(lambda: stage_one(None, None), lambda: stage_one(*kernels))
    show("Produce: check and place 1 KB records", sum(map(len, batches)), twin, kernel)


def bench_table(what: str, values: list[bytes], schemas: SchemaCache, twins: SchemaCache) -> None:
    data = fetched(values)
    settings = TableSettings.from_configs(
        {
            PREFIX + "convert.value.type": "by_schema_id",
            PREFIX + "convert.key.type": "string",
            PREFIX + "transform.value.type": "flatten",
        }
    )
    partition = pa.field("partition", pa.int32(), nullable=False)
    records = decode_fetched(data, 0, (), NO_LIMIT).table
    records = records.append_column(partition, pa.array([0] * len(values), pa.int32()))

    def translate(cache: SchemaCache) -> pipeline.Translated:
        return pipeline.translate(records, settings, cache, "orders")

    twin, kernel = best_ms(lambda: translate(twins), lambda: translate(schemas))
    show(f"{what} -> Arrow, all of a table's translation", sum(map(len, values)), twin, kernel)


class BusyLoop:
    """Requests of a tenth of a millisecond each, as many as the event loop takes."""

    def __init__(self) -> None:
        self._task = asyncio.ensure_future(self._spin())

    async def _spin(self) -> None:
        while True:
            until = time.perf_counter() + 0.0001
            while time.perf_counter() < until:
                pass
            await asyncio.sleep(0)

    def stop(self) -> None:
        self._task.cancel()


async def flush_times_ms(flusher: Flusher, file: RealFile) -> list[float]:
    busy, group, times = BusyLoop(), [b"x" * 4096] * 4, []
    for n in range(FLUSHES):
        started = time.perf_counter()
        await flusher.flush(file, group, n * 16384)
        times.append((time.perf_counter() - started) * 1000)
        await asyncio.sleep(0.001)
    busy.stop()
    await flusher.close()
    return sorted(times)


def bench_flusher(directory: str) -> None:
    """16 KiB groups to the WAL while the event loop has no rest."""
    file, executor, clock = RealDisk().open(f"{directory}/wal", create=True), ThreadExecutor("twin"), SystemClock()
    for name, flusher in (("Python thread", Flusher(executor, clock)), ("C thread", NativeFlusher(executor, clock))):
        times = asyncio.run(flush_times_ms(flusher, file))
        half, most = times[FLUSHES // 2], times[FLUSHES * 99 // 100]
        print(f"flush under a busy loop, {name:<14} p50 {half:6.2f} ms   p99 {most:6.2f} ms")
    file.close()
    executor.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    rows = parser.parse_args().rows
    if not (columns._kernel and avro_native._kernel and protobuf_native._kernel):
        raise SystemExit("no kernels: install StreamLake with a C compiler at hand")
    rng, parsed = random.Random(1), fastavro.parse_schema(SCHEMA)
    values = [message(rng, parsed, n) for n in range(rows)]
    bench_records(values)
    bench_produce()
    bench_table("Avro", values, SchemaCache(OneSchema()), TwinOnly(OneSchema()))
    bench_table("Protobuf", protobuf_values(rows, rng), SchemaCache(OneFile()), protobuf_twin())
    with TemporaryDirectory() as directory:
        bench_flusher(directory)


if __name__ == "__main__":
    main()
