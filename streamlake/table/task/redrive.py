"""Redrive: dead letters are translated again, and those that are rows now move into the main table, once and only once.

    begin      the order is put into the dead-letter table, as a property: whoever takes the table over goes on with it
    step       some files of the dead-letter table: rows into the main table, then their dead letters out of the other
    finish     the property goes

Each step is two commits, the main table's first. If we die in between, the records are in both tables. So before each
step its dead letters are looked for in the very head of the main table that its commit requires: what is there already
only leaves the dead-letter table. Until the last such dead letter is gone the order stays, and is resumed.

Only offsets that the main table accounts for are touched: above them dead letters decide what a round must leave out
(settled.py). A bad batch and a header that is not text stay: what was sent cannot be told from their dead letters.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io.pyarrow import ArrowScan
from pyiceberg.table import FileScanTask, Table
from pyiceberg.table.update import RemovePropertiesUpdate, SetPropertiesUpdate
from pyiceberg.types import StructType

from streamlake.cluster.config.columns import LAYOUTS
from streamlake.core.budget import Budget
from streamlake.core.errors import Invalid
from streamlake.core.tasks import Executor
from streamlake.table.commit.progress import Progress
from streamlake.table.formats.converted import Reason, RowError
from streamlake.table.rows.project import table_schema
from streamlake.table.rows.writer import WrittenFile
from streamlake.table.task.control import RedriveReport
from streamlake.table.task.gather import ACCOUNT, MEMORY_TIMEOUT_S
from streamlake.table.task.round import SCHEMA
from streamlake.table.task.topic_table import TopicTable

PROPERTY = "streamlake.redrive"
STEP_BYTES = 8 << 20  # of the dead-letter table's Parquet files; a step has at least one
FINAL = frozenset({Reason.INVALID_HEADER, Reason.INVALID_BATCH})
REDRIVABLE = tuple(reason for reason in Reason if reason not in FINAL)

_TIMESTAMP_TYPES = pa.array(["CreateTime", "LogAppendTime"], pa.large_string())  # by number, as in a record batch


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which dead letters: those of `reasons`. The value of PROPERTY, as JSON."""

    reasons: tuple[str, ...] = REDRIVABLE
    asked_ms: int = 0  # when
    version: int = 1


@dataclass(slots=True)
class Counts:
    """`found`: were rows already, by a step that somebody did not finish."""

    redriven: int = 0
    found: int = 0
    still_dead: int = 0
    files_left: int = 0


@dataclass(frozen=True, slots=True)
class Letters:
    """All rows of some files (pa.Table of the dead-letter table's columns); and the numbers, ascending, of those that
    are to be redriven."""

    files: frozenset[str]
    rows: Any
    chosen: Any  # int64 array

    def records(self, numbers: Any) -> Any:
        """Those of some rows, as they were in the log."""
        rows = self.rows.take(numbers)
        timestamp = pc.fill_null(pc.divide(rows["timestamp"].cast(pa.int64()), 1000), -1)
        kind = pc.fill_null(pc.index_in(rows["timestamp_type"].cast(pa.large_string()), _TIMESTAMP_TYPES), 0)
        columns = {"timestamp": timestamp, "timestamp_type": kind}
        headers = pa.array([[] if h is None else h for h in rows["headers"].to_pylist()], SCHEMA.field("headers").type)
        columns["headers"] = headers
        arrays = [(columns[f.name] if f.name in columns else rows[f.name]).cast(f.type) for f in SCHEMA]
        return pa.Table.from_arrays(arrays, schema=SCHEMA)


