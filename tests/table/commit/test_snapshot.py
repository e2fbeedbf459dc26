import pyarrow as pa
import pytest
from pyiceberg.manifest import ManifestFile
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC, PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.update import AssertRefSnapshotId, AssertTableUUID
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import LongType, NestedField
from support.table_world import World

from streamlake.core.errors import Conflict, Invalid
from streamlake.table.commit import snapshot
from streamlake.table.commit.progress import PROGRESS, beginning
from streamlake.table.commit.snapshot import Added, Staged, Stamp
from streamlake.table.rows import pipeline

SCHEMA = Schema(NestedField(1, "id", LongType()), NestedField(2, "day", LongType()))
PROGRESS_NOW = beginning("c", "t", "i", 1)


def made(world: World, spec: PartitionSpec = UNPARTITIONED_PARTITION_SPEC, version: str = "2") -> Table:
    catalog = world.catalog.inner
    if not catalog.namespace_exists("n"):
        catalog.create_namespace("n")
    return catalog.create_table("n.t", SCHEMA, partition_spec=spec, properties={"format-version": version})


def data_files(table: Table, spec: PartitionSpec, days: list[int]):
    arrow = pipeline.table_schema(SCHEMA)
    rows = pa.Table.from_arrays([pa.array(range(len(days)), pa.int64()), pa.array(days, pa.int64())], schema=arrow)
    names = iter(range(100))
    return pipeline.write(rows, SCHEMA, spec, lambda folder: f"memory://f{next(names)}-{spec.spec_id}", {})


def commit(table: Table, staged: Staged, files=()) -> Table:
    table.io.files.update(staged.blobs)
    table.io.files.update({f.data_file.file_path: f.data.to_pybytes() for f in files})
    table.catalog.commit_table(table, staged.requirements, staged.updates)
    return table.catalog.load_table("n.t")


def stamp(n: int) -> Stamp:
    return Stamp(1, f"{n:011x}-{n:032x}", n, 1_700_000_000_000 + n)


def test_demands_this_table_and_this_head() -> None:
    table = made(World())
    first = snapshot.append(table, [], Added(()), PROGRESS_NOW, stamp(1))
    assert AssertTableUUID(uuid=table.metadata.table_uuid) in first.requirements
    assert AssertRefSnapshotId(ref="main", snapshot_id=None) in first.requirements
    table = commit(table, first)
    second = snapshot.append(table, first.manifests, Added(()), PROGRESS_NOW, stamp(2))
    assert AssertRefSnapshotId(ref="main", snapshot_id=1) in second.requirements
    assert second.snapshot.parent_snapshot_id == 1


def test_one_manifest_for_each_partition_spec() -> None:
    """A file keeps the spec it was written with, also after somebody changed the table's spec."""
    table = made(World())
    with table.update_spec() as update:
        update.add_identity("day")
    table = table.catalog.load_table("n.t")
    old, new = table.metadata.specs()[0], table.metadata.spec()
    files = [*data_files(table, old, [1, 2]), *data_files(table, new, [3, 4])]
    staged = snapshot.append(table, [], Added([f.data_file for f in files]), PROGRESS_NOW, stamp(1))
    assert {(m.partition_spec_id, m.added_files_count) for m in staged.manifests} == {(0, 1), (1, 2)}
    after = commit(table, staged, files)
    assert sorted(after.scan().to_arrow()["day"].to_pylist()) == [1, 2, 3, 4]
    assert after.scan("day = 4").to_arrow()["day"].to_pylist() == [4]
    planned = {task.file.file_path for task in after.scan("day = 4").plan_files()}
    assert planned == {files[2].data_file.file_path}  # the old file by its bounds, the other new one by its partition


def test_manifests_are_good_for_the_next_commit_without_reading_them_back() -> None:
    table = made(World())
    manifests: tuple[ManifestFile, ...] = ()
    for n in range(1, 4):
        files = data_files(table, table.spec(), [n])
        staged = snapshot.append(table, manifests, Added([f.data_file for f in files]), PROGRESS_NOW, stamp(n))
        manifests = staged.manifests
        table = commit(table, staged, files)
    read = table.current_snapshot().manifests(table.io)
    facts = [(m.manifest_path, m.sequence_number, m.min_sequence_number, m.added_rows_count) for m in read]
    assert facts == [(m.manifest_path, m.sequence_number, m.min_sequence_number, m.added_rows_count) for m in manifests]
    assert [f[1] for f in facts] == [3, 2, 1]


