"""A small world around table tasks: a log in memory, files in memory, a real SQL catalog that can be told to misbehave.

Everything runs inline on the loop, so a test decides what happens between any two steps: `Executor.before` is called
before each blocking call, and may raise `Killed` (the process dies there) or pause the task.
"""

import asyncio
import io
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID, uuid5

import fastavro
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.memory import InMemoryCatalog
from pyiceberg.exceptions import CommitFailedException, NoSuchTableError
from pyiceberg.io import FileIO, InputFile, OutputFile

from streamlake.catalogs.capabilities import Capabilities
from streamlake.catalogs.config import CatalogConfig
from streamlake.catalogs.named import NamedCatalogs
from streamlake.cluster.config.table import TableSettings
from streamlake.core.budget import Budget
from streamlake.core.errors import NotFound, Unavailable
from streamlake.core.ids import Ids
from streamlake.record.decode import Record
from streamlake.record.encode import encode_batch
from streamlake.table.commit.machine import Owner
from streamlake.table.commit.tools import Tools
from streamlake.table.formats.port import LatestSchema, WriterSchema
from streamlake.table.formats.resolve import SchemaCache
from streamlake.table.task.catalogs import Catalogs
from streamlake.table.task.control import TableReport, TableSpec
from streamlake.table.task.gather import Gatherer
from streamlake.table.task.log_reader import Fetched, PartitionPositions
from streamlake.table.task.task import Work
from streamlake.table.task.topic_table import TopicTable

TOPIC = "orders"
TOPIC_ID = UUID(int=7)
CLUSTER = "cluster-1"
SCHEMA_ID = 1
SCHEMA = '{"type":"record","name":"Order","fields":[{"name":"n","type":"long"}]}'
WIDER = (
    '{"type":"record","name":"Order","fields":[{"name":"n","type":"long"},{"name":"note","type":["null","string"]}]}'
)
numbers = itertools.count()
LIVES_MAX = 20
ABORT, COMMIT = b"\0\0\0\0", b"\0\0\0\1"


class Killed(BaseException):
    """The process ends here: nobody may catch it."""


class Executor:
    """Inline; `before(function name)` runs first."""

    def __init__(self) -> None:
        self.before: Callable[[str], Any] | None = None
        self.calls = 0

    async def run(self, fn: Callable[..., Any], *args: Any) -> Any:
        self.calls += 1
        if self.before is not None:
            waiting = self.before(getattr(fn, "__name__", str(fn)))
            if waiting is not None:
                await waiting
        return fn(*args)

    def close(self) -> None:
        pass


class Clock:
    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self.ms = now_ms

    def now_ms(self) -> int:
        self.ms += 1
        return self.ms

    def boottime(self) -> float:
        return self.ms / 1000


class MemoryIO(FileIO):
    """Files in the dict that the catalog property `memory` holds."""

    def __init__(self, properties: Mapping[str, Any] = {}) -> None:
        super().__init__(dict(properties))
        self.files: dict[str, bytes] = properties["memory"]

    def new_input(self, location: str) -> "MemoryFile":
        return MemoryFile(location, self.files)

    def new_output(self, location: str) -> "MemoryFile":
        return MemoryFile(location, self.files)

    def delete(self, location: Any) -> None:
        if self.files.pop(location if isinstance(location, str) else location.location, None) is None:
            raise FileNotFoundError(location)


class MemoryFile(InputFile, OutputFile):
    def __init__(self, location: str, files: dict[str, bytes]) -> None:
        super().__init__(location)
        self._files = files

    def __len__(self) -> int:
        return len(self._files[self.location])

    def exists(self) -> bool:
        return self.location in self._files

    def to_input_file(self) -> "MemoryFile":
        return self

    def open(self, seekable: bool = True) -> Any:
        if self.location not in self._files:
            raise FileNotFoundError(self.location)
        return io.BytesIO(self._files[self.location])

    def create(self, overwrite: bool = False) -> Any:
        files, location = self._files, self.location

        class Sink(io.BytesIO):
            def close(self) -> None:
                if not self.closed:
                    files[location] = self.getvalue()
                super().close()

        return Sink()


