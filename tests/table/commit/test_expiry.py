"""Metadata is made by hand here: what matters is which snapshots and refs there are."""

from typing import Any

import pytest
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC
from pyiceberg.schema import Schema
from pyiceberg.table.metadata import TableMetadata, new_table_metadata
from pyiceberg.table.refs import SnapshotRef, SnapshotRefType
from pyiceberg.table.snapshots import Operation, Snapshot, Summary
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER
from pyiceberg.table.update import RemoveSnapshotRefUpdate, SetSnapshotRefUpdate, update_table_metadata

from streamlake.table.commit.expiry import FOREIGN_AGE_MS, GC_ENABLED, HOUR_MS, HOURLY_TAGS, KEEP, expire, hourly_tag
from streamlake.table.commit.progress import PROGRESS, TAG

NOW = 1_700_000_000_000 // HOUR_MS * HOUR_MS + HOUR_MS // 2


def snapshot(id: int, parent: int | None, at: int = NOW, *, ours: bool = True) -> Snapshot:
    more = {PROGRESS: "{}"} if ours else {}
    return Snapshot(
        snapshot_id=id, parent_snapshot_id=parent, sequence_number=id, timestamp_ms=at, manifest_list=f"m{id}",
        summary=Summary(Operation.APPEND, **more),
    )  # fmt: skip


def metadata(snapshots: list[Snapshot], properties: dict[str, str] | None = None, **refs: Any) -> TableMetadata:
    empty = new_table_metadata(
        Schema(), UNPARTITIONED_PARTITION_SPEC, UNSORTED_SORT_ORDER, "memory://t", properties or {}
    )
    known = {name: SnapshotRef(snapshot_id=id, type=kind) for name, (id, kind) in refs.items()}
    head = known["main"].snapshot_id if "main" in known else None
    return empty.model_copy(
        update={"snapshots": snapshots, "refs": known, "current_snapshot_id": head, "last_sequence_number": 10_000}
    )


def main(id: int) -> tuple[int, SnapshotRefType]:
    return (id, SnapshotRefType.BRANCH)


def tag(id: int) -> tuple[int, SnapshotRefType]:
    return (id, SnapshotRefType.TAG)


def line(count: int, **more: Any) -> list[Snapshot]:
    return [snapshot(n, n - 1 or None, **more) for n in range(1, count + 1)]


def test_keeps_twenty_with_the_one_that_comes() -> None:
    assert expire(metadata([]), NOW).updates == ()
    assert expire(metadata(line(19), main=main(19)), NOW).snapshot_ids == frozenset()
    assert expire(metadata(line(20), main=main(20)), NOW).snapshot_ids == {1}
    assert expire(metadata(line(25), main=main(25)), NOW).snapshot_ids == set(range(1, 7))


@pytest.mark.parametrize(("setting", "gone"), [("3", 23), ("1", 24), ("0", 24), ("100", 0), ("many", 6)])
def test_the_number_is_icebergs_own_property(setting: str, gone: int) -> None:
    found = expire(metadata(line(25), {KEEP: setting}, main=main(25)), NOW)
    assert len(found.snapshot_ids) == gone
    assert 25 not in found.snapshot_ids


def test_nothing_is_removed_if_the_table_says_so() -> None:
    for setting, gone in (("false", 0), ("FALSE", 0), ("true", 6)):
        found = expire(metadata(line(25), {GC_ENABLED: setting}, main=main(25)), NOW)
        assert len(found.snapshot_ids) == gone


def test_tags_and_branches_of_others_are_spared() -> None:
    side = snapshot(30, 2, ours=False)
    found = expire(metadata([*line(25), side], main=main(25), audit=main(30), keep=tag(4)), NOW)
    assert found.snapshot_ids == {3, 5, 6}  # 1 and 2 are the branch's history, 4 is tagged


def test_our_own_tag_does_not_pin_what_it_leaves() -> None:
    found = expire(metadata(line(25), {KEEP: "2"}, main=main(25), **{TAG: tag(10)}), NOW)
    assert 10 in found.snapshot_ids


def test_the_last_snapshot_of_an_hour_gets_a_tag() -> None:
    at = NOW - HOUR_MS
    found = expire(metadata(line(3, at=at), main=main(3)), NOW)
    (update,) = found.updates
    assert isinstance(update, SetSnapshotRefUpdate)
    assert (update.ref_name, update.snapshot_id) == (hourly_tag(at), 3)
    assert hourly_tag(0) == "streamlake-1970-01-01T00"
    assert expire(metadata(line(3), main=main(3)), NOW).updates == ()
    assert expire(metadata(line(3, at=at), main=main(3), **{hourly_tag(at): tag(2)}), NOW).updates == ()


def test_hourly_tags_go_after_a_day_and_so_do_their_snapshots() -> None:
    old = [snapshot(n, None, NOW - (40 - n) * HOUR_MS) for n in range(1, 31)]
    recent = [snapshot(n, n - 1 if n > 31 else None, NOW) for n in range(31, 41)]
    tags = {hourly_tag(s.timestamp_ms): tag(s.snapshot_id) for s in old}
    found = expire(metadata([*old, *recent], main=main(40), **tags), NOW)
    removed = [u.ref_name for u in found.updates if isinstance(u, RemoveSnapshotRefUpdate)]
    assert removed == sorted(tags)[: 30 - HOURLY_TAGS]
    assert found.snapshot_ids == set(range(1, 31 - HOURLY_TAGS))


def test_foreign_snapshots_off_main_wait_as_long_as_iceberg_lets_them() -> None:
    staged = snapshot(5, 4, NOW - FOREIGN_AGE_MS + 1, ours=False)
    late = snapshot(4, 3, NOW - FOREIGN_AGE_MS - 1, ours=False)
    chain = [snapshot(n, n - 1 if n > 10 else None) for n in range(10, 40)]
    found = expire(metadata([late, staged, *chain], main=main(39)), NOW)
    assert 4 in found.snapshot_ids
    assert 5 not in found.snapshot_ids


def test_rolled_back_snapshots_of_ours_stay_while_they_are_newer() -> None:
    """Somebody rolled main back to 5, and may roll it forward again."""
    found = expire(metadata(line(10), {KEEP: "2"}, main=main(5)), NOW)
    assert found.snapshot_ids == {1, 2, 3, 4}


def test_a_catalog_can_apply_the_updates() -> None:
    table = metadata(line(25, at=NOW - HOUR_MS), main=main(25), **{TAG: tag(25)})
    found = expire(table, NOW)
    after = update_table_metadata(table, found.updates)
    assert {s.snapshot_id for s in after.snapshots} == set(range(7, 26))
    assert hourly_tag(NOW - HOUR_MS) in after.refs
