"""Batches of a Produce request that get another codec, because `compression.type` of their topic names one.

A batch is checked as it came first; what it can become at most is reserved; then it is compressed again, and the result
is checked as if it had come so. Both in a thread.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from streamlake.core.errors import StreamLakeError
from streamlake.handlers.error_codes import Failure
from streamlake.log.partition import Partition
from streamlake.record.recompress import recompressed_bytes_max
from streamlake.record.run import Run

# Of a partition that is here, with the numbers of the order that topic and partition stand in.
Batch = tuple[tuple[int, int], Partition, memoryview]
# What was made of batches that are not left to stage one, by the same numbers.
Verdicts = dict[tuple[int, int], Run | StreamLakeError | Failure]


class Recompression(NamedTuple):
    """A good batch that is to be compressed again, into `bytes_max` bytes at most."""

    at: tuple[int, int]
    partition: Partition
    records: memoryview
    bytes_max: int


def to_recompress(batches: Iterable[Batch], verdicts: Verdicts) -> Iterator[Recompression]:
    for at, partition, records in batches:
        run = verdicts[at]
        if not isinstance(run, StreamLakeError | Failure) and partition.must_recompress(records):
            most = recompressed_bytes_max(run.size_bytes, run.unpacked_bytes)
            yield Recompression(at, partition, records, min(most, partition.settings.max_message_bytes))


def recompressed(batches: Iterable[Recompression]) -> Verdicts:
    """In a thread. What comes out of all of them together has its capacity already."""
    verdicts: Verdicts = {}
    for at, partition, records, bytes_max in batches:
        try:
            verdicts[at] = partition.recompress(records, bytes_max)
        except StreamLakeError as error:
            verdicts[at] = error
    return verdicts
