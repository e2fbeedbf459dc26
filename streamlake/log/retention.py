"""Retention: how far a log's start may move by age and size (cleanup.policy=delete).

It never passes a hold, nor what is not durable. It works at the grain of the stream's runs of chunks, so a log keeps a
little more than it was told to, never less.

Most partitions of a broker are idle, so a look that finds nothing leaves a note on the partition: until when nothing
comes of age, and on what that rests. As long as it stands, looking again is left out.
"""

from streamlake.log.partition import Partition, Quiet

NEVER_MS = 1 << 63


def is_due(partition: Partition, now_ms: int) -> bool:
    """Whether a look may find anything to delete or to forget."""
    quiet = partition.quiet
    return quiet is None or now_ms >= quiet.until_ms or quiet.basis != _basis(partition)


def _basis(partition: Partition) -> tuple[object, ...]:
    """All that retention goes by but the clock: each append moves the next offset, each upload the uploaded one, each
    trim the start, and holds the deletable one."""
    stream = partition.stream
    return (
        partition.settings,
        stream.start_offset,
        stream.next_offset,
        stream.uploaded_offset,
        partition.deletable_offset,
    )


async def apply_retention(partition: Partition, now_ms: int) -> int:
    """Move the start of the log by its settings; by how many offsets it moved. Silent producers were expired before,
    in the same tick."""
    settings = partition.settings
    partition.quiet = None
    basis = _basis(partition)  # before anything is awaited: what changes meanwhile makes the next look due
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
    # Asked again after the await: a hold set in between (a table was enabled) wins. Safe at a crash: the new start is
    # in the metadata before any byte goes, and a zombie's trim is refused by its broker epoch.
    point = min(point, partition.deletable_offset)
    if point <= before:
        return 0  # no note: such a hold may be gone again at the next look
    await partition.stream.trim(point)
    return partition.log_start_offset - before
