"""A handle on one Iceberg table: load it, create it, put files, commit once.

Every call blocks in the executor, never on the loop. A commit that began is always waited for, even when its task is
cancelled: a commit that nobody waits for would be a zombie of our own. Errors are raised as they are; the committer
finds out by loading again what they mean: landed, did not land, unknown. No error path deletes a file.
"""

import asyncio
import contextlib
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, TypeVar

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import (
    NoSuchIcebergTableError,
    NoSuchPropertyException,
    NoSuchTableError,
    TableAlreadyExistsError,
)
from pyiceberg.manifest import DataFile, ManifestFile
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.refs import SnapshotRefType
from pyiceberg.table.update import (
    RemoveSnapshotRefUpdate,
    RemoveSnapshotsUpdate,
    SetSnapshotRefUpdate,
    TableRequirement,
    TableUpdate,
)

from streamlake.catalogs.capabilities import Capabilities
from streamlake.core.clock import Clock
from streamlake.core.errors import Conflict, Invalid
from streamlake.core.ids import Ids
from streamlake.core.tasks import Executor
from streamlake.table.commit import snapshot
from streamlake.table.commit.files import put_all
from streamlake.table.commit.progress import Progress
from streamlake.table.commit.snapshot import Staged, Stamp

PROPERTIES = {
    "format-version": "2",
    "write.metadata.previous-versions-max": "10",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.parquet.compression-codec": "zstd",
}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Change:
    """One commit: `files` (location → Parquet bytes, and their DataFiles) and the progress they bring. `schema`,
    `updates` and `requirements` change the table's schema and partition specs in the same commit; `spec` is that of the
    files. `dated_ms`: the date of the snapshot if it shall look older than it is; it never is before its parent's.
    `removed`: locations of data files that the table has, and shall no longer. `of_head`: it was made of what the
    table's head holds, and lands on that head alone. `stored` remembers what was put, so that a second attempt puts
    only its own manifests."""

    progress: Progress
    blobs: Mapping[str, Any] = field(default_factory=dict)
    files: Sequence[DataFile] = ()
    schema: Schema | None = None
    spec: PartitionSpec | None = None
    updates: tuple[TableUpdate, ...] = ()
    requirements: tuple[TableRequirement, ...] = ()
    dated_ms: int | None = None
    removed: frozenset[str] = frozenset()
    of_head: bool = False
    stored: set[str] = field(default_factory=set)


