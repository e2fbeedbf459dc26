"""What a commit to a table costs, over thousands of commits: it must not grow with the table's history.

    python bench/commits.py [--catalog sql|bucket|rest] [--commits 2000] [--rows 200]

The worker's own Gatherer, TopicTable and Upkeep commit one small round after another, without the pause of a commit
interval, to one table: in a SQL catalog on this disk, as the embedded default has it, in one with its warehouse in a
bucket of SeaweedFS, or in SeaweedFS's REST catalog.
The goal compares the median of the last hundred commits with that of the first hundred to another, new table; they
take turns, so that a busy disk slows down both. Phases are the worker's blocking calls (what runs in parallel counts in
full), and upkeep is what follows a commit: every fiftieth time it merges manifests.
"""

import argparse
import asyncio
import itertools
import random
import struct
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar
from uuid import UUID

import fastavro
import pyarrow as pa
from pyiceberg.exceptions import RESTError
from report import Report, median, plot_lines
from rich.progress import track
from table import CLICK, SETTINGS, OneSchema, click_message

from streamlake.catalogs.capabilities import Capabilities
from streamlake.catalogs.config import CatalogConfig, embedded
from streamlake.catalogs.kinds import load
from streamlake.config import Tables
from streamlake.core.budget import Budget
from streamlake.core.clock import SystemClock
from streamlake.core.ids import Ids
from streamlake.core.tasks import ThreadExecutor
from streamlake.record.decode import Record
from streamlake.record.encode import encode_batch
from streamlake.table.commit.machine import Owner
from streamlake.table.commit.tools import Tools
from streamlake.table.formats.resolve import SchemaCache
from streamlake.table.task.control import TableSpec
from streamlake.table.task.gather import Gatherer
from streamlake.table.task.log_reader import Fetched, PartitionPositions
from streamlake.table.task.topic_table import TopicTable
from streamlake.table.upkeep.schedule import Upkeep
from streamlake.worker.process import THREADS

HUNDRED = 100
GOAL = 1.2
WAREHOUSE_TIMEOUT_S = 60.0
SEED = 1
PHASES = {
    "translate": "translate",
    "evolve": "translate",
    "_write": "Parquet",
    "load_table": "load the table",
    "_append": "manifests",
    "put": "put files",
    "_commit": "catalog's commit",
}
T = TypeVar("T")


class GrowingLog:
    """The same batch again and again, `rows` further each time; implements LogReader."""

    def __init__(self, rows: int) -> None:
        rng, parsed = random.Random(SEED), fastavro.parse_schema(CLICK)
        records = [Record(n, 1_700_000_000_000 + n, b"k%d" % n, click_message(rng, parsed, n)) for n in range(rows)]
        self._batch = encode_batch(records)
        self._rows = rows
        self.end = 0

    def grow(self) -> None:
        self.end += self._rows

    async def positions(self, topic: str, topic_id: UUID, partitions: Sequence[int]) -> dict[int, PartitionPositions]:
        return {0: PartitionPositions(0, self.end)}

    async def fetch(self, topic: str, topic_id: UUID, partition: int, offset: int, max_bytes: int) -> Fetched:
        data = bytearray(self._batch)
        struct.pack_into(">q", data, 0, offset)  # no CRC covers the base offset
        return Fetched(bytes(data), self.end, 0)


class TimedExecutor(ThreadExecutor):
    """Adds up the time of the calls in `ms`, by phase."""

    def __init__(self) -> None:
        super().__init__("table", THREADS)
        self.ms: dict[str, float] = defaultdict(float)

    async def run(self, fn: Callable[..., T], *args: Any) -> T:
        began = time.perf_counter()
        try:
            return await super().run(fn, *args)
        finally:
            if phase := PHASES.get(fn.__name__):
                self.ms[phase] += 1000 * (time.perf_counter() - began)


class Lane:
    """One table and its log, with what the worker has around them."""

    def __init__(self, topic: str, executor: TimedExecutor, catalog: Any, rows: int) -> None:
        tools = Tools(catalog, SchemaCache(OneSchema(CLICK)), executor, SystemClock(), Ids(), Capabilities())
        self.table = TopicTable(SETTINGS, Owner("cluster", topic, "id", 1), False, tools)
        self._log = GrowingLog(rows)
        spec, budget = TableSpec(topic, UUID(int=1), 1, {}, False, 1, 1), Budget(Tables().memory_bytes)
        self._gatherer = Gatherer(spec, self._log, executor, budget, Tables().round_bytes)
        self._upkeep = [Upkeep(committer, tools) for committer in (self.table.main, self.table.dead_letters)]
        self._ms = executor.ms

    async def open(self) -> None:
        await self.table.open()
        await self.commit()  # it makes the table, and imports what it needs

    async def commit(self) -> dict[str, float]:
        """Milliseconds by phase; "commit" is all of it, "upkeep" what came after it."""
        self._log.grow()
        gathered = await self._gatherer.gather(self.table.reached, 0.0)
        self._ms.clear()
        times = [time.perf_counter()]
        await self.table.commit(gathered)
        phases = dict(self._ms)
        times.append(time.perf_counter())
        self._gatherer.release(gathered)
        for upkeep in self._upkeep:
            await upkeep.run()
        times.append(time.perf_counter())
        commit_ms, upkeep_ms = [1000 * (end - begin) for begin, end in itertools.pairwise(times)]
        return {"commit": commit_ms, "upkeep": upkeep_ms, **phases}

    @property
    def metadata_bytes(self) -> int:
        assert self.table.main.table is not None
        return len(self.table.main.table.metadata.model_dump_json())


