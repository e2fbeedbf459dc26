"""The table path, from fetched record batches to a Parquet file, beside the time to write the same columns alone.

    python bench/table.py [--records 100000] [--rounds 5]

Two shapes of Avro message: 16 mixed fields in 512 bytes, 6 fields in 35 bytes; record batches uncompressed, in lz4 and
in zstd. "One thread" calls the pipeline's own functions one after another, in rounds of the worker's default size, and
counts processor time, so that a busy machine changes it little; Parquet alone writes the columns that came out, with
the settings that the path chose, and takes turns with it. "As the worker runs" is the worker's own Gatherer and
TopicTable with its threads and a SQL catalog on disk, by the clock. The log is in memory: no network is in this.
"""

import argparse
import asyncio
import itertools
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

import fastavro
import kernels
import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.partitioning import PartitionSpec
from report import Report, median, plot_bars, take_turns

from streamlake.catalogs.capabilities import Capabilities
from streamlake.catalogs.config import embedded
from streamlake.catalogs.kinds import load
from streamlake.cluster.config.table import PREFIX, TableSettings
from streamlake.config import Tables
from streamlake.core.budget import Budget
from streamlake.core.clock import SystemClock
from streamlake.core.ids import Ids
from streamlake.core.tasks import ThreadExecutor
from streamlake.record.arrow import decode_fetched
from streamlake.record.compression import DECOMPRESSED_BYTES_MAX, Compression
from streamlake.record.decode import Record
from streamlake.record.encode import encode_batch
from streamlake.table.commit.machine import Owner
from streamlake.table.commit.progress import beginning
from streamlake.table.commit.tools import Tools
from streamlake.table.formats.port import WriterSchema
from streamlake.table.formats.resolve import SchemaCache
from streamlake.table.rows import pipeline
from streamlake.table.rows.writer import parquet_settings
from streamlake.table.task.control import TableSpec
from streamlake.table.task.gather import FETCH_BYTES, Gatherer
from streamlake.table.task.log_reader import Fetched, PartitionPositions
from streamlake.table.task.round import Round
from streamlake.table.task.topic_table import TopicTable
from streamlake.worker.process import THREADS

MIB = 1 << 20
BATCH_BYTES = 256 << 10  # of uncompressed record batches
SEED = 1
GOAL_MIB_A_SECOND = 200
GOAL_PARQUET_SHARE = 0.6
CODECS = (Compression.NONE, Compression.LZ4, Compression.ZSTD)
STAGES = ("decode", "translate", "assemble", "write")
SETTINGS = TableSettings.from_configs(
    {
        PREFIX + "enable": "true",
        PREFIX + "convert.value.type": "by_schema_id",
        PREFIX + "convert.key.type": "string",
        PREFIX + "transform.value.type": "flatten",
    }
)
CLICK = {
    "type": "record",
    "name": "Click",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "user", "type": "int"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "amount", "type": "double"},
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["VIEW", "CART", "BUY"]}},
        {"name": "page", "type": "string"},
    ],
}
FIRST_CLICK_US = 1_704_110_400_000_000


@dataclass(frozen=True, slots=True)
class Shape:
    """`wire` are the record batches by codec."""

    name: str
    schema: Any
    values: list[bytes]
    batches: dict[Compression, list[tuple[int, int, bytes]]]  # (first, last offset, bytes)

    @property
    def size_bytes(self) -> int:
        return sum(map(len, self.values))


@dataclass(slots=True)
class Taken:
    """Processor seconds of the stages of one run."""

    stages_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    @property
    def total_s(self) -> float:
        return sum(self.stages_s.values())


# -- the log ---------------------------------------------------------------------------------------------------------


def shapes(records: int) -> list[Shape]:
    rng, order, click = random.Random(SEED), fastavro.parse_schema(kernels.SCHEMA), fastavro.parse_schema(CLICK)
    orders = [kernels.message(rng, order, n) for n in range(records)]
    clicks = [click_message(rng, click, n) for n in range(4 * records)]
    return [
        Shape("16 fields, 512 bytes", kernels.SCHEMA, orders, {codec: encoded(orders, codec) for codec in CODECS}),
        Shape("6 fields, 35 bytes", CLICK, clicks, {codec: encoded(clicks, codec) for codec in CODECS}),
    ]


def click_message(rng: random.Random, parsed: Any, n: int) -> bytes:
    out = BytesIO()
    click = {
        "id": 10_000_000 + n,
        "user": rng.randrange(10_000, 1_000_000),
        "at": FIRST_CLICK_US + 1_000 * n + rng.randrange(1_000),
        "amount": rng.random(),
        "kind": ("VIEW", "CART", "BUY")[rng.randrange(3)],
        "page": f"/p{rng.randrange(100, 1_000)}",
    }
    fastavro.schemaless_writer(out, parsed, click)
    return b"\0\0\0\0\1" + out.getvalue()


