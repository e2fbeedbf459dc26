"""How far a table holds its topic, written into the table itself: the only truth about exactly-once.

A Progress is a position per Kafka partition (the next offset that the table does not cover) and, by reason, how many
positions below it left no row. It goes into the summary of every snapshot we commit, into the table property
`streamlake.progress`, and a tag `streamlake` holds the newest snapshot against foreign expiry: all in the one commit.
`find` reads it back: current snapshot, its ancestors, then tag and property. Format: docs/formats/table-progress.md.
"""

from collections.abc import Mapping
from typing import TypeVar

import msgspec
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Snapshot

from streamlake.core.errors import Invalid

PROGRESS = "streamlake.progress"
TAG = "streamlake"
VERSION = 1
DEAD_LETTER = "dead_letter"
TOMBSTONE = "tombstone"  # of changes (rows/debezium.py); elsewhere a record without a value is a row
DELETED = "deleted_before_translation"

T = TypeVar("T")


class Progress(msgspec.Struct, frozen=True):
    """`next[p]` is the next log position of partition p. `skipped` counts positions without a row, by reason:
    control, aborted, compacted, deleted_before_translation, dead_letter, tombstone. Rows of the table = sum(next) -
    sum(skipped). `number` grows with each change, so that no two commits of one epoch carry the same progress."""

    cluster_id: str
    topic: str
    topic_id: str
    epoch: int  # of the committer: a higher one fences us
    number: int
    next: tuple[int, ...]
    skipped: dict[str, int]
    version: int = VERSION

    @property
    def rows(self) -> int:
        return sum(self.next) - sum(self.skipped.values())

    def position(self, partition: int) -> int:
        return self.next[partition] if partition < len(self.next) else 0

    @property
    def is_beginning(self) -> bool:
        """Nothing of this topic was committed yet."""
        return self.number == 0

    def advanced(self, epoch: int, positions: Mapping[int, int], skipped: Mapping[str, int]) -> "Progress":
        """Moved on to `positions` by the committer of `epoch`, with `skipped` more positions that left no row."""
        partitions = max(len(self.next), *(p + 1 for p in positions), 0) if positions else len(self.next)
        moved = tuple(positions.get(p, self.position(p)) for p in range(partitions))
        counts = {r: self.skipped.get(r, 0) + skipped.get(r, 0) for r in sorted({*self.skipped, *skipped})}
        counts = {reason: n for reason, n in counts.items() if n}
        return msgspec.structs.replace(self, epoch=epoch, number=self.number + 1, next=moved, skipped=counts)


def rowless(progress: Progress) -> Progress:
    """`progress` if every position below it is known to have left no row; else the beginning."""
    if progress.rows == 0:
        return progress
    return beginning(progress.cluster_id, progress.topic, progress.topic_id, progress.epoch)


def beginning(cluster_id: str, topic: str, topic_id: str, epoch: int) -> Progress:
    return Progress(cluster_id, topic, topic_id, epoch, 0, (), {})


class Bookmark(msgspec.Struct, frozen=True):
    """The value of the table property: the progress and the snapshot that brought it."""

    snapshot_id: int
    sequence_number: int
    progress: Progress


def encode(value: Progress | Bookmark) -> str:
    return msgspec.json.encode(value, order="deterministic").decode()


def find(metadata: TableMetadata) -> Progress | None:
    """The progress of what branch main holds; None if nothing of ours was ever committed.

    Raises Invalid when main was rolled back to where no snapshot of ours tells what it holds, and for a progress that
    cannot be read."""
    snapshots = {s.snapshot_id: s for s in metadata.snapshots}
    oldest: Snapshot | None = None
    snapshot = metadata.current_snapshot()
    while snapshot is not None:
        if snapshot.summary is not None and (text := snapshot.summary.additional_properties.get(PROGRESS)):
            return _progress(text)
        oldest = snapshot
        snapshot = snapshots.get(snapshot.parent_snapshot_id) if snapshot.parent_snapshot_id is not None else None
    bookmark = max(_bookmarks(metadata, snapshots), key=lambda b: b.sequence_number, default=None)
    if bookmark is None:
        return None
    # The walk ended at a snapshot whose parents expired. Ours is among those only if it is older than that snapshot:
    # expiry cuts links and never makes a link that leaps over a snapshot.
    if oldest is None or (oldest.sequence_number or 0) <= bookmark.sequence_number:
        raise Invalid(
            f"branch main was rolled back behind snapshot {bookmark.snapshot_id}, and no snapshot in its history tells "
            "what it holds: roll it back to a snapshot that StreamLake wrote, or drop the table and enable it again"
        )
    return bookmark.progress


def _bookmarks(metadata: TableMetadata, snapshots: Mapping[int, Snapshot]) -> list[Bookmark]:
    found = []
    if text := metadata.properties.get(PROGRESS):
        bookmark = _decode(text, Bookmark)
        _check(bookmark.progress)
        found.append(bookmark)
    tag = metadata.refs.get(TAG)
    snapshot = snapshots.get(tag.snapshot_id) if tag else None
    if snapshot and snapshot.summary and (text := snapshot.summary.additional_properties.get(PROGRESS)):
        found.append(Bookmark(snapshot.snapshot_id, snapshot.sequence_number or 0, _progress(text)))
    return found


def _progress(text: str) -> Progress:
    progress = _decode(text, Progress)
    _check(progress)
    return progress


def _decode(text: str, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(text, type=kind)
    except (ValueError, RecursionError) as error:  # msgspec's errors, brackets without end
        raise Invalid(f"{PROGRESS} in the table cannot be read ({error}): restore it from an older snapshot") from None


def _check(progress: Progress) -> None:
    if progress.version != VERSION:
        raise Invalid(
            f"{PROGRESS} has version {progress.version}, but this StreamLake supports {VERSION}: upgrade StreamLake"
        )
    if any(n < 0 for n in (*progress.next, *progress.skipped.values())):
        raise Invalid(f"{PROGRESS} in the table holds a negative number: restore it from an older snapshot")
