"""Retention: how far a log's start may move by age and size (cleanup.policy=delete).

It never passes a hold, nor what is not durable. It works at the grain of the stream's runs of chunks, so a log keeps a
little more than it was told to, never less.
"""

from streamlake.log.partition import Partition


async def apply_retention(partition: Partition, now_ms: int) -> int:
    """Move the start of the log by its settings; by how many offsets it moved."""
    settings = partition.settings
    keep_bytes = settings.retention_bytes if settings.retention_bytes >= 0 else None
    min_timestamp = now_ms - settings.retention_ms if settings.retention_ms >= 0 else None
    if not settings.deletes or (keep_bytes is None and min_timestamp is None):
        return 0
    before = partition.log_start_offset
    point = await partition.stream.retention_point(keep_bytes, min_timestamp, partition.deletable_offset)
    # Asked again after the await: a hold set in between (a table was enabled) wins. Safe at a crash: the new start is
    # in the metadata before any byte goes, and a zombie's trim is refused by its broker epoch.
    point = min(point, partition.deletable_offset)
    if point <= before:
        return 0
    await partition.stream.trim(point)
    return partition.log_start_offset - before