def test_totals_add_up_and_an_empty_snapshot_keeps_them() -> None:
    table = made(World())
    files = data_files(table, table.spec(), [1, 2, 3])
    staged = snapshot.append(table, [], Added([f.data_file for f in files]), PROGRESS_NOW, stamp(1))
    table = commit(table, staged, files)
    table = commit(table, snapshot.append(table, staged.manifests, Added(()), PROGRESS_NOW, stamp(2)))
    summary = table.current_snapshot().summary
    assert summary["total-records"] == "3"
    assert summary["added-records"] is None
    assert summary[PROGRESS] is not None
    assert table.scan().to_arrow().num_rows == 3


def test_merging_manifests_changes_no_row() -> None:
    spec = PartitionSpec(PartitionField(2, 1000, IdentityTransform(), "day"))
    table = made(World(), spec)
    manifests: tuple[ManifestFile, ...] = ()
    for n in range(1, 6):
        files = data_files(table, table.spec(), [n, n + 1])
        staged = snapshot.append(table, manifests, Added([f.data_file for f in files]), PROGRESS_NOW, stamp(n))
        manifests = staged.manifests
        table = commit(table, staged, files)
    before = sorted(table.scan().to_arrow().to_pylist(), key=str)
    kept, merged = manifests[:1], manifests[1:]
    staged = snapshot.replace_manifests(
        table, kept, merged, lambda m: m.fetch_manifest_entry(table.io), PROGRESS_NOW, stamp(9)
    )
    table = commit(table, staged)
    assert len(table.current_snapshot().manifests(table.io)) == 2
    assert sorted(table.scan().to_arrow().to_pylist(), key=str) == before
    assert table.current_snapshot().summary.operation.value == "replace"
    assert table.current_snapshot().summary["total-records"] == "10"
    assert {e.sequence_number for m in staged.manifests for e in m.fetch_manifest_entry(table.io)} == {1, 2, 3, 4, 5}


def test_time_never_goes_back_whatever_the_clock_says() -> None:
    table = made(World())
    table = commit(table, snapshot.append(table, [], Added(()), PROGRESS_NOW, stamp(1)))
    early = Stamp(1, "x", 2, 5)
    assert (
        snapshot.append(table, [], Added(()), PROGRESS_NOW, early).snapshot.timestamp_ms
        >= table.metadata.last_updated_ms
    )


@pytest.mark.parametrize("version", ["1"])
def test_other_format_versions_are_refused(version: str) -> None:
    table = made(World(), version=version)
    with pytest.raises(Invalid, match="format version 1"):
        snapshot.append(table, [], Added(()), PROGRESS_NOW, stamp(1))


def test_removed_files_leave_with_their_rows_and_the_others_stay() -> None:
    table = made(World())
    files = [*data_files(table, UNPARTITIONED_PARTITION_SPEC, [1, 2]), *data_files(table, table.spec(), [3])]
    for number, file in enumerate(files):
        file.data_file[1] = file.data_file.file_path + f"-{number}"
    first = snapshot.append(table, [], Added([f.data_file for f in files]), PROGRESS_NOW, stamp(1))
    table = commit(table, first, files)
    gone, new = files[0].data_file.file_path, list(data_files(table, table.spec(), [9]))
    change = snapshot.overwrite(
        table, first.manifests, frozenset({gone}), Added([new[0].data_file]), PROGRESS_NOW, stamp(2)
    )
    table = commit(table, change, new)
    assert sorted(table.scan().to_arrow()["day"].to_pylist()) == [3, 9]
    summary = table.metadata.current_snapshot().summary
    assert summary.operation.value == "overwrite"
    assert (summary["total-records"], summary["deleted-records"], summary["added-records"]) == ("2", "2", "1")
    # The manifest of a snapshot that only removes is not carried on.
    left = frozenset(task.file.file_path for task in table.scan().plan_files())
    empty = snapshot.overwrite(table, change.manifests, left, Added(()), PROGRESS_NOW, stamp(3))
    table = commit(table, empty)
    assert table.scan().to_arrow().num_rows == 0
    assert snapshot.live_manifests(table) == []


def test_a_file_that_the_table_no_longer_has_cannot_be_removed() -> None:
    table = made(World())
    with pytest.raises(Conflict, match="no longer has the file memory://x"):
        snapshot.overwrite(table, [], frozenset({"memory://x"}), Added(()), PROGRESS_NOW, stamp(1))
