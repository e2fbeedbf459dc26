"""Retention: how far the start of a log may move by age and size (cleanup.policy=delete).

It never passes a hold, an open transaction, or records that are not durable. Its unit is a run of chunks of the
stream, so a log keeps a little more than its settings ask for, never less.

Most partitions of a broker are idle. A run of retention that finds nothing therefore leaves a note on the partition:
until when nothing expires, and the state that this depends on. While the note is valid, retention skips the partition.
"""

from streamlake.log.partition import Partition, Quiet

NEVER_MS = 1 << 63


def is_due(partition: Partition, now_ms: int) -> bool:
    """Whether retention may find records or producers to expire."""
    quiet = partition.quiet
    return quiet is None or now_ms >= quiet.until_ms or quiet.basis != _basis(partition)


def _basis(partition: Partition) -> tuple[object, ...]:
    """The input of retention beside the clock: each append moves the next offset, each upload the uploaded one, each
    trim the start, and each hold the deletable one."""
    stream = partition.stream
    return (
        partition.settings,
        stream.start_offset,
        stream.next_offset,
        stream.uploaded_offset,
        partition.deletable_offset,
    )


async def apply_retention(partition: Partition, now_ms: int) -> int:
    """Move the start of the log as its settings say. Returns by how many offsets it moved. The caller has expired idle
    producers in the same turn of the loop."""
    settings = partition.settings
    partition.quiet = None
    basis = _basis(partition)  # before the first await: a change meanwhile makes the next run due
    silent_since_ms = partition.producers_silent_since_ms
    until_ms = NEVER_MS if silent_since_ms is None else silent_since_ms + settings.producer_id_expiration_ms
    keep_bytes = settings.retention_bytes if settings.retention_bytes >= 0 else None
    min_timestamp = now_ms - settings.retention_ms if settings.retention_ms >= 0 else None
    if not settings.deletes or (keep_bytes is None and min_timestamp is None):
        partition.quiet = Quiet(basis, until_ms)
        return 0
    before = partition.log_start_offset
    point, kept = await partition.stream.retention_point(keep_bytes, min_timestamp, partition.deletable_offset)
    if point <= before:
        if kept is not None and settings.retention_ms >= 0:
            until_ms = min(until_ms, kept + settings.retention_ms + 1)
        partition.quiet = Quiet(basis, until_ms)
        return 0
    # Read again after the await: a hold that was set in between (a table was enabled) wins. Safe at a crash: the new
    # start is in the metadata before any byte is deleted, and a zombie's trim is refused by its broker epoch.
    point = min(point, partition.deletable_offset)
    if point <= before:
        return 0  # without a note: the hold may be released before the next run
    # A table may have been enabled by another broker since: the hold in the metadata store wins, in one transaction.
    await partition.trim(point, spares_held=True)
    return partition.log_start_offset - before
