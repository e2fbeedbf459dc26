"""Which ranges of a stream are to be written anew, together.

An upload holds all streams that were written to in some seconds, so each has a small range in it, and a reader of one
stream makes a request for each of these. Neighbours are merged in tiers, as in a log-structured merge tree: some of a
tier make one of the next, so that a byte is written anew a few times only, however much comes later. As soon as they
are enough for an object of their own, they become that. A range of half an object and more stays.

A sparse object, most of whose bytes nobody can read any more (its other ranges were deleted, or given to other
objects), is left by the ranges that are still in it, whatever their size: then it is garbage.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from streamlake.s3stream.objects.map import RangeInObject

TIERS = (2, 32, 512)  # a tier's ranges are smaller than this part of an object, and not of the next tier
FAN_IN = (16, 8, 8)  # of a tier; those of the first take few requests as they are, and had better become an object
RANGES_MAX = 64  # of a run: a request each, at least
SPARSE_SHARE = 3  # sparse: less than a third of an object is read. Of a new one of small chunks tables are half


@dataclass(frozen=True, slots=True)
class Run:
    """Ranges of a stream that adjoin, oldest first, to be one range of a new object."""

    stream_id: int
    entries: tuple[RangeInObject, ...]

    @property
    def size_bytes(self) -> int:
        return sum(entry.size_bytes for entry in self.entries)


def runs(
    stream_id: int, entries: Sequence[RangeInObject], object_bytes: int, is_sparse: Callable[[RangeInObject], bool]
) -> Iterator[Run]:
    """What is worth it now, of ranges of a stream that adjoin, oldest first. Each run is for one object of about
    `object_bytes`; what does not fit is left for the next time."""
    for sparse, found in groupby(entries, is_sparse):
        if sparse:
            yield Run(stream_id, _fitting(list(found), object_bytes))
        else:
            yield from (Run(stream_id, some) for some in _tiered(list(found), object_bytes))


def _tiered(entries: list[RangeInObject], object_bytes: int) -> Iterator[tuple[RangeInObject, ...]]:
    """From the largest ranges down: what goes into an object of its own now is not merged into a smaller one before."""
    tiers = [_tier(entry.size_bytes, object_bytes) for entry in entries]
    taken = [False] * len(entries)
    for tier in range(len(TIERS)):
        movable = [tiers[at] >= tier and not taken[at] for at in range(len(entries))]
        for is_movable, rows in groupby(range(len(entries)), movable.__getitem__):
            group = list(rows)
            total = sum(entries[at].size_bytes for at in group)
            full = total >= object_bytes or sum(tiers[at] == tier for at in group) >= FAN_IN[tier]
            if is_movable and full:
                some = _fitting([entries[at] for at in group], object_bytes)
                for at in group[: len(some)]:
                    taken[at] = True
                yield some


def _tier(size_bytes: int, object_bytes: int) -> int:
    """−1 for ranges that are large enough, then 0, 1, … the smaller they are."""
    return sum(size_bytes * part < object_bytes for part in TIERS) - 1


def _fitting(entries: list[RangeInObject], object_bytes: int) -> tuple[RangeInObject, ...]:
    """The first ones that make an object: at least one."""
    size = 0
    for count, entry in enumerate(entries):
        size += entry.size_bytes
        if count and (size > object_bytes or count >= RANGES_MAX):
            return tuple(entries[:count])
    return tuple(entries)