class IcebergTable:
    """One table of `catalog`, written by the committer of `epoch`. `identifier`: its namespaces and its name."""

    def __init__(
        self,
        catalog: Catalog,
        identifier: tuple[str, ...],
        epoch: int,
        executor: Executor,
        clock: Clock,
        ids: Ids,
        capabilities: Capabilities,
    ) -> None:
        self.identifier = identifier
        self.executor = executor
        self._catalog = catalog
        self._epoch = epoch
        self._clock = clock
        self._ids = ids
        self._capabilities = capabilities
        self._manifests: tuple[int, tuple[ManifestFile, ...]] | None = None  # of the snapshot we committed last

    @property
    def name(self) -> str:
        return ".".join(self.identifier)

    async def load(self) -> Table | None:
        """As the catalog has it now; None if there is no such table. Invalid: it is no Iceberg table."""
        try:
            return await self.executor.run(self._catalog.load_table, self.identifier)
        except (NoSuchIcebergTableError, NoSuchPropertyException) as error:
            raise Invalid(
                f"{self.name} is in the catalog, but is not an Iceberg table ({error}): drop or rename it, or set "
                "streamlake.table.name"
            ) from None
        except NoSuchTableError:
            return None

    async def create(
        self,
        schema: Schema,
        spec: PartitionSpec = UNPARTITIONED_PARTITION_SPEC,
        properties: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Create it, and its namespaces. No error if it exists by now: load it next. Conflict: the catalog made a
        table, and has another one under this name."""
        await waited_for(self.executor.run(self._create, schema, spec, {**PROPERTIES, **properties}))

    async def put_and_commit(self, table: Table, change: Change) -> Table:
        """Commit `change` on top of what `table` (just loaded) shows. Raises anything; see the module's docstring."""
        staged = await self.executor.run(self._stage, table, change)
        data = {location: blob for location, blob in change.blobs.items() if location not in change.stored}
        await put_all(self.executor, table.io, {**data, **staged.blobs})
        change.stored.update(data)
        requirements = (*staged.requirements, *change.requirements)
        return await self._commit_once(table, staged, requirements, (*change.updates, *staged.updates))

    async def put_and_replace(self, table: Table, staged: Staged) -> Table:
        """Commit a snapshot with the same rows on top of `table`. Raises anything; see the module's docstring."""
        await put_all(self.executor, table.io, staged.blobs)
        return await self._commit_once(table, staged, staged.requirements, staged.updates)

    async def _commit_once(
        self,
        table: Table,
        staged: Staged,
        requirements: tuple[TableRequirement, ...],
        updates: tuple[TableUpdate, ...],
    ) -> Table:
        """The one request. The caller has put all of `staged`: were this machine to die right after the catalog said
        yes, every file that the new snapshot names is durable."""
        kept = tuple(update for update in updates if _is_kept(update, self._capabilities))
        committed = await waited_for(self.executor.run(self._commit, table, requirements, kept))
        self._manifests = (staged.snapshot.snapshot_id, tuple(filter(snapshot.is_live, staged.manifests)))
        return committed

    def stamp(self, table: Table) -> Stamp:
        now_ms = self._clock.now_ms()
        snapshot_id = self._ids.int63()
        while table.metadata.snapshot_by_id(snapshot_id) is not None:
            snapshot_id = self._ids.int63()
        return Stamp(self._epoch, f"{now_ms:011x}-{self._ids.uuid().hex}", snapshot_id, now_ms)

    def data_file_prefix(self, table: Table) -> str:
        """Names of data files start with it: table, epoch and time tell maintenance which orphans are ours and old."""
        return f"streamlake-{table.metadata.table_uuid}-{self._epoch}-{self.stamp(table).attempt}"

    def manifests(self, table: Table) -> Sequence[ManifestFile]:
        """Those of main's head: remembered if the head is our own last commit, else read. Blocks."""
        head = table.metadata.current_snapshot()
        if head is not None and self._manifests is not None and self._manifests[0] == head.snapshot_id:
            return self._manifests[1]
        return snapshot.live_manifests(table)

    def _create(self, schema: Schema, spec: PartitionSpec, properties: dict[str, str]) -> None:
        for depth in range(1, len(self.identifier)):
            self._create_namespace(self.identifier[:depth])
        try:
            made = self._catalog.create_table(self.identifier, schema, partition_spec=spec, properties=properties)
        except TableAlreadyExistsError:
            return
        # Some answer the creation of a table that exists with that table. So what was made is nothing to rely on: the
        # caller loads the table and decides by what it holds. That it is this very table is seen here.
        found = self._catalog.load_table(self.identifier)
        if found.metadata.table_uuid != made.metadata.table_uuid:
            raise Conflict(f"{self.name} was made with uuid {made.metadata.table_uuid}, and is another table now")

    def _create_namespace(self, namespace: tuple[str, ...]) -> None:
        if self._catalog.namespace_exists(namespace):
            return
        try:
            self._catalog.create_namespace(namespace)
        except Exception:  # another table's task was faster: the SQL catalog raises the database's own error
            if not self._catalog.namespace_exists(namespace):
                raise

    def _stage(self, table: Table, change: Change) -> Staged:
        parents = self.manifests(table)
        added = snapshot.Added(change.files, change.schema, change.spec)
        stamp = self.stamp(table)
        if change.dated_ms is not None:
            dated_ms = max(change.dated_ms, table.metadata.last_updated_ms + 1)
            stamp = replace(stamp, now_ms=min(stamp.now_ms, dated_ms))
        if change.removed:
            return snapshot.overwrite(table, parents, change.removed, added, change.progress, stamp)
        return snapshot.append(table, parents, added, change.progress, stamp)

    def _commit(
        self, table: Table, requirements: tuple[TableRequirement, ...], updates: tuple[TableUpdate, ...]
    ) -> Table:
        response = self._catalog.commit_table(table, requirements, updates)
        return Table(
            table.name(), response.metadata, response.metadata_location, table.io, self._catalog, config=table.config
        )


def _is_kept(update: TableUpdate, capabilities: Capabilities) -> bool:
    """False: the catalog would drop it, or refuse a commit with it. What decides, head and progress, is never among
    those."""
    match update:
        case SetSnapshotRefUpdate(type=SnapshotRefType.TAG) | RemoveSnapshotRefUpdate():
            return capabilities.keeps_tags
        case RemoveSnapshotsUpdate():
            return capabilities.keeps_history
    return True


async def waited_for(call: Coroutine[Any, Any, T]) -> T:
    """Await `call` to its end even if we are cancelled meanwhile; the cancellation is raised then."""
    running = asyncio.ensure_future(call)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([running])
        if not running.cancelled():
            running.exception()  # seen
        raise
