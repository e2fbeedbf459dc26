"""Drives the commits of one table: machine.py decides, iceberg.py acts, and the waiting is done here.

Both the table and its dead-letter table have one. `load` is also how a new committer begins: it sees where the table
stands; `claim` then lands an empty snapshot with the new epoch, after which no older committer can land anything.
"""

import asyncio
from collections.abc import Callable

from pyiceberg.table import Table

from streamlake.core.errors import Conflict, StreamLakeError, describe
from streamlake.core.ids import Ids
from streamlake.table.commit.health import Health, unreadable
from streamlake.table.commit.iceberg import Change, IcebergTable
from streamlake.table.commit.machine import (
    CommitMachine,
    Effect,
    ObservedTable,
    Owner,
    Step,
    resume_from,
    table_backoff,
)
from streamlake.table.commit.progress import Progress, beginning, find
from streamlake.table.commit.snapshot import Staged


class Committer:
    """`progress`: what the table holds, as far as we know. `seen`: the same, but only as a load showed it; behind it
    retention may go: a catalog whose commits are not atomic could still take back what only its answer confirmed."""

    def __init__(self, handle: IcebergTable, owner: Owner, committed_once: bool, ids: Ids) -> None:
        self.handle = handle
        self.committed_once = committed_once
        self.table: Table | None = None
        self.progress = beginning(owner.cluster_id, owner.topic, owner.topic_id, owner.epoch)
        self.seen = self.progress
        self.commits = 0
        self.conflicts = 0
        self.health = Health(handle.executor)
        self._owner = owner
        self._ids = ids
        self._observed = ObservedTable(exists=False)

    @property
    def claimed(self) -> bool:
        """Our epoch is in the table: older committers can land nothing more."""
        return self._observed.progress is not None and self._observed.progress.epoch == self._owner.epoch

    async def load(self) -> Progress:
        """Look at the table. Raises Fenced, Invalid (see `resume_from`), Unreadable, or whatever the catalog raises."""
        try:
            self.table = await self.handle.load()
        except FileNotFoundError as error:  # the catalog has the location of its metadata, but there is no such file
            raise unreadable(self.handle.name, f"its metadata file is gone ({error})") from None
        self._observed = _observed(self.table)
        self.progress = self.seen = resume_from(self._observed, self._owner, self.committed_once, self.handle.name)
        self.committed_once |= self._observed.progress is not None and self.progress is self._observed.progress
        return self.progress

    async def confirm(self) -> None:
        """See in the table itself what was committed last. Conflict if it holds something else now, such as after a
        rollback: a round that goes on from what was committed would leave out what was taken back."""
        before = self.progress
        if await self.load() != before:
            raise Conflict(f"table {self.handle.name} no longer shows the last commit")

    async def check_readable(self) -> None:
        """Of the table as just loaded. Raises Unreadable, or whatever the store raises."""
        if self.table is not None:
            await self.health.check(self.table)

    async def look(self) -> None:
        """Called every round, also when there is nothing to commit. Conflict if a file of the table is missing."""
        if self.table is not None:
            await self.health.look(self.table, committing=False)

    async def claim(self, start: Progress | None = None) -> bool:
        """Put our epoch into an existing table, with no rows. A table that holds nothing of this topic begins at
        `start`. False: another committer moved on, load again."""
        if self.claimed:
            return True
        held = start if start is not None and self.progress.is_beginning else self.progress
        return await self.commit(Change(held.advanced(self._owner.epoch, {}, {})))

    async def commit(self, change: Change) -> bool:
        """Land `change`, made for the table as last loaded, once. False if the table moved on meanwhile: nothing of it
        landed, or all of it and more; load again and start from there. Raises Fenced, Invalid, OutcomeUnknown; Conflict
        if a file that the table needs is missing: open it again."""
        if self.table is not None:
            await self.health.look(self.table, committing=True)
        backoff = table_backoff(self._ids)
        machine = CommitMachine(self.progress, change.progress, self._observed, backoff, change.of_head)
        effect = machine.start()
        while True:
            match effect.step:
                case Step.LANDED:
                    self.progress = change.progress
                    self.committed_once = True
                    self.commits += 1
                    return True
                case Step.OVERTAKEN:
                    self.conflicts += 1
                    return False
            try:
                if effect.step is Step.LOAD:
                    await asyncio.sleep(effect.delay_s)
                    progress = await self.load()
                    effect = machine.loaded(self._observed, progress)
                else:
                    effect = await self._commit(machine, change)
            except StreamLakeError:
                raise
            except Exception as error:  # a catalog or a store may raise anything, and every one of it means: unknown
                effect = machine.failed(describe(error))

    async def replace(self, stage: Callable[[Table, Progress], Staged | None]) -> Table | None:
        """Land a snapshot with the same rows, which `stage` (it blocks) makes for the table as we know it. None if it
        makes none. Raises whatever a catalog or a store raises: the next commit finds out whether it landed."""
        assert self.table is not None, "only a claimed table is rewritten"
        staged = await self.handle.executor.run(stage, self.table, self.progress)
        if staged is None:
            return None
        # Fenced by uuid and head like every commit, and it brings the progress along: dying here loses nothing.
        self.table = await self.handle.put_and_replace(self.table, staged)
        self._observed = _observed(self.table)
        return self.table

    async def _commit(self, machine: CommitMachine, change: Change) -> Effect:
        assert self.table is not None, "the task creates a table before it commits to it"
        self.table = await self.handle.put_and_commit(self.table, change)
        self._observed = _observed(self.table)
        return machine.committed()


def _observed(table: Table | None) -> ObservedTable:
    if table is None:
        return ObservedTable(exists=False)
    metadata = table.metadata
    head = metadata.current_snapshot()
    summary = head.summary.additional_properties if head and head.summary else {}
    return ObservedTable(
        exists=True,
        uuid=str(metadata.table_uuid),
        progress=find(metadata),
        rows=head is not None and summary.get("total-records") != "0",
        schema_id=metadata.current_schema_id,
        head=head.snapshot_id if head else None,
    )
