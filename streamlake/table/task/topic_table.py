"""The two Iceberg tables of one topic, `<name>` and `<name>__dlq`, and how a round lands in them exactly once.

Exactly once rests on the order. At the start the committer claims both tables, so that nothing of an older one can land
any more, and only then reads which offsets are dead letters for ever. A round's dead letters commit first, the main
table last: a crash in between leaves the main table's position behind, and the settled dead letters tell the next try
what is already decided. The dead-letter table exists from the start: a table that is not there cannot be claimed.

The main table is made for its first row. Until then the dead-letter table's progress tells where the topic stands: as
long as no position below it has left a row, it accounts for all of them, and the main table begins there.
"""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

import msgspec
import pyarrow as pa
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.update import TableUpdate

from streamlake.cluster.config.table import TableSettings
from streamlake.core.errors import Conflict, Invalid
from streamlake.table.commit.committer import Committer
from streamlake.table.commit.health import unreadable
from streamlake.table.commit.iceberg import Change, IcebergTable
from streamlake.table.commit.machine import Owner
from streamlake.table.commit.progress import DEAD_LETTER, TOMBSTONE, Progress, rowless
from streamlake.table.commit.tools import Tools
from streamlake.table.formats.converted import INVALID_DATA, Reason, RowError
from streamlake.table.rows import pipeline
from streamlake.table.rows.partition import (
    NotPartitionable,
    Partitioning,
    partition_spec,
    partitioning,
    pending_of,
    properties_of,
    unpartitioned,
)
from streamlake.table.rows.pipeline import Evolved, Translated
from streamlake.table.rows.writer import WrittenFile
from streamlake.table.task import dead_letters
from streamlake.table.task.dead_letters import DEAD_LETTER_SCHEMA
from streamlake.table.task.names import DEAD_LETTER_SUFFIX
from streamlake.table.task.round import Round
from streamlake.table.task.settled import NONE_SETTLED, read_settled

TOLERATED = {"none": frozenset(), "invalid_data": INVALID_DATA, "all": frozenset(Reason)}

# Positions without rows are committed (by an empty snapshot) only when they hold retention back for long.
EMPTY_POSITIONS_MAX = 100_000
EMPTY_MS_MAX = 10 * 60_000


