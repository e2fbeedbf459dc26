"""Build one Iceberg snapshot from public pieces of pyiceberg: manifests, manifest list, and the updates of its commit.

Not pyiceberg's Transaction, which copies the whole metadata some eighteen times an append, and whose retry would land
a zombie's rows a second time. The updates demand the very table (uuid) and the very snapshot that was read, move
branch main and the tag, set the progress property and expire old snapshots: all or nothing, in one request.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Literal

from pyiceberg.manifest import (
    UNASSIGNED_SEQ,
    DataFile,
    ManifestContent,
    ManifestEntry,
    ManifestFile,
    write_manifest,
    write_manifest_list,
)
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRefType
from pyiceberg.table.snapshots import Operation, Snapshot, SnapshotSummaryCollector, Summary, update_snapshot_summaries
from pyiceberg.table.update import (
    AddSnapshotUpdate,
    AssertRefSnapshotId,
    AssertTableUUID,
    SetPropertiesUpdate,
    SetSnapshotRefUpdate,
    TableRequirement,
    TableUpdate,
)

from streamlake.core.errors import Conflict, Invalid
from streamlake.table.commit.expiry import expire
from streamlake.table.commit.files import StagedIO
from streamlake.table.commit.progress import PROGRESS, TAG, Bookmark, Progress, encode

CODEC: Literal["deflate"] = "deflate"
FORMAT_VERSION = 2


@dataclass(frozen=True, slots=True)
class Stamp:
    """What makes an attempt's snapshot and file names its own."""

    epoch: int
    attempt: str  # `<milliseconds, 11 hex digits>-<32 hex digits>`: maintenance reads the age of orphans from it
    snapshot_id: int
    now_ms: int


@dataclass(frozen=True, slots=True)
class Staged:
    """A snapshot ready to be put (`blobs`: location → bytes) and then committed."""

    snapshot: Snapshot
    manifests: tuple[ManifestFile, ...]
    blobs: Mapping[str, bytes]
    requirements: tuple[TableRequirement, ...]
    updates: tuple[TableUpdate, ...]


def check_format(table: Table) -> None:
    if table.metadata.format_version != FORMAT_VERSION:
        name = ".".join(table.name())
        raise Invalid(f"table {name} has format version {table.metadata.format_version}: StreamLake writes version 2")


@dataclass(frozen=True, slots=True)
class Added:
    """Files of one commit, perhaps none. `schema` is the table's after the commit, and `spec` the files' one: None if
    the table has them already."""

    files: Sequence[DataFile]
    schema: Schema | None = None
    spec: PartitionSpec | None = None


def append(table: Table, parents: Sequence[ManifestFile], added: Added, progress: Progress, stamp: Stamp) -> Staged:
    """A snapshot that adds files to the `parents` manifests. Each file's manifest is written with the file's own
    partition spec."""
    return overwrite(table, parents, frozenset(), added, progress, stamp)


def overwrite(
    table: Table,
    parents: Sequence[ManifestFile],
    removed: frozenset[str],
    added: Added,
    progress: Progress,
    stamp: Stamp,
) -> Staged:
    """A snapshot without the data files at the locations `removed`, and with `added`. Reads the manifests that name
    them. Conflict if the table does not have one of them: somebody else has rewritten it."""
    check_format(table)
    staging = StagedIO(table.io)
    locations = manifest_locations(table, stamp)
    schema = added.schema or table.metadata.schema()
    specs = table.metadata.specs() | ({added.spec.spec_id: added.spec} if added.spec else {})
    manifests = [
        _manifest(table, staging, next(locations), specs[spec_id], schema, stamp.snapshot_id, added=of_spec)
        for spec_id, of_spec in _by_spec(added.files)
    ]
    collector = SnapshotSummaryCollector()
    for file in added.files:
        collector.add_file(file, schema, specs[file.spec_id])
    kept, gone = _without(table, staging, locations, parents, removed, stamp) if removed else (parents, [])
    for file in gone:
        collector.remove_file(file, schema, specs[file.spec_id])
    head = table.metadata.current_snapshot()
    operation = Operation.OVERWRITE if removed else Operation.APPEND
    summary = Summary(operation, **collector.build(), **{PROGRESS: encode(progress)})
    summary = update_snapshot_summaries(summary, head.summary if head else None)
    return _stage(table, staging, (*manifests, *kept), summary, schema, progress, stamp)


def _without(
    table: Table,
    staging: StagedIO,
    locations: Iterator[str],
    parents: Sequence[ManifestFile],
    removed: frozenset[str],
    stamp: Stamp,
) -> tuple[list[ManifestFile], list[DataFile]]:
    """The manifests in which the files at `removed` are deleted, and those files."""
    manifests: list[ManifestFile] = []
    gone: list[DataFile] = []
    for parent in parents:
        entries = parent.fetch_manifest_entry(table.io) if is_data(parent) else []
        deleted = [entry for entry in entries if entry.data_file.file_path in removed]
        if not deleted:
            manifests.append(parent)
            continue
        kept = [entry for entry in entries if entry.data_file.file_path not in removed]
        spec, schema = table.metadata.specs()[parent.partition_spec_id], table.metadata.schema()
        where = next(locations)
        manifests.append(
            _manifest(table, staging, where, spec, schema, stamp.snapshot_id, existing=kept, deleted=deleted)
        )
        gone += [entry.data_file for entry in deleted]
    if missing := removed - {file.file_path for file in gone}:
        raise Conflict(f"table {'.'.join(table.name())} no longer has the file {min(missing)}")
    return manifests, gone


