"""Does a catalog do all that a table topic needs of it? Tried on a table that is made for it, and removed again.

A committer counts on a catalog to refuse a commit that was made for an older state of the table: else tables would lose
rows, or have them twice. Tags and history are a safety net and time travel.
"""

import contextlib
from collections.abc import Callable, Generator
from dataclasses import dataclass

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import (
    CommitFailedException,
    NoSuchNamespaceError,
    NoSuchTableError,
    TableAlreadyExistsError,
)
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRefType
from pyiceberg.table.update import AssertRefSnapshotId, AssertTableUUID, SetPropertiesUpdate, SetSnapshotRefUpdate
from pyiceberg.types import LongType, NestedField

from streamlake.catalogs.config import CatalogConfig
from streamlake.catalogs.files.folders import folders_of
from streamlake.catalogs.kinds import KINDS, capabilities_of, load
from streamlake.catalogs.trouble import remedy
from streamlake.core.errors import StreamLakeError, describe

TAG = "streamlake_trial"
STALE = "streamlake.trial"
SERVERS = ("rest", "s3tables")  # kinds that remove the files of a table themselves, and may let nobody else do so
SCHEMA = Schema(NestedField(1, "id", LongType()))


class Unmet(StreamLakeError):
    """The catalog does not do what it must; the message is the result of the step."""


@dataclass(frozen=True, slots=True)
class Step:
    """`passed` is None for a step that was not tried, because one before it failed."""

    name: str
    passed: bool | None
    result: str