@dataclass(frozen=True, slots=True)
class Found:
    old: list[dict[str, float]]  # commits to one table
    new: list[dict[str, float]]  # to a table that was made when the other one had all but its last hundred
    metadata_bytes: int


async def commits(config: CatalogConfig, count: int, rows: int) -> Found:
    executor, catalog = TimedExecutor(), load(config)
    old, new = (Lane(topic, executor, catalog, rows) for topic in ("old", "new"))
    await old.open()
    title = f"{config.kind} catalog"
    of_old = [await old.commit() for _ in track(range(count - HUNDRED), description=title)]
    await new.open()
    of_new = []
    for _ in track(range(HUNDRED), description=f"{title}, beside a new table"):
        of_old.append(await old.commit())
        of_new.append(await new.commit())
    executor.close()
    return Found(of_old, of_new, old.metadata_bytes)


def lake(kind: str, directory: Path, until: ExitStack) -> CatalogConfig:
    if kind == "sql":
        return embedded(directory, None)
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from support.rest_lake import properties  # it starts a server: only if asked for
    from support.seaweedfs import SeaweedFS

    server = until.enter_context(SeaweedFS(directory))
    if kind == "bucket":
        files = {key: value for key, value in properties(server).items() if key.startswith("s3.")}
        place = {"uri": f"sqlite:///{directory}/catalog.db", "warehouse": f"s3://{server.bucket()}"}
        return CatalogConfig("sql", "lake", place | files)
    config = CatalogConfig("rest", "lake", properties(server))
    deadline = time.monotonic() + WAREHOUSE_TIMEOUT_S
    while True:
        try:
            load(config).create_namespace_if_not_exists("default")
            return config
        except RESTError:  # the server answers before it has made the bucket of its tables
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def tell(report: Report, kind: str, found: Found) -> None:
    parts = {
        "first hundred": found.old[:HUNDRED],
        "last hundred": found.old[-HUNDRED:],
        "hundred of a new table": found.new,
    }
    for which, part in parts.items():
        for phase in ("commit", *dict.fromkeys(PHASES.values())):
            spent = median([one.get(phase, 0.0) for one in part])
            report.figure(phase, spent, "ms", median_of=which, catalog=kind, commits=len(found.old))
    whole = sorted(one["commit"] for one in found.old)
    upkeep = [one["upkeep"] for one in found.old]
    report.figure("commit, p99", whole[len(whole) * 99 // 100], "ms", catalog=kind)
    report.figure("upkeep after a commit, mean", sum(upkeep) / len(upkeep), "ms", catalog=kind)
    report.figure("upkeep after a commit, most", max(upkeep), "ms", catalog=kind)
    report.figure("metadata file", found.metadata_bytes, "bytes", catalog=kind)
    ratio = median([one["commit"] for one in found.old[-HUNDRED:]]) / median([one["commit"] for one in found.new])
    report.goal(
        f"last hundred of {len(found.old)} commits to a new table's, {kind} catalog", ratio, GOAL, "ratio", "lower"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--catalog", choices=["sql", "bucket", "rest"], default="sql")
    parser.add_argument("--commits", type=int, default=2_000)
    parser.add_argument("--rows", type=int, default=200, help="of a commit")
    arguments = parser.parse_args()
    if arguments.commits < 2 * HUNDRED:
        parser.error(f"--commits must be at least {2 * HUNDRED}: the first hundred and the last are compared")
    pa.set_cpu_count(1)  # as the worker has it
    report = Report(f"commits_{arguments.catalog}")
    with TemporaryDirectory() as directory, ExitStack() as until:
        config = lake(arguments.catalog, Path(directory), until)
        found = asyncio.run(commits(config, arguments.commits, arguments.rows))
    tell(report, arguments.catalog, found)
    report.write()
    hundreds = [found.old[at : at + HUNDRED] for at in range(0, len(found.old), HUNDRED)]
    series = {
        phase: [
            (float(HUNDRED * at), median([one.get(phase, 0.0) for one in part])) for at, part in enumerate(hundreds)
        ]
        for phase in ("commit", *dict.fromkeys(PHASES.values()))
    }
    plot_lines(
        report.name, f"Commits, {arguments.catalog} catalog", "commits before", "ms, median of a hundred", series
    )


if __name__ == "__main__":
    main()