class FaultyCatalog:
    """A catalog with a plan: each item of `plan` is what happens at the next `commit_table`.

    None: all is well. "lost": the error comes and nothing lands. "conflict"/"timeout": it lands, then this error."""

    def __init__(self, inner: Catalog) -> None:
        self.inner = inner
        self.plan: list[str | None] = []
        self.down = False
        self.commits = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def load_table(self, identifier: Any) -> Any:
        if self.down:
            raise ConnectionError("no route to the catalog")
        return self.inner.load_table(identifier)

    def commit_table(self, table: Any, requirements: Any, updates: Any) -> Any:
        if self.down:
            raise ConnectionError("no route to the catalog")
        self.commits += 1
        fault = self.plan.pop(0) if self.plan else None
        if fault == "lost":
            raise TimeoutError("the request never arrived")
        response = self.inner.commit_table(table, requirements, updates)
        if fault == "conflict":
            raise CommitFailedException("version mismatch: the echo of a retry")
        if fault == "timeout":
            raise TimeoutError("read timed out")
        return response


class Log:
    """A topic in memory, as batches; implements LogReader."""

    def __init__(self, partitions: int = 1) -> None:
        self.batches: list[list[tuple[int, int, bytes]]] = [[] for _ in range(partitions)]
        self.start = [0] * partitions
        self.end = [0] * partitions
        self.aborted: list[list[tuple[int, int]]] = [[] for _ in range(partitions)]
        self.data: set[tuple[int, int]] = set()  # positions that must become a row or a dead letter
        self.down = False

    def produce(self, partition: int, values: Sequence[bytes | None], *, producer_id: int | None = None) -> None:
        base = self.end[partition]
        records = [Record(base + i, 1_000 + base + i, b"key", v, ()) for i, v in enumerate(values)]
        transactional = {} if producer_id is None else {"producer_id": producer_id, "transactional": True}
        self._append(partition, base, len(values), encode_batch(records, **transactional))
        if producer_id is None:
            self.data |= {(partition, base + i) for i in range(len(values))}

    def end_transaction(self, partition: int, producer_id: int, first_offset: int, *, commit: bool) -> None:
        base = self.end[partition]
        if not commit:
            self.aborted[partition].append((producer_id, first_offset))
        else:
            self.data |= {(partition, o) for o in range(first_offset, base)}
        marker = Record(base, 1_000, COMMIT if commit else ABORT, b"\0\0\0\0\0\0", ())
        batch = encode_batch([marker], producer_id=producer_id, transactional=True, control=True)
        self._append(partition, base, 1, batch)

    def abort(self, partition: int, values: Sequence[bytes | None]) -> None:
        """A whole aborted transaction: data and its marker."""
        first = self.end[partition]
        producer_id = 1_000 + len(self.aborted[partition])
        self.produce(partition, values, producer_id=producer_id)
        self.end_transaction(partition, producer_id, first, commit=False)

    def garbage(self, partition: int, count: int) -> None:
        """A batch with a right CRC whose records are not what its header claims."""
        base = self.end[partition]
        good = encode_batch([Record(base + i, 1, None, b"x", ()) for i in range(count)])
        torn = bytearray(good)
        torn[61:] = b"\xff" * len(torn[61:])
        from crc32c import crc32c

        torn[17:21] = crc32c(bytes(torn[21:])).to_bytes(4, "big")
        self._append(partition, base, count, bytes(torn))
        self.data |= {(partition, base + i) for i in range(count)}

    def delete_before(self, partition: int, offset: int) -> None:
        self.start[partition] = offset
        self.batches[partition] = [b for b in self.batches[partition] if b[1] >= offset]

    def _append(self, partition: int, base: int, count: int, batch: bytes) -> None:
        self.batches[partition].append((base, base + count - 1, batch))
        self.end[partition] = base + count

    async def positions(self, topic: str, topic_id: UUID, partitions: Sequence[int]) -> dict[int, PartitionPositions]:
        if self.down:
            raise Unavailable("the broker does not answer")
        return {p: PartitionPositions(self.start[p], self.end[p]) for p in partitions if p < len(self.end)}

    async def fetch(self, topic: str, topic_id: UUID, partition: int, offset: int, max_bytes: int) -> Fetched:
        found: list[bytes] = []
        if self.start[partition] <= offset:
            for _, last, batch in self.batches[partition]:
                if found and sum(map(len, found)) + len(batch) > max_bytes:
                    break
                if last >= offset:
                    found.append(batch)
        return Fetched(b"".join(found), self.end[partition], self.start[partition], tuple(self.aborted[partition]))