class Trial:
    """`own_name` is one that nothing has yet. `namespace` is there already; without it, one is made, and removed."""

    def __init__(self, config: CatalogConfig, own_name: str, namespace: str | None = None) -> None:
        self._config = config
        self._own_name = own_name
        self._own_namespace = namespace is None
        self._namespace = (own_name,) if namespace is None else tuple(namespace.split("."))
        self._known = KINDS[config.kind].capabilities
        self._catalog: Catalog | None = None
        self._table: Table | None = None
        self._files_left = True

    def run(self) -> Generator[Step, None, None]:
        """The steps, as they end. What was made is removed in the end, also if the caller closes this early."""
        steps: tuple[tuple[str, Callable[[], str]], ...] = (
            ("credentials", self._connect),
            ("namespace", self._make_namespace),
            ("create", self._create),
            ("commit", self._commit),
            ("stale commit", self._commit_stale),
            ("tag", self._tag),
            ("history", self._keep_history),
        )
        failed = ""
        try:
            for name, act in steps:
                step = Step(name, None, f"not tried: {failed} failed") if failed else self._try(name, act)
                if step.passed is False and name in ("credentials", "namespace", "create", "commit"):
                    failed = name
                yield step
            if self._catalog is not None:
                yield self._try("drop", self._remove)
        finally:
            self._remove()

    def _try(self, name: str, act: Callable[[], str]) -> Step:
        try:
            return Step(name, True, act())
        except StreamLakeError as error:
            return Step(name, False, str(error))
        except Exception as error:  # whatever the library of a catalog raises
            return Step(name, False, f"{describe(error)}; {remedy(self._config, error)}")

    # -- steps ---------------------------------------------------------------------------------------------------------

    def _connect(self) -> str:
        catalog = load(self._config)
        count = len(catalog.list_namespaces())
        self._catalog = catalog
        self._known = capabilities_of(self._config.kind, catalog)
        several = "can" if self._known.multi_table_commit else "cannot"
        return f"connected, {count} namespaces; one commit {several} change several tables"

    def _make_namespace(self) -> str:
        name = ".".join(self._namespace)
        if not self._own_namespace:
            if not self._opened.namespace_exists(self._namespace):
                raise Unmet(f"there is no namespace {name}: leave --namespace out, or make it first")
            return f"{name} is there"
        self._opened.create_namespace(self._namespace)
        return f"{name} made"

    def _create(self) -> str:
        made = self._table = self._opened.create_table(self._identifier, SCHEMA, properties={"format-version": "2"})
        if self._opened.load_table(self._identifier).metadata.table_uuid != made.metadata.table_uuid:
            raise Unmet("the table that was made is not the one that is there: their uuids differ")
        try:
            self._opened.create_table(self._identifier, SCHEMA)
        except TableAlreadyExistsError:
            return f"made at {made.location()}; a second creation is refused"
        if self._known.create_is_conditional:
            raise Unmet("a second creation of the same table is not refused: two topics could make one table")
        return f"made at {made.location()}; a second creation is answered with the table that is there"

    def _commit(self) -> str:
        assert self._table is not None, "the step before made it"
        self._append(1)
        found = self._opened.load_table(self._identifier).scan().to_arrow()["id"].to_pylist()
        if found != [1]:
            raise Unmet(f"of one row that was written, {len(found)} are read back")
        return "a row written and read back"

    def _commit_stale(self) -> str:
        """For the table as it was before the row was written."""
        assert self._table is not None, "an earlier step made it"
        requirements = (
            AssertTableUUID(uuid=self._table.metadata.table_uuid),
            AssertRefSnapshotId(ref=MAIN_BRANCH, snapshot_id=None),  # type: ignore[call-arg]
        )
        refused = "it came back without an error, and without an effect"
        try:
            self._opened.commit_table(self._table, requirements, (SetPropertiesUpdate(updates={STALE: "landed"}),))
        except CommitFailedException:
            refused = ""
        except Exception as error:  # no word of a conflict: perhaps it never arrived
            refused = f"it ended with {describe(error)}"
        if STALE in self._opened.load_table(self._identifier).properties:
            raise Unmet("a commit for an older state of the table landed: tables would lose rows or have them twice")
        if refused:
            raise Unmet(f"a commit for an older state of the table was not refused as a conflict: {refused}")
        return "refused, as it must be"

    def _tag(self) -> str:
        table = self._opened.load_table(self._identifier)
        head = table.metadata.current_snapshot_id
        assert head is not None, "an earlier step committed it"
        requirement = AssertRefSnapshotId(ref=MAIN_BRANCH, snapshot_id=head)  # type: ignore[call-arg]
        tag = SetSnapshotRefUpdate(ref_name=TAG, type=SnapshotRefType.TAG, snapshot_id=head)  # type: ignore[call-arg]
        try:
            self._opened.commit_table(table, (requirement,), (tag,))
        except Exception:
            if self._known.keeps_tags:
                raise
        kept = TAG in self._opened.load_table(self._identifier).metadata.refs
        return self._verdict(
            kept, self._known.keeps_tags, "a foreign tool may expire the snapshot that a tag would hold"
        )

    def _keep_history(self) -> str:
        before = self._opened.load_table(self._identifier).metadata.current_snapshot_id
        self._append(2)
        metadata = self._opened.load_table(self._identifier).metadata
        head = metadata.current_snapshot()
        kept = head is not None and head.parent_snapshot_id == before and len(metadata.snapshots) > 1
        return self._verdict(kept, self._known.keeps_history, "tables have no time travel")

    def _verdict(self, kept: bool, expected: bool, loss: str) -> str:
        if kept:
            return "kept"
        lost = f"not kept: {loss}; progress is kept by a table property all the same"
        if expected:
            raise Unmet(lost)
        return f"{lost} (as is known of this catalog)"

    # -- removal -------------------------------------------------------------------------------------------------------

    def _remove(self) -> str:
        """All that was made, or may have been: an answer may have been lost. A second call has nothing to do."""
        if self._catalog is None:
            return ""
        try:
            try:
                self._remove_all(self._catalog)
            except Exception:  # of a removal, too, the answer may have been lost
                self._remove_all(self._catalog)
        except Exception as error:
            self._catalog = None
            raise Unmet(f"table {'.'.join(self._identifier)} may be left, remove it: {describe(error)}") from error
        self._catalog = None
        return "table, namespace and files are gone" if self._own_namespace else "table and files are gone"

    def _remove_all(self, catalog: Catalog) -> None:
        with contextlib.suppress(NoSuchTableError, NoSuchNamespaceError):
            self._table = self._table or catalog.load_table(self._identifier)
            self._files_left = not _drop(catalog, self._identifier) or self._config.kind not in SERVERS
        if self._own_namespace:
            with contextlib.suppress(NoSuchNamespaceError):
                catalog.drop_namespace(self._namespace)
        if self._table is not None and self._files_left:
            self._delete_files(self._table)

    def _delete_files(self, table: Table) -> None:
        """Those that the catalog left, of refused creations, too. Only in a place that is certainly ours: its path has
        our own name in it. Other places are the catalog's to empty."""
        location = table.location().rstrip("/")
        folders = folders_of(table.io)
        if self._own_name not in location or folders is None:
            return
        parent = location.rpartition("/")[0]
        folders.delete_folder(parent if self._own_name in parent.rpartition("/")[2] else location)

    # -- small things --------------------------------------------------------------------------------------------------

    @property
    def _opened(self) -> Catalog:
        assert self._catalog is not None, "the first step opened it"
        return self._catalog

    @property
    def _identifier(self) -> tuple[str, ...]:
        return (*self._namespace, self._own_name)

    def _append(self, id: int) -> None:
        self._opened.load_table(self._identifier).append(pa.table({"id": pa.array([id], pa.int64())}))


def _drop(catalog: Catalog, identifier: tuple[str, ...]) -> bool:
    """With its files, where the catalog can do that and lets us: then True."""
    try:
        catalog.purge_table(identifier)
        return True
    except NoSuchTableError:
        raise
    except Exception:  # not implemented, or not allowed
        catalog.drop_table(identifier)
        return False