class TopicTable:
    """`reached`: where the next round starts; ahead of `held` only by positions without rows."""

    def __init__(self, settings: TableSettings, owner: Owner, committed_once: bool, tools: Tools) -> None:
        name = settings.name or owner.topic
        self.main = self._committer(settings.namespace, name, owner, committed_once, tools)
        self.dead_letters = self._committer(settings.namespace, name + DEAD_LETTER_SUFFIX, owner, False, tools)
        self.reached = self.main.progress
        self.last_commit_ms: int | None = None
        self.rest_rows = 0  # committed here, with values that no column holds
        self.dead_reasons: Counter[str] = Counter()  # of the dead letters that were committed here
        self._settled = NONE_SETTLED
        self._decided = self.dead_letters.progress  # how far the settled dead letters reach
        self._behind_since_ms: int | None = None
        self._not_partitioned = ""
        self._settings = settings
        self._owner = owner
        self._tools = tools

    @staticmethod
    def _committer(namespace: str, name: str, owner: Owner, committed_once: bool, tools: Tools) -> Committer:
        identifier = (*namespace.split("."), name)
        handle = IcebergTable(
            tools.catalog, identifier, owner.epoch, tools.executor, tools.clock, tools.ids, tools.capabilities
        )
        return Committer(handle, owner, committed_once, tools.ids)

    @property
    def held(self) -> Progress:
        """What the two tables account for."""
        return rowless(self.dead_letters.progress) if self.main.progress.is_beginning else self.main.progress

    @property
    def seen(self) -> Progress:
        """The same, but only as a load showed it: retention may follow."""
        return rowless(self.dead_letters.seen) if self.main.seen.is_beginning else self.main.seen

    @property
    def note(self) -> str:
        """What an operator may want to know or change, although the table goes on."""
        if self.main.table is None:
            dead = self.held.skipped.get(DEAD_LETTER, 0)
            where = self.dead_letters.handle.name
            return f"there is no table yet, as no record became a row; dead letters in {where}: {dead}" if dead else ""
        pending = pending_of(self.main.table.metadata, self._settings.partition_by)
        notes = [f"not partitioned by {found.item}: {found.why}" for found in pending]
        if self._not_partitioned:
            notes = [self._not_partitioned]
        return "; ".join([*notes, *self._lost()])

    @property
    def waiting_for(self) -> str:
        """What has to come before there is a table."""
        if self.main.table is not None:
            return ""
        return "the first record that can be a row" if self.held.skipped.get(DEAD_LETTER) else "the first record"

    def _lost(self) -> list[str]:
        """What the catalog does not keep of what we commit."""
        kept = self._tools.capabilities
        if kept.keeps_tags and kept.keeps_history:
            return []
        lost = [what for what, keeps in (("tags", kept.keeps_tags), ("history", kept.keeps_history)) if not keeps]
        return [
            f"the catalog keeps no {' and no '.join(lost)} of the table, so there is no time travel; its progress is "
            "kept by the table property streamlake.progress"
        ]

    async def confirm(self) -> None:
        """Look for our last commit in the table itself, so that the hold may follow."""
        committer = self.dead_letters if self.main.progress.is_beginning else self.main
        if committer.seen != committer.progress:
            await committer.confirm()

    async def open(self) -> None:
        """Take over: load and claim both tables, read the settled dead letters. Raises Fenced, Invalid, Unreadable,
        Conflict (try again)."""
        await self.main.load()
        await self.main.check_readable()
        await self.dead_letters.load()
        await self.dead_letters.check_readable()
        if self.dead_letters.table is None and self._settings.errors_tolerance != "none":
            await self.dead_letters.handle.create(DEAD_LETTER_SCHEMA)
            await self.dead_letters.load()
        _check_columns(self.dead_letters)
        await self._claim(self.dead_letters)
        if self.main.table is None:  # an older committer that creates it later finds that we have claimed the other
            await self.main.load()
        await self._claim(self.main)
        # From here on no older committer can add a dead letter or a row, so what is read now stays true.
        self._decided = self.dead_letters.progress
        try:
            self._settled = await self._tools.executor.run(
                read_settled, self.dead_letters.table, self._decided, self.held
            )
        except FileNotFoundError as error:
            raise unreadable(self.dead_letters.handle.name, f"a file of it is gone ({error})") from None
        self.reached = self.held
        self._behind_since_ms = None

    async def _claim(self, committer: Committer) -> None:
        start = rowless(self.dead_letters.progress) if committer is self.main else None
        if committer.table is not None and not await committer.claim(start):
            raise Conflict(f"table {committer.handle.name} changed during the takeover")

    async def commit(self, done: Round) -> bool:
        """Land a round that starts at `reached`. True if something was committed. Raises Invalid for a record that
        is not tolerated, Conflict if another committer moved on, Unavailable, OutcomeUnknown: open again."""
        dated_ms = self._tools.clock.now_ms() - round(done.age_s * 1000) if done.age_s else None
        records = done.records()
        run = self._tools.executor.run
        translated = await self._translate(records, self._settled)
        evolved = await self._evolve(translated)
        bad_batches = done.new_bad_batches(self._settled)
        self._check_tolerance(translated, evolved, bad_batches)
        if self.main.table is None and evolved.schema.fields:
            evolved = await self._create(evolved, translated)
            self._check_tolerance(translated, evolved, bad_batches)  # somebody else may have created the table
        files, partitioned = await run(self._write, translated, evolved) if self.main.table is not None else ([], None)
        dead = len(evolved.dead) + len(records) - len(translated.records) - translated.tombstones
        done.check_account(sum(file.rows for file in files), dead + translated.tombstones)
        skipped = {**done.skipped, DEAD_LETTER: dead + done.dead_positions, TOMBSTONE: translated.tombstones}
        after = self.reached.advanced(self._owner.epoch, done.positions, skipped)
        must = dead + done.dead_positions > 0 or self._overdue(after)
        alone = self.main.table is None and self.dead_letters.table is not None and must
        if evolved.dead or bad_batches or alone:
            await self._commit_dead_letters(translated, evolved, bad_batches, after)
        if self.main.table is not None and (files or must):
            await self._commit_main(change_of(files, after, evolved if files else None, partitioned, dated_ms))
        elif not alone:
            self.reached = after
            return False
        self.reached = after
        self._behind_since_ms = None
        self.rest_rows += translated.rest_rows
        self.last_commit_ms = self._tools.clock.now_ms()
        return True

    async def commit_again(self, records: Any) -> Sequence[RowError]:
        """Translate dead letters below `held` once more, and commit what is a row now; none of them may be in the main
        table's head. Returns the errors of the others. Raises what `commit` does."""
        translated = await self._translate(records, NONE_SETTLED, leave_tombstones=False)
        evolved = await self._evolve(translated)
        if self.main.table is None and evolved.schema.fields:
            evolved = await self._create(evolved, translated)
        landed = len(records) - len(evolved.dead)
        if not landed:
            return evolved.dead
        counted = self.main.progress.skipped.get(DEAD_LETTER, 0)
        if counted < landed:
            raise Invalid(
                f"{self.dead_letters.handle.name} holds {landed} records that can be rows now, but only {counted} of "
                "its dead letters are counted: somebody added rows to it, which StreamLake does not move"
            )
        files, partitioned = await self._tools.executor.run(self._write, translated, evolved)
        less = {DEAD_LETTER: -landed}
        after = self.main.progress.advanced(self._owner.epoch, {}, less)
        change = change_of(files, after, evolved, partitioned)
        await self._commit_main(replace(change, of_head=True))
        self.reached = self.reached.advanced(self._owner.epoch, {}, less)  # it may be ahead of what was committed
        self.last_commit_ms = self._tools.clock.now_ms()
        return evolved.dead

    async def rewrite_dead_letters(
        self,
        removed: frozenset[str] = frozenset(),
        files: Sequence[WrittenFile] = (),
        letters: int = 0,
        updates: tuple[TableUpdate, ...] = (),
    ) -> None:
        """Commit `files` instead of those at `removed`, without `letters` dead letters that are rows now."""
        committer = self.dead_letters
        # What it counts accounts for positions without rows. With fewer than there are, the main table, were it
        # dropped, would not begin there: its rows are read from the log again.
        counted = committer.progress.skipped.get(DEAD_LETTER, 0)
        after = committer.progress.advanced(self._owner.epoch, {}, {DEAD_LETTER: -min(letters, counted)})
        change = replace(change_of(list(files), after), removed=removed, updates=updates, of_head=True)
        if not await committer.commit(change):
            raise Conflict(f"table {committer.handle.name} was changed by another committer")

    async def _translate(
        self, records: Any, settled: Collection[tuple[int, int]], leave_tombstones: bool = True
    ) -> Translated:
        metadata = self.main.table.metadata if self.main.table is not None else None
        schemas, topic = self._tools.schemas, self._owner.topic
        return await self._tools.executor.run(
            pipeline.translate, records, self._settings, schemas, topic, settled, metadata, leave_tombstones
        )

    async def _evolve(self, translated: Translated, made: Evolved | None = None) -> Evolved:
        metadata = self.main.table.metadata if self.main.table is not None else None
        longest = self._tools.capabilities.type_chars_max
        return await self._tools.executor.run(pipeline.evolve, metadata, translated, longest, made)

    def _check_tolerance(self, translated: Translated, evolved: Evolved, bad_batches: list[Any]) -> None:
        tolerated = TOLERATED[self._settings.errors_tolerance]
        for error in evolved.dead:
            if error.reason not in tolerated:
                at = translated.records.slice(error.row, 1)
                where = f"partition {at['partition'][0]} offset {at['offset'][0]}"
                raise Invalid(self._stopped(f"the record at {where}: {error.reason}, {error.message}"))
        if bad_batches and Reason.INVALID_BATCH not in tolerated:
            partition, batch = bad_batches[0]
            where = f"partition {partition} offset {batch.base_offset}"
            raise Invalid(self._stopped(f"the batch at {where}: {Reason.INVALID_BATCH}, {batch.error}"))

    def _stopped(self, what: str) -> str:
        return (
            f"stopped at {what}. Nothing from there on is committed; streamlake.table.errors.tolerance is "
            f"{self._settings.errors_tolerance}: a more tolerant value sends such records to the dead-letter table"
        )

    async def _create(self, evolved: Evolved, translated: Translated) -> Evolved:
        """Create the main table for its first schema, and bind the schema to the ids that the catalog assigned."""
        spec, pending = partition_spec(evolved.schema, self._settings.partition_by)
        await self.main.handle.create(evolved.schema, spec, properties_of(self._settings.partition_by, pending))
        await self.main.load()
        if self.main.table is None or not self.main.progress.is_beginning:
            raise Conflict(
                f"table {self.main.handle.name} was created by another committer, or dropped, in the meantime"
            )
        # A newer committer that began before the table was there, and so could not claim it, has claimed the other.
        await self.dead_letters.confirm()
        # Before any dead letter of this round: an older committer that also just created it must not land in it.
        await self._claim(self.main)
        return await self._evolve(translated, evolved)

    def _write(self, translated: Translated, evolved: Evolved) -> tuple[list[WrittenFile], Partitioning]:
        table = self.main.table
        assert table is not None
        rows = pipeline.assemble(translated, evolved)
        paths, properties = paths_of(self.main.handle, table), table.metadata.properties
        chosen = partitioning(table.metadata, evolved.schema, self._settings.partition_by)
        self._not_partitioned = ""
        try:
            return pipeline.write(rows, evolved.schema, chosen.spec, paths, properties), chosen
        except NotPartitionable as error:
            self._not_partitioned = str(error)
            chosen = unpartitioned(table.metadata)
            return pipeline.write(rows, evolved.schema, chosen.spec, paths, properties), chosen

    async def _commit_dead_letters(
        self, translated: Translated, evolved: Evolved, bad_batches: list[Any], after: Progress
    ) -> None:
        committer = self.dead_letters
        files = await self._tools.executor.run(self._write_dead, translated, evolved, bad_batches)
        # Never backwards: a longer round of an earlier life may have settled more than this one reaches.
        positions = {p: max(n, committer.progress.position(p)) for p, n in enumerate(after.next)}
        decided = committer.progress.advanced(self._owner.epoch, positions, {})
        if self.main.table is None and decided.next == after.next:  # no row so far: it accounts for all positions
            decided = msgspec.structs.replace(decided, skipped=after.skipped)
        # First of the two commits: if we die before the main table's, these rows are found again as settled.
        if not await committer.commit(change_of(files, decided)):
            raise Conflict(f"table {committer.handle.name} was changed by another committer")
        self.dead_reasons.update(str(error.reason) for error in evolved.dead)
        self.dead_reasons[Reason.INVALID_BATCH] += sum(b.last_offset + 1 - b.base_offset for _, b in bad_batches)
        self.dead_reasons = +self.dead_reasons

    def _write_dead(self, translated: Translated, evolved: Evolved, bad_batches: list[Any]) -> list[WrittenFile]:
        topic = self._owner.topic
        rows = pa.concat_tables(
            [
                dead_letters.dead_rows(topic, translated.records, evolved.dead),
                dead_letters.dead_batches(topic, bad_batches),
            ]
        )
        return self.dead_letter_files(rows, DEAD_LETTER_SCHEMA)

    def dead_letter_files(self, rows: Any, schema: Schema | None = None) -> list[WrittenFile]:
        """Of rows of `schema`; by default the table's, to which somebody may have added columns. Blocks."""
        table = self.dead_letters.table
        assert table is not None
        paths = paths_of(self.dead_letters.handle, table)
        metadata = table.metadata
        return pipeline.write(rows, schema or metadata.schema(), metadata.spec(), paths, metadata.properties)

    async def _commit_main(self, change: Change) -> None:
        # Last of the two commits, and fenced: it lands on the very snapshot that holds `before`, or not at all. From
        # the moment it has landed its positions are found in the table, so nothing reads these records again.
        if not await self.main.commit(change):
            raise Conflict(f"table {self.main.handle.name} was changed by another committer")
        if all(change.progress.position(p) >= decided for p, decided in enumerate(self._decided.next)):
            self._settled = NONE_SETTLED

    def _overdue(self, after: Progress) -> bool:
        behind = sum(after.next) - sum(self.held.next)
        if behind == 0:
            return False
        now_ms = self._tools.clock.now_ms()
        if self._behind_since_ms is None:
            self._behind_since_ms = now_ms
        return behind >= EMPTY_POSITIONS_MAX or now_ms - self._behind_since_ms >= EMPTY_MS_MAX