class Registry:
    """Schema texts by id; `gone` ids answer NotFound, as a deleted schema does."""

    def __init__(self) -> None:
        self.schemas = {SCHEMA_ID: SCHEMA, 2: WIDER}
        self.gone: set[int] = set()
        self.down = False

    def get(self, schema_id: int) -> WriterSchema:
        if self.down:
            raise Unavailable("the registry does not answer")
        if schema_id in self.gone or schema_id not in self.schemas:
            raise NotFound(f"schema {schema_id}")
        return WriterSchema("AVRO", self.schemas[schema_id])

    def latest(self, subject: str) -> LatestSchema:
        """The schema with the highest id; every subject has them all."""
        known = [id for id in self.schemas if id not in self.gone]
        if not known and not self.down:
            raise NotFound(f"the schema registry has no subject {subject}")
        return LatestSchema(max(known), self.get(max(known)))


class World:
    """One cluster, one topic, one catalog (in memory, if none is given); `life()` is a new worker's view of the table,
    with the next epoch."""

    def __init__(
        self, partitions: int = 1, seed: int = 1, catalog: Catalog | None = None, topic: str = TOPIC, **configs: str
    ) -> None:
        self.files: dict[str, bytes] = {}
        warehouse = f"memory://lake{next(numbers)}"  # pyiceberg caches manifests by location for the whole process
        properties = {"warehouse": warehouse, "py-io-impl": f"{__name__}.MemoryIO", "memory": self.files}
        self.catalog = FaultyCatalog(catalog or InMemoryCatalog("lake", **properties))  # type: ignore[arg-type]
        self.topic = topic
        self.topic_id = TOPIC_ID if topic == TOPIC else uuid5(TOPIC_ID, topic)
        self.log = Log(partitions)
        self.registry = Registry()
        self.capabilities = Capabilities()
        self.executor = Executor()
        self.clock = Clock()
        self.ids = Ids(seed)
        self.budget = Budget(1 << 30)
        self.epoch = 0
        self.committed_once = False
        self.reports: list[TableReport] = []
        self.configs = {
            "streamlake.table.enable": "true",
            "streamlake.table.convert.value.type": "by_schema_id",
            "streamlake.table.transform.value.type": "flatten",
            "streamlake.table.errors.tolerance": "all",
            "streamlake.table.commit.interval.ms": "1",
            **{f"streamlake.table.{key.replace('_', '.')}": value for key, value in configs.items()},
        }

    @property
    def settings(self) -> TableSettings:
        return TableSettings.from_configs(self.configs)

    @property
    def identifier(self) -> tuple[str, ...]:
        return (*self.settings.namespace.split("."), self.settings.name or self.topic)

    def tools(self, executor: Executor | None = None) -> Tools:
        schemas = SchemaCache(self.registry)
        return Tools(self.catalog, schemas, executor or self.executor, self.clock, self.ids, self.capabilities)  # type: ignore[arg-type]

    def spec(self, **changes: Any) -> TableSpec:
        values = {
            "topic": self.topic,
            "topic_id": self.topic_id,
            "partitions": len(self.log.end),
            "configs": self.configs,
            "committed_once": self.committed_once,
            "committer_epoch": max(1, self.epoch),
            "incarnation": 1,
        }
        return TableSpec(**{**values, **changes})

    def work(self, **changes: Any) -> Work:
        return Work(**{
            "cluster_id": CLUSTER, "reader": self.log, "budget": self.budget,
            "report": self.reports.append, "round_bytes": 32 << 20, **changes,
        })  # fmt: skip

    def catalogs(self, executor: Executor | None = None) -> Catalogs:
        """`lake`, the default, which is this world's catalog; and `hive`, the same one, but said to fold case."""

        async def opened(_: str, __: CatalogConfig) -> Tools:
            return self.tools(executor)

        named = {"lake": CatalogConfig("sql", "lake", {}), "hive": CatalogConfig("hive", "hive", {})}
        return Catalogs(NamedCatalogs("lake", named), opened)

    def life(self, executor: Executor | None = None, round_bytes: int = 1 << 20) -> "Life":
        self.epoch += 1
        owner = Owner(CLUSTER, self.topic, str(self.topic_id), self.epoch)
        tools = self.tools(executor)
        table = TopicTable(self.settings, owner, self.committed_once, tools)
        gatherer = Gatherer(self.spec(), self.log, tools.executor, self.budget, round_bytes)
        return Life(self, table, gatherer)

    async def opened(self) -> "Life":
        """A new life, whose tables are open."""
        life = self.life()
        await life.table.open()
        return life

    # -- what the tables hold -----------------------------------------------------------------------------------------

    def load(self, suffix: str = "") -> Any:
        *namespace, name = self.identifier
        return self.catalog.inner.load_table((*namespace, name + suffix))

    def rows(self) -> list[tuple[int, int]]:
        """(partition, offset) of every row of the main table, sorted."""
        try:
            found = self.load().scan(selected_fields=("_kafka",)).to_arrow()["_kafka"].to_pylist()
        except NoSuchTableError:
            return []
        return sorted((row["partition"], row["offset"]) for row in found)

    def dead(self) -> list[tuple[int, int]]:
        """(partition, offset) of every dead letter, bad batches offset by offset, sorted."""
        try:
            rows = (
                self.load("__dlq").scan(selected_fields=("partition", "offset", "last_offset")).to_arrow().to_pylist()
            )
        except NoSuchTableError:
            return []
        return sorted((r["partition"], o) for r in rows for o in range(r["offset"], r["last_offset"] + 1))

    def check(self) -> None:
        """Every data position exactly once, in the table or in its dead letters."""
        found = self.rows() + self.dead()
        assert len(found) == len(set(found)), "a position is there twice"
        assert set(found) == self.log.data


