"""Commits to tables of a SQL catalog: of one or of several, all or nothing, in one SQL transaction.

A table of such a catalog is a row that names its metadata file. A commit writes new metadata files, which nobody sees,
and then changes all rows in one transaction, each only if it still names the file that the change was made for. A
commit that loses such a race is made anew for the winner's table, as long as its own requirements hold: the client
asked for no more. pyiceberg checks the requirements and applies the updates.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pyiceberg.catalog.sql import IcebergTables, SqlCatalog
from pyiceberg.exceptions import (
    CommitFailedException,
    CommitStateUnknownException,
    NoSuchTableError,
    TableAlreadyExistsError,
)
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.update import (
    AssertCreate,
    AssertCurrentSchemaId,
    AssertDefaultSortOrderId,
    AssertDefaultSpecId,
    AssertLastAssignedFieldId,
    AssertLastAssignedPartitionId,
    AssertTableUUID,
    RemovePropertiesUpdate,
    RemoveSnapshotsUpdate,
    TableRequirement,
    TableUpdate,
)
from pyiceberg.typedef import Identifier
from sqlalchemy import insert, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from streamlake.catalogs import version_hint
from streamlake.core.errors import Unavailable
from streamlake.iceberg_rest.numbering import renumbered
from streamlake.iceberg_rest.request import table_key

ATTEMPTS_MAX = 5
WORDS = {
    AssertCreate: "table already exists",
    AssertTableUUID: "UUID does not match",
    AssertCurrentSchemaId: "current schema changed",
    AssertLastAssignedFieldId: "last assigned field id changed",
    AssertDefaultSpecId: "default partition spec changed",
    AssertLastAssignedPartitionId: "last assigned partition id changed",
    AssertDefaultSortOrderId: "default sort order changed",
}


@dataclass(frozen=True, slots=True)
class Change:
    """`check` may refuse the change of a table that exists, by what it holds now."""

    identifier: Identifier
    requirements: tuple[TableRequirement, ...]
    updates: tuple[TableUpdate, ...]
    check: Callable[[TableMetadata], None]

    @property
    def creates(self) -> bool:
        return any(isinstance(r, AssertCreate) for r in self.requirements)


@dataclass(frozen=True, slots=True)
class Staged:
    """`before`: the table that the change was made for, None if it is created; `after`: the same if nothing changes."""

    before: Table | None
    after: Table

    @property
    def changed(self) -> bool:
        return self.before is not self.after


class _Lost(Exception):
    """A row named another metadata file; nothing was changed."""


def commit(catalog: SqlCatalog, changes: Sequence[Change]) -> list[Staged]:
    """Raises CommitFailedException, NoSuchTableError, TableAlreadyExistsError, ValueError, Unavailable: nothing of it
    was done; CommitStateUnknownException."""
    for _ in range(ATTEMPTS_MAX):
        changed: list[Staged] = []
        try:
            staged = [_stage(catalog, change) for change in changes]
            changed = [one for one in staged if one.changed]
            for one in changed:
                catalog._write_metadata(one.after.metadata, one.after.io, one.after.metadata_location)
            _swap(catalog, changed)
            for one in changed:
                version_hint.write(one.after)
            return staged
        except CommitStateUnknownException:
            raise  # a row may name these files
        except _Lost:
            _discard(changed)
        except (OSError, SQLAlchemyError) as error:
            _discard(changed)
            raise Unavailable("the catalog's database or its warehouse failed: nothing was committed") from error
        except Exception:
            _discard(changed)
            raise
    raise CommitFailedException(f"other commits were faster {ATTEMPTS_MAX} times: load the table and commit again")


def _stage(catalog: SqlCatalog, change: Change) -> Staged:
    before: Table | None = None
    try:
        before = catalog.load_table(change.identifier)
    except NoSuchTableError:
        if not change.creates:
            raise
    metadata = before.metadata if before is not None else None
    _require(change.requirements, metadata)
    updates = change.updates
    if metadata is not None:
        change.check(metadata)
        updates = tuple(_without_absent(update, metadata) for update in renumbered(updates, metadata))
    after = catalog._update_and_stage_table(before, change.identifier, (), updates)
    return Staged(before, before if before is not None and after.metadata == before.metadata else after)


def _require(requirements: Sequence[TableRequirement], metadata: TableMetadata | None) -> None:
    """Of all that a commit requires. Raises CommitFailedException in Iceberg's words, where pyiceberg has others."""
    for requirement in requirements:
        try:
            requirement.validate(metadata)
        except CommitFailedException as error:
            words = WORDS.get(type(requirement))
            raise CommitFailedException(f"Requirement failed: {words}: {error}" if words else str(error)) from None


def _without_absent(update: TableUpdate, metadata: TableMetadata) -> TableUpdate:
    """pyiceberg fails on the removal of a property or a snapshot that is not there, where Iceberg ignores it: somebody
    else may have expired a snapshot since the client looked."""
    match update:
        case RemovePropertiesUpdate(removals=keys):
            return RemovePropertiesUpdate(removals=[key for key in keys if key in metadata.properties])
        case RemoveSnapshotsUpdate(snapshot_ids=ids):
            there = {snapshot.snapshot_id for snapshot in metadata.snapshots}
            return RemoveSnapshotsUpdate(snapshot_ids=[id for id in ids if id in there])  # type: ignore[call-arg]
    return update


def _swap(catalog: SqlCatalog, changed: Sequence[Staged]) -> None:
    with Session(catalog.engine) as session:
        for one in sorted(changed, key=lambda one: one.after.name()):  # in one order, as databases lock rows
            namespace, name = table_key(one.after.name())
            if one.before is None:
                row = catalog._create_table_row(namespace, name, one.after.metadata_location)
                try:
                    session.execute(insert(IcebergTables).values(**row))
                except IntegrityError:
                    raise TableAlreadyExistsError(f"Table already exists: {namespace}.{name}") from None
                continue
            # The row as it was read, or nothing: a table that was changed, dropped or made anew meanwhile, by anybody,
            # names another file, whose name has a uuid of its own.
            result: Any = session.execute(
                update(IcebergTables)
                .where(
                    IcebergTables.catalog_name == catalog.name,
                    IcebergTables.table_namespace == namespace,
                    IcebergTables.table_name == name,
                    IcebergTables.metadata_location == one.before.metadata_location,
                )
                .values(
                    metadata_location=one.after.metadata_location,
                    previous_metadata_location=one.before.metadata_location,
                )
            )
            if result.rowcount != 1:
                raise _Lost
        try:
            # All tables or none: dying before this line leaves files that no row names, dying after it a whole commit.
            # Every metadata file was durable before its row named it.
            session.commit()
        except SQLAlchemyError as error:
            raise CommitStateUnknownException(
                "the database did not answer the commit: load the tables to see"
            ) from error


def _discard(changed: Sequence[Staged]) -> None:
    """Safe: the transaction that would have named these files was rolled back, so nobody knows of them."""
    for one in changed:
        with contextlib.suppress(Exception):
            one.after.io.delete(one.after.metadata_location)