class Redrive:
    """One order, for the committer that has `table` open. Every method raises what commits raise; open the table again
    then, and `resume`."""

    def __init__(self, table: TopicTable, order: Order, executor: Executor, budget: Budget) -> None:
        self.counts = Counts()
        self.order = order
        self._table = table
        self._executor = executor
        self._budget = budget
        self._files: list[str] | None = None

    @classmethod
    def resume(cls, table: TopicTable, executor: Executor, budget: Budget) -> "Redrive | None":
        """What the dead-letter table, just opened, says that is to be done."""
        order = pending(table.dead_letters.table)
        return cls(table, order, executor, budget) if order is not None else None

    def continue_from(self, told: RedriveReport) -> None:
        """Go on counting where an attempt of this worker was interrupted."""
        self.counts.redriven, self.counts.found = told.redriven, told.found

    async def begin(self) -> None:
        """When it returns the order is durable."""
        text = msgspec.json.encode(self.order).decode()
        await self._table.rewrite_dead_letters(updates=(SetPropertiesUpdate(updates={PROPERTY: text}),))

    async def step(self) -> bool:
        """Redrive some. True if nothing is left to do: then the order is gone."""
        source = self._table.dead_letters.table
        assert source is not None, "an order is in the dead-letter table"
        if self._files is None:
            self._files = await self._executor.run(_files, source)
        if self._files:
            letters = await self._executor.run(_read, source, self._files, self.order, self._table.held)
            self._files = [path for path in self._files if path not in letters.files]
            size_bytes = min(2 * letters.rows.nbytes, self._budget.total_bytes)
            await self._budget.take(ACCOUNT, size_bytes, MEMORY_TIMEOUT_S)
            try:
                await self._redrive(letters)
            finally:
                self._budget.give(ACCOUNT, size_bytes)
        self.counts.files_left = len(self._files)
        if not self._files:
            await self.finish()
        return not self._files

    async def finish(self) -> None:
        """Take the order back, done or not."""
        await self._table.rewrite_dead_letters(updates=(RemovePropertiesUpdate(removals=[PROPERTY]),))

    async def _redrive(self, letters: Letters) -> None:
        if not len(letters.chosen):
            return
        records = letters.records(letters.chosen)
        there = await self._executor.run(_there, self._table.main.table, records)
        absent = pc.and_(pc.invert(there), _firsts(records))
        again = letters.chosen.filter(absent)
        errors: Sequence[RowError] = ()
        if len(again):
            # First of the two commits, on the very head that was looked at: were we to die after it, the next look
            # finds these records there. They are in no round, as all of them lie below the table's positions.
            errors = await self._table.commit_again(records.filter(absent))
        dead = {again[error.row].as_py(): error for error in errors}
        still = set(_positions(letters.rows.take(pa.array(dead, pa.int64()))))
        gone = letters.chosen.filter(pa.array([p not in still for p in _positions(records)], pa.bool_()))
        self.counts.still_dead += len(dead)
        self.counts.redriven += len(again) - len(dead)
        self.counts.found += pc.sum(there).as_py()
        if not len(gone) and not _has_news(letters.rows, dead):
            return
        # A dead letter leaves only after its row was seen to land: dying before this commit leaves it in both tables,
        # dying after it in the main table alone.
        files = await self._executor.run(_rewritten, letters, gone, dead, self._table)
        await self._table.rewrite_dead_letters(letters.files, files, len(gone))


def pending(dead_letters: Table | None) -> Order | None:
    """The order that the dead-letter table has. Raises Invalid if nobody can read it."""
    text = dead_letters.metadata.properties.get(PROPERTY) if dead_letters is not None else None
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=Order)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"the property {PROPERTY} of the dead-letter table cannot be read ({error}): remove it") from None


def order_of(reason: str) -> Order:
    """For one reason; "" for all. Invalid says which there are."""
    if not reason:
        return Order()
    if reason not in REDRIVABLE:
        known = ", ".join(REDRIVABLE)
        why = "cannot be told again from its dead letter" if reason in tuple(FINAL) else "is no reason"
        raise Invalid(f"{reason[:100]!r} {why}: redrive {known}, or all of these by naming none")
    return Order((reason,))


def _files(table: Table) -> list[str]:
    """Of the head, by location. Blocks."""
    return [task.file.file_path for task in table.scan().plan_files()]


def _read(table: Table, files: Sequence[str], order: Order, held: Progress) -> Letters:
    """The first of `files`: as many as make a step. Blocks."""
    places = {path: number for number, path in enumerate(files)}
    tasks = [task for task in table.scan().plan_files() if task.file.file_path in places]
    tasks.sort(key=lambda task: places[task.file.file_path])
    some: list[FileScanTask] = []
    size_bytes = 0
    for task in tasks:
        if some and size_bytes + task.file.file_size_in_bytes > STEP_BYTES:
            break
        some.append(task)
        size_bytes += task.file.file_size_in_bytes
    rows = ArrowScan(table.metadata, table.io, table.schema(), AlwaysTrue()).to_table(some)
    rows = rows.cast(table_schema(table.schema())).combine_chunks()
    return Letters(frozenset(task.file.file_path for task in some), rows, _chosen(rows, order, held))