class Life:
    def __init__(self, world: World, table: TopicTable, gatherer: Gatherer) -> None:
        self.world = world
        self.table = table
        self.gatherer = gatherer

    async def round(self) -> bool:
        """One gather and commit; False if there was nothing new."""
        gathered = await self.gatherer.gather(self.table.reached, 0.0)
        try:
            committed = await self.table.commit(gathered) if gathered.has_progress else False
        finally:
            self.gatherer.release(gathered)
        self.world.committed_once |= self.table.main.committed_once
        return committed

    async def rounds(self, count: int) -> None:
        """That many rounds, each with a record of its own."""
        for n in range(count):
            self.world.log.produce(0, good([n]))
            await self.round()

    async def drain(self) -> None:
        await self.table.open()
        while any(self.table.reached.position(p) < end for p, end in enumerate(self.world.log.end)):
            await self.round()


async def drain(world: World) -> Life:
    """Until the table holds all of the log; as a task does, it opens the tables again after an error."""
    for left in reversed(range(LIVES_MAX)):
        life = world.life()
        try:
            await life.drain()
            return life
        except Exception:
            if not left:
                raise
        finally:
            world.committed_once |= life.table.main.committed_once
    raise AssertionError("the last life returns or raises")


def good(numbers: Sequence[int], schema_id: int = SCHEMA_ID) -> list[bytes | None]:
    return [value(n, schema_id) for n in numbers]


def value(n: int, schema_id: int = SCHEMA_ID) -> bytes:
    schema = fastavro.parse_schema({"type": "record", "name": "Order", "fields": [{"name": "n", "type": "long"}]})
    body = io.BytesIO()
    fastavro.schemaless_writer(body, schema, {"n": n})
    return b"\0" + schema_id.to_bytes(4, "big") + body.getvalue() + (b"\0" if schema_id == 2 else b"")


BAD = b"\1 not the wire format"


class Pause:
    """Stops a task right before the named call; `reached` tells when, `go` lets it on."""

    def __init__(self, executor: Executor, function: str, nth: int = 1) -> None:
        self.reached = asyncio.Event()
        self.go = asyncio.Event()
        self._left = nth
        self._function = function
        executor.before = self._before

    def _before(self, function: str) -> Any:
        if function == self._function:
            self._left -= 1
            if self._left == 0:
                return self._wait()
        return None

    async def _wait(self) -> None:
        self.reached.set()
        await self.go.wait()


def kill_at(call: int) -> Callable[[str], None]:
    """For Executor.before: die at the n-th blocking call from now."""
    left: Iterator[int] = iter(range(call - 1, -1, -1))

    def before(_: str) -> None:
        if next(left, -1) == 0:
            raise Killed

    return before
