"""Which snapshots a commit removes, so that metadata stays small and a commit costs the same for ever.

Kept: the newest `snapshots` of branch main, whatever a branch or tag points to, the history of other branches, and one
snapshot an hour for a day, pinned by a tag `streamlake-<hour>` that any engine can time-travel to. Snapshots outside
main's history are removed if they are ours or older than Iceberg's own default; ../upkeep removes the files. Nothing is
removed from a table with `gc.enabled = false`, as Nessie makes them: other branches of Nessie may use the same files.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRefType
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.table.update import RemoveSnapshotRefUpdate, RemoveSnapshotsUpdate, SetSnapshotRefUpdate, TableUpdate

from streamlake.table.commit.progress import PROGRESS, TAG

KEEP = "history.expire.min-snapshots-to-keep"  # Iceberg's own table property
KEEP_DEFAULT = 20
GC_ENABLED = "gc.enabled"  # Iceberg's own, too
HOURLY_TAGS = 24
HOUR_MS = 3_600_000
FOREIGN_AGE_MS = 5 * 24 * HOUR_MS  # Iceberg's default of history.expire.max-snapshot-age-ms

_HOURLY = re.compile(rf"^{TAG}-\d{{4}}-\d{{2}}-\d{{2}}T\d{{2}}$")


@dataclass(frozen=True, slots=True)
class Expiry:
    """Updates for the commit, in order: hourly tags, then the removal of `snapshot_ids`."""

    updates: tuple[TableUpdate, ...]
    snapshot_ids: frozenset[int]


def expire(metadata: TableMetadata, now_ms: int) -> Expiry:
    """What a commit on top of main's current snapshot removes; that snapshot itself is never among it."""
    head = metadata.current_snapshot()
    if head is None:
        return Expiry((), frozenset())
    updates: list[TableUpdate] = []
    pinned = {name: ref.snapshot_id for name, ref in metadata.refs.items() if name != TAG}  # the commit moves TAG
    hour = hourly_tag(head.timestamp_ms)
    if head.timestamp_ms // HOUR_MS < now_ms // HOUR_MS and hour not in pinned:
        pinned[hour] = head.snapshot_id
        updates.append(
            SetSnapshotRefUpdate(ref_name=hour, type=SnapshotRefType.TAG, snapshot_id=head.snapshot_id)  # type: ignore[call-arg]
        )
    for name in sorted(filter(_HOURLY.match, pinned))[:-HOURLY_TAGS]:
        del pinned[name]
        updates.append(RemoveSnapshotRefUpdate(ref_name=name))  # type: ignore[call-arg]
    gone = _removable(metadata, head, pinned, now_ms) if may_remove(metadata) else []
    if gone:
        updates.append(RemoveSnapshotsUpdate(snapshot_ids=gone))  # type: ignore[call-arg]
    return Expiry(tuple(updates), frozenset(gone))


def may_remove(metadata: TableMetadata) -> bool:
    """Whether snapshots and files of the table may be removed."""
    return metadata.properties.get(GC_ENABLED, "true").lower() != "false"


def hourly_tag(timestamp_ms: int) -> str:
    return f"{TAG}-{datetime.fromtimestamp(timestamp_ms / 1000, UTC):%Y-%m-%dT%H}"


def _removable(metadata: TableMetadata, head: Snapshot, pinned: Mapping[str, int], now_ms: int) -> list[int]:
    by_id = {s.snapshot_id: s for s in metadata.snapshots}
    history = list(_history(by_id, head.snapshot_id))
    kept = history[: max(1, _keep(metadata) - 1)]  # the commit adds one
    oldest = kept[-1].sequence_number or 0
    spared = {s.snapshot_id for s in kept} | set(pinned.values())
    for name, ref in metadata.refs.items():
        if name != MAIN_BRANCH and ref.snapshot_ref_type == SnapshotRefType.BRANCH:
            spared |= {s.snapshot_id for s in _history(by_id, ref.snapshot_id)}
    on_main = {s.snapshot_id for s in history}

    def dead(snapshot: Snapshot) -> bool:
        if snapshot.snapshot_id in spared:
            return False
        if snapshot.snapshot_id in on_main:
            return True
        ours = snapshot.summary is not None and PROGRESS in snapshot.summary.additional_properties
        old = snapshot.timestamp_ms < now_ms - FOREIGN_AGE_MS
        return (snapshot.sequence_number or 0) < oldest and (ours or old)

    return [s.snapshot_id for s in metadata.snapshots if dead(s)]


def _history(by_id: Mapping[int, Snapshot], snapshot_id: int | None) -> Iterator[Snapshot]:
    while snapshot_id is not None and (snapshot := by_id.get(snapshot_id)):
        yield snapshot
        snapshot_id = snapshot.parent_snapshot_id


def _keep(metadata: TableMetadata) -> int:
    try:
        return max(1, int(metadata.properties.get(KEEP, KEEP_DEFAULT)))
    except ValueError:
        return KEEP_DEFAULT