def _check_columns(dead_letters: Committer) -> None:
    """The dead-letter table is written with fixed field ids: it must be ours, not somebody's table of this name."""
    if dead_letters.table is None:
        return
    found = [(f.field_id, f.name, f.field_type) for f in dead_letters.table.schema().fields]
    if any((f.field_id, f.name, f.field_type) not in found for f in DEAD_LETTER_SCHEMA.fields):
        name = dead_letters.handle.name
        raise Invalid(f"table {name} does not have the columns of a dead-letter table: drop or rename it")


def change_of(
    files: list[WrittenFile],
    progress: Progress,
    evolved: Evolved | None = None,
    partitioned: Partitioning | None = None,
    dated_ms: int | None = None,
) -> Change:
    """The commit of `files`, with the schema and the spec that they were written with, if these are new."""
    blobs = {file.data_file.file_path: file.data for file in files}
    data_files = [file.data_file for file in files]
    if evolved is None or partitioned is None:
        return Change(progress, blobs, data_files, dated_ms=dated_ms)
    updates = (*evolved.updates, *partitioned.updates)
    requirements = (*evolved.requirements, *partitioned.requirements)
    return Change(progress, blobs, data_files, evolved.schema, partitioned.spec, updates, requirements, dated_ms)


def paths_of(handle: IcebergTable, table: Table) -> Callable[[str], str]:
    """Full paths for the data files of one round, by partition folder."""
    provider = table.location_provider()
    prefix = handle.data_file_prefix(table)
    numbers = count()

    def path(folder: str) -> str:
        name = f"{prefix}-{next(numbers)}.parquet"
        return provider.new_data_location(f"{folder}/{name}" if folder else name)

    return path