def _chosen(rows: Any, order: Order, held: Progress) -> Any:
    wanted = pc.is_in(rows["reason"], pa.array(order.reasons, rows["reason"].type))
    single = pc.equal(rows["offset"], rows["last_offset"])
    limits = [held.position(p) if p is not None and p >= 0 else 0 for p in rows["partition"].to_pylist()]
    below = pc.less(rows["offset"], pa.array(limits, pa.int64()))
    return pa.arange(0, len(rows)).filter(pc.fill_null(pc.and_(pc.and_(wanted, single), below), False))


def _firsts(records: Any) -> Any:
    """Of each position one, as a bool array: whoever copied a dead letter shall not have two rows."""
    seen: set[tuple[int, int]] = set()
    return pa.array([not (p in seen or seen.add(p)) for p in _positions(records)], pa.bool_())  # type: ignore[func-returns-value]


def _positions(rows: Any) -> list[tuple[int, int]]:
    return list(zip(rows["partition"].to_pylist(), rows["offset"].to_pylist(), strict=True))


def _there(table: Table | None, records: Any) -> Any:
    """Which records the table has a row of, as a bool array. Reads, of the files that may have one, partition and
    offset. Blocks."""
    found: set[tuple[int, int]] = set()
    if table is not None:
        wanted = set(_positions(records))
        for struct in (layout.struct for layout in LAYOUTS.values()):
            column = next((f.field_type for f in table.schema().fields if f.name == struct), None)
            if isinstance(column, StructType) and {"partition", "offset"} <= {f.name for f in column.fields}:
                found |= _found(table, struct, wanted)
    return pa.array([position in found for position in _positions(records)], pa.bool_())


def _found(table: Table, struct: str, wanted: set[tuple[int, int]]) -> set[tuple[int, int]]:
    names = (f"{struct}.partition", f"{struct}.offset")
    scan = table.scan(row_filter=_between(names, wanted), selected_fields=names)
    found: set[tuple[int, int]] = set()
    tasks = list(scan.plan_files())
    for batch in ArrowScan(table.metadata, table.io, scan.projection(), AlwaysTrue()).to_record_batches(tasks):
        column = batch.column(struct)
        rows = {name: column.field(name) for name in ("partition", "offset")}
        offsets = pa.array({offset for _, offset in wanted}, rows["offset"].type)
        may = pc.is_in(rows["offset"], offsets)
        found |= wanted.intersection(_positions({name: values.filter(may) for name, values in rows.items()}))
    return found


def _between(names: tuple[str, str], wanted: set[tuple[int, int]]) -> str:
    """A filter for what rows at these positions have in common, partition by partition."""
    offsets: dict[int, list[int]] = {}
    for partition, offset in wanted:
        offsets.setdefault(partition, []).append(offset)
    return " or ".join(
        f"({names[0]} = {partition} and {names[1]} >= {min(found)} and {names[1]} <= {max(found)})"
        for partition, found in sorted(offsets.items())
    )


def _has_news(rows: Any, dead: dict[int, RowError]) -> bool:
    """A record is dead for another reason than its dead letter says."""
    return any(rows["reason"][number].as_py() != str(error.reason) for number, error in dead.items())


def _rewritten(letters: Letters, gone: Any, dead: dict[int, RowError], table: TopicTable) -> list[WrittenFile]:
    """New files for all rows but `gone`; those of `dead` say why they are dead now. Blocks."""
    rows = letters.rows
    for name, text in (("reason", lambda error: str(error.reason)), ("error", lambda error: error.message)):
        if dead:
            values = rows[name].to_pylist()
            for number, error in dead.items():
                values[number] = text(error)
            at = rows.schema.get_field_index(name)
            rows = rows.set_column(at, rows.schema.field(at), pa.array(values, rows.schema.field(at).type))
    numbers = pa.arange(0, len(rows))
    return table.dead_letter_files(rows.filter(pc.invert(pc.is_in(numbers, gone))))