def encoded(values: Sequence[bytes], codec: Compression) -> list[tuple[int, int, bytes]]:
    size = max(1, BATCH_BYTES // len(values[0]))
    batches = []
    for base in range(0, len(values), size):
        part = values[base : base + size]
        records = [Record(base + i, 1_700_000_000_000 + base + i, b"k%d" % i, v) for i, v in enumerate(part)]
        batches.append((base, base + len(part) - 1, encode_batch(records, compression=codec)))
    return batches


class MemoryLog:
    """One partition in memory; implements LogReader."""

    def __init__(self, batches: list[tuple[int, int, bytes]]) -> None:
        self._batches = batches
        self.end = batches[-1][1] + 1

    async def positions(self, topic: str, topic_id: UUID, partitions: Sequence[int]) -> dict[int, PartitionPositions]:
        return {0: PartitionPositions(0, self.end)}

    async def fetch(self, topic: str, topic_id: UUID, partition: int, offset: int, max_bytes: int) -> Fetched:
        return Fetched(self.data(offset, max_bytes), self.end, 0)

    def data(self, offset: int, max_bytes: int) -> bytes:
        """The batches from the one that holds `offset` on, at least one."""
        found, size = [], 0
        for _, _, batch in self._batches[self._at(offset) :]:
            if found and size + len(batch) > max_bytes:
                break
            found.append(batch)
            size += len(batch)
        return b"".join(found)

    def _at(self, offset: int) -> int:
        size = self._batches[0][1] + 1  # all but the last are as long
        return offset // size


class OneSchema:
    """Implements SchemaSource."""

    def __init__(self, schema: Any) -> None:
        self._text = json.dumps(schema)

    def get(self, schema_id: int) -> WriterSchema:
        return WriterSchema("AVRO", self._text)


# -- one thread ------------------------------------------------------------------------------------------------------


class OneThread:
    """The pipeline's functions as Gatherer and TopicTable call them."""

    def __init__(self, shape: Shape, codec: Compression, round_bytes: int) -> None:
        self._log = MemoryLog(shape.batches[codec])
        self._fetches = self._fetched()
        self._round_bytes = round_bytes
        self._schemas = SchemaCache(OneSchema(shape.schema))
        self._start = beginning("cluster", "topic", "id", 1)

    def _fetched(self) -> list[bytes]:
        fetches, at = [], 0
        while at < self._log.end:
            fetches.append(self._log.data(at, FETCH_BYTES))
            at = decode_fetched(fetches[-1], at, (), DECOMPRESSED_BYTES_MAX).next_offset
        return fetches

    def run(self, written: list[Any] | None = None) -> Taken:
        """`written` gets what the files were made of."""
        taken, filling = Taken(), Round(self._start)
        for data in self._fetches:
            began = time.thread_time()
            decoded = decode_fetched(data, filling.position(0), (), DECOMPRESSED_BYTES_MAX)
            filling.add(0, decoded, decoded.table.nbytes)
            taken.stages_s["decode"] += time.thread_time() - began
            if filling.size_bytes >= self._round_bytes:
                self._finish(filling, taken, written)
                filling = Round(self._start, dict(filling.positions))
        if filling.fetched:
            self._finish(filling, taken, written)
        return taken

    def _finish(self, filling: Round, taken: Taken, written: list[Any] | None) -> None:
        times = [time.thread_time()]
        translated = pipeline.translate(filling.records(), SETTINGS, self._schemas, "topic")
        times.append(time.thread_time())
        evolved = pipeline.evolve(None, translated)
        table = pipeline.assemble(translated, evolved)
        times.append(time.thread_time())
        pipeline.write(table, evolved.schema, PartitionSpec(), lambda folder: "file.parquet", {})
        times.append(time.thread_time())
        for stage, (began, ended) in zip(STAGES[1:], itertools.pairwise(times), strict=True):
            taken.stages_s[stage] += ended - began
        if written is not None:
            written.append(table)


class ParquetAlone:
    """The same columns with the same settings, which are known before the time is taken."""

    def __init__(self, tables: list[Any]) -> None:
        self._tables = [(table, parquet_settings(table)) for table in tables]

    def run(self) -> float:
        began = time.thread_time()
        for table, settings in self._tables:
            sink = pa.BufferOutputStream()
            with pq.ParquetWriter(sink, table.schema, **settings) as writer:
                writer.write_table(table)
            sink.getvalue()
        return time.thread_time() - began


def one_thread(report: Report, shape: Shape, codec: Compression, rounds: int, round_bytes: int) -> list[float]:
    """Milliseconds of the stages, and of Parquet alone."""
    path = OneThread(shape, codec, round_bytes)
    written: list[Any] = []
    path.run(written)
    alone = ParquetAlone(written)
    name = f"{shape.name}, {codec.name.lower()}"
    runs: dict[str, list[Any]] = take_turns(rounds, {f"{name}: path": path.run, f"{name}: Parquet": alone.run})
    paths, alone_s = list(runs.values())
    total_s, parquet_s = median([taken.total_s for taken in paths]), median(alone_s)
    mib = shape.size_bytes / MIB
    facts = {"codec": codec.name.lower(), "cpu_s": round(total_s, 3)}
    report.figure(f"table path, {shape.name}", mib / total_s, "MiB/s a core", **facts)
    report.figure(f"table path, {shape.name}", len(shape.values) / total_s, "rows/s a core", **facts)
    report.figure(f"Parquet alone, {shape.name}", mib / parquet_s, "MiB/s a core", codec=codec.name.lower())
    share = median([parquet / taken.total_s for taken, parquet in zip(paths, alone_s, strict=True)])
    report.figure(f"speed of the path to Parquet alone, {shape.name}", share, "ratio", codec=codec.name.lower())
    stages_ms = [1000 * median([taken.stages_s[stage] for taken in paths]) for stage in STAGES]
    for stage, milliseconds in zip(STAGES, stages_ms, strict=True):
        report.figure(f"{stage}, {shape.name}", milliseconds, "ms", codec=codec.name.lower())
    if codec is Compression.NONE:
        if shape.name.startswith("16"):
            report.goal(f"table path, {shape.name}", mib / total_s, GOAL_MIB_A_SECOND, "MiB/s a core")
        report.goal(f"speed of the path to Parquet alone, {shape.name}", share, GOAL_PARQUET_SHARE, "ratio")
    return [*stages_ms, 1000 * parquet_s]


# -- as the worker runs ----------------------------------------------------------------------------------------------


async def drain(shape: Shape, codec: Compression, directory: Path, topic: str, round_bytes: int) -> float:
    """Seconds from the first fetch to the last commit."""
    log, executor = MemoryLog(shape.batches[codec]), ThreadExecutor("table", THREADS)
    catalog = load(embedded(directory, None))
    tools = Tools(catalog, SchemaCache(OneSchema(shape.schema)), executor, SystemClock(), Ids(), Capabilities())
    table = TopicTable(SETTINGS, Owner("cluster", topic, "id", 1), False, tools)
    spec = TableSpec(topic, UUID(int=1), 1, {}, False, 1, 1)
    gatherer = Gatherer(spec, log, executor, Budget(Tables().memory_bytes), round_bytes)
    await table.open()
    began = time.perf_counter()
    while table.reached.position(0) < log.end:
        gathered = await gatherer.gather(table.reached, 0.0)
        await table.commit(gathered)
        gatherer.release(gathered)
    took_s = time.perf_counter() - began
    executor.close()
    return took_s


def as_worker(report: Report, shape: Shape, rounds: int, round_bytes: int) -> None:
    numbers = itertools.count()
    with TemporaryDirectory() as directory:

        def run() -> float:
            return asyncio.run(drain(shape, Compression.NONE, Path(directory), f"t{next(numbers)}", round_bytes))

        (seconds,) = take_turns(rounds, {f"{shape.name}: as the worker runs": run}).values()
    took_s = median(seconds)
    name = f"as the worker runs, {shape.name}"
    report.figure(name, shape.size_bytes / MIB / took_s, "MiB/s", clock_s=round(took_s, 3))
    report.figure(name, len(shape.values) / took_s, "rows/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=100_000, help="of 512 bytes; there are four times as many small")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    pa.set_cpu_count(1)  # as the worker has it
    report, round_bytes = Report("table"), Tables().round_bytes
    bars: dict[str, list[float]] = {}
    for shape in shapes(arguments.records):
        for codec in CODECS:
            bars[f"{shape.name}\n{codec.name.lower()}"] = one_thread(
                report, shape, codec, arguments.rounds, round_bytes
            )
        as_worker(report, shape, arguments.rounds, round_bytes)
    report.write()
    series = dict(zip((*STAGES, "Parquet alone"), zip(*bars.values(), strict=True), strict=True))
    plot_bars("table", "Table path by stage, one thread", "ms of processor time", list(bars), series)


if __name__ == "__main__":
    main()
