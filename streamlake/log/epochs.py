"""Leader epochs of a partition: each open of its stream starts one (KIP-101, KIP-320)."""

from bisect import bisect_right
from collections.abc import Sequence

UNDEFINED_EPOCH = -1
UNDEFINED_OFFSET = -1


def end_of_epoch(epochs: Sequence[tuple[int, int]], requested: int, end_offset: int) -> tuple[int, int]:
    """OffsetForLeaderEpoch: the largest epoch <= `requested`, and its end offset. `epochs` are (epoch, start offset),
    oldest first.

    As Kafka's LeaderEpochFileCache.endOffsetFor: the latest epoch ends at `end_offset`; an epoch before all known ones
    ends where the first known one starts; for an epoch after all known ones the answer is (-1, -1)."""
    if not epochs or requested < 0 or requested > epochs[-1][0]:
        return UNDEFINED_EPOCH, UNDEFINED_OFFSET
    after = bisect_right(epochs, requested, key=lambda entry: entry[0])
    if after == len(epochs):
        return requested, end_offset
    epoch = epochs[after - 1][0] if after > 0 else requested
    return epoch, epochs[after][1]


def epoch_of(epochs: Sequence[tuple[int, int]], offset: int) -> int:
    """The epoch in which `offset` was or will be written; -1 if that epoch is no longer known."""
    after = bisect_right(epochs, offset, key=lambda entry: entry[1])
    return epochs[after - 1][0] if after > 0 else UNDEFINED_EPOCH