def replace_manifests(
    table: Table,
    kept: Sequence[ManifestFile],
    merged: Sequence[ManifestFile],
    entries: Callable[[ManifestFile], Iterable[ManifestEntry]],
    progress: Progress,
    stamp: Stamp,
) -> Staged:
    """A snapshot with the same rows, in which one manifest stands for all `merged` (of one spec)."""
    check_format(table)
    staging = StagedIO(table.io)
    one = _manifest(
        table,
        staging,
        next(manifest_locations(table, stamp)),
        table.metadata.specs()[merged[0].partition_spec_id],
        table.metadata.schema(),
        stamp.snapshot_id,
        existing=(entry for manifest in merged for entry in entries(manifest)),
    )
    head = table.metadata.current_snapshot()
    before = head.summary.additional_properties if head and head.summary else {}
    totals = {key: value for key, value in before.items() if key.startswith("total-")}
    summary = Summary(Operation.REPLACE, **totals, **{PROGRESS: encode(progress)})
    return _stage(table, staging, (*kept, one), summary, table.metadata.schema(), progress, stamp)


def _stage(
    table: Table,
    staging: StagedIO,
    manifests: Sequence[ManifestFile],
    summary: Summary,
    schema: Schema,
    progress: Progress,
    stamp: Stamp,
) -> Staged:
    metadata = table.metadata
    head = metadata.current_snapshot()
    head_id = head.snapshot_id if head else None
    sequence = metadata.next_sequence_number()
    numbered = tuple(_numbered(m, sequence) for m in manifests)
    location = metadata_location(table, f"snap-{stamp.snapshot_id}-{stamp.epoch}-{stamp.attempt}.avro")
    output = staging.new_output(location)
    with write_manifest_list(metadata.format_version, output, stamp.snapshot_id, head_id, sequence, CODEC) as listing:
        listing.add_manifests(list(numbered))
    snapshot = Snapshot(  # type: ignore[call-arg]
        snapshot_id=stamp.snapshot_id,
        parent_snapshot_id=head_id,
        sequence_number=sequence,
        timestamp_ms=max(stamp.now_ms, metadata.last_updated_ms),
        manifest_list=location,
        summary=summary,
        schema_id=schema.schema_id,
    )
    # A zombie wakes with an older head, a re-created table has another uuid: either makes the catalog refuse.
    requirements = (
        AssertTableUUID(uuid=metadata.table_uuid),
        AssertRefSnapshotId(ref=MAIN_BRANCH, snapshot_id=head_id),  # type: ignore[call-arg]
    )
    bookmark = Bookmark(stamp.snapshot_id, sequence, progress)
    updates = (
        AddSnapshotUpdate(snapshot=snapshot),
        _ref(MAIN_BRANCH, SnapshotRefType.BRANCH, stamp.snapshot_id),
        _ref(TAG, SnapshotRefType.TAG, stamp.snapshot_id),
        SetPropertiesUpdate(updates={PROGRESS: encode(bookmark)}),
        *expire(metadata, snapshot.timestamp_ms).updates,
    )
    return Staged(snapshot, numbered, dict(staging.staged), requirements, updates)


def metadata_location(table: Table, name: str) -> str:
    return table.location_provider().new_metadata_location(name)


def manifest_locations(table: Table, stamp: Stamp) -> Iterator[str]:
    return (metadata_location(table, f"streamlake-{stamp.epoch}-{stamp.attempt}-m{n}.avro") for n in count())


def _ref(name: str, kind: SnapshotRefType, snapshot_id: int) -> SetSnapshotRefUpdate:
    return SetSnapshotRefUpdate(ref_name=name, type=kind, snapshot_id=snapshot_id)  # type: ignore[call-arg]


def _by_spec(files: Sequence[DataFile]) -> list[tuple[int, list[DataFile]]]:
    groups: dict[int, list[DataFile]] = {}
    for file in files:
        groups.setdefault(file.spec_id, []).append(file)
    return sorted(groups.items())


def _manifest(
    table: Table,
    staging: StagedIO,
    location: str,
    spec: PartitionSpec,
    schema: Schema,
    snapshot_id: int,
    added: Iterable[DataFile] = (),
    existing: Iterable[ManifestEntry] = (),
    deleted: Iterable[ManifestEntry] = (),
) -> ManifestFile:
    output = staging.new_output(location)
    with write_manifest(table.metadata.format_version, spec, schema, output, snapshot_id, CODEC) as manifest:
        for file in added:
            manifest.add(ManifestEntry.from_args(data_file=file))
        for entry in existing:
            manifest.existing(entry)
        for entry in deleted:
            manifest.delete(entry)
    return manifest.to_manifest_file()


def _numbered(manifest: ManifestFile, sequence: int) -> ManifestFile:
    """A copy that carries the sequence number of this commit, if it had none: good for the next commit's list too."""
    numbered = ManifestFile(*(manifest[i] for i in range(len(manifest))))
    if numbered.sequence_number == UNASSIGNED_SEQ:
        numbered.sequence_number = sequence
    if numbered.min_sequence_number == UNASSIGNED_SEQ:
        numbered.min_sequence_number = sequence
    return numbered


def live_manifests(table: Table) -> list[ManifestFile]:
    """The manifests of branch main that still hold files."""
    head = table.metadata.current_snapshot()
    if head is None:
        return []
    return [m for m in head.manifests(table.io) if is_live(m)]


def is_live(manifest: ManifestFile) -> bool:
    """It holds files, and not only what was removed by the snapshot that wrote it."""
    return manifest.has_added_files() or manifest.has_existing_files()


def is_data(manifest: ManifestFile) -> bool:
    return bool(manifest.content == ManifestContent.DATA)
