"""ListOffsets by time: the first record at or after a time, and the record with the greatest timestamp (KIP-734).

The stream finds a run of chunks, the batch headers find a batch, and only that batch is decompressed, off the event
loop. The header decides: if none of the records has the timestamp that it claims (compressed batches that were stored
before docs/adr/0016 may do that), the answer is the first offset, so that a consumer that seeks there misses nothing.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

from streamlake.core.errors import NotFound
from streamlake.log.partition import Partition
from streamlake.record.batch import BatchHeader, InvalidRecord, frames
from streamlake.record.compression import DECOMPRESSED_BYTES_MAX
from streamlake.record.decode import Record, decode_batch

READ_BYTES = 1024 * 1024
NONE_FOUND = (-1, -1)


async def first_at_or_after(partition: Partition, timestamp: int) -> tuple[int, int]:
    """(timestamp, offset) of the first durable record with at least this timestamp (ms); (-1, -1) if there is none."""
    return await _again_if_trimmed(partition, lambda: _first_at_or_after(partition, timestamp))


async def max_timestamp(partition: Partition) -> tuple[int, int]:
    """(timestamp, offset) of the first durable record with the greatest timestamp (ms); (-1, -1) in an empty log."""
    return await _again_if_trimmed(partition, lambda: _max_timestamp(partition))


async def _again_if_trimmed(partition: Partition, search: Callable[[], Awaitable[tuple[int, int]]]) -> tuple[int, int]:
    """Search again if retention removed what was searched: the log starts later now."""
    while True:
        log_start_offset = partition.log_start_offset
        try:
            return await search()
        except NotFound:
            if partition.log_start_offset == log_start_offset:
                raise


async def _first_at_or_after(partition: Partition, timestamp: int) -> tuple[int, int]:
    end_offset = partition.high_watermark
    found = await partition.stream.find_timestamp(timestamp, end_offset)
    if found is None:
        return NONE_FOUND
    # The run may match by records below the log start, so the search continues after it.
    async with aclosing(_batches(partition, found[0], end_offset)) as batches:
        async for header, batch in batches:
            if header.max_timestamp < timestamp:
                continue
            record = await partition.executor.run(_first_record, header, batch, timestamp, partition.log_start_offset)
            if record is not None:
                return record.timestamp, record.offset
    return NONE_FOUND


async def _max_timestamp(partition: Partition) -> tuple[int, int]:
    end_offset = partition.high_watermark
    found = await partition.stream.max_timestamp(end_offset)
    if found is None:
        return NONE_FOUND
    greatest, start, end = found
    best = await _greatest(partition, start, end)
    if best[0] < greatest:  # the run has it only below the log start: search the whole log
        best = await _greatest(partition, partition.log_start_offset, end_offset)
    return best


async def _greatest(partition: Partition, start_offset: int, end_offset: int) -> tuple[int, int]:
    best = NONE_FOUND
    async for header, batch in _batches(partition, start_offset, end_offset):
        if header.max_timestamp <= best[0]:
            continue
        record = await partition.executor.run(_newest_record, header, batch, partition.log_start_offset)
        if record is not None and record.timestamp > best[0]:
            best = record.timestamp, record.offset
    return best


async def _batches(
    partition: Partition, start_offset: int, end_offset: int
) -> AsyncGenerator[tuple[BatchHeader, memoryview], None]:
    """Batches from the log start or `start_offset` on, read as the caller takes them, READ_BYTES at a time."""
    position = max(start_offset, partition.log_start_offset)
    while position < end_offset:
        chunks = await partition.stream.read(position, end_offset, READ_BYTES)
        for chunk in chunks:
            for header, batch in frames(chunk):
                if header.next_offset > position:
                    position = header.next_offset
                    yield header, batch
        position = max(position, partition.log_start_offset)  # it may have moved while we read
        if not chunks:
            return


def _first_record(header: BatchHeader, batch: memoryview, timestamp: int, log_start_offset: int) -> Record | None:
    """The first record at or above the log start with at least this timestamp."""
    for record in _records(header, batch, log_start_offset):
        if record.timestamp >= timestamp:
            return record
    if header.base_offset < log_start_offset:
        return None
    return Record(header.base_offset, header.max_timestamp, None, None)


def _newest_record(header: BatchHeader, batch: memoryview, log_start_offset: int) -> Record | None:
    """The first of the records at or above the log start that have the greatest timestamp."""
    return max(_records(header, batch, log_start_offset), key=lambda record: record.timestamp, default=None)


def _records(header: BatchHeader, batch: memoryview, log_start_offset: int) -> list[Record]:
    """The records at or above the log start; one that represents all if the batch cannot be read."""
    try:
        records = decode_batch(header, batch, DECOMPRESSED_BYTES_MAX)
    except InvalidRecord:
        return [Record(max(header.base_offset, log_start_offset), header.max_timestamp, None, None)]
    return [record for record in records if record.offset >= log_start_offset]
