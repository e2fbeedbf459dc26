"""Settled dead letters: offsets that are dead letters for ever.

The dead-letter table commits before the main table. If a crash comes between, its rows from the main table's position
on stand for decisions that are already visible: exactly those records must stay out of the main table, whatever the
schema registry says today, and all others must go in. A set of offsets, not a watermark, because both kinds lie mixed.
"""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator

from pyiceberg.table import Table

from streamlake.table.commit.progress import Progress


class SettledDeadLetters(Collection[tuple[int, int]]):
    """A set of (partition, offset), kept as ranges: a bad batch may claim two billion offsets."""

    def __init__(self, ranges: Iterable[tuple[int, int, int]]) -> None:
        """`ranges`: (partition, first offset, last offset)."""
        self._ranges: dict[int, list[tuple[int, int]]] = {}
        for partition, first, last in sorted(set(ranges)):
            merged = self._ranges.setdefault(partition, [])
            if merged and first <= merged[-1][1] + 1:
                merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
            else:
                merged.append((first, last))

    def __contains__(self, position: object) -> bool:
        if not isinstance(position, tuple):
            return False
        partition, offset = position
        ranges = self._ranges.get(partition, [])
        at = bisect_right(ranges, (offset, 2**63)) - 1
        return at >= 0 and offset <= ranges[at][1]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((p, o) for p, ranges in self._ranges.items() for first, last in ranges for o in range(first, last + 1))

    def __len__(self) -> int:
        return sum(last - first + 1 for ranges in self._ranges.values() for first, last in ranges)


NONE_SETTLED = SettledDeadLetters(())


def read_settled(dead_letters: Table | None, decided: Progress, main: Progress) -> SettledDeadLetters:
    """The dead letters at and above main's positions. `decided` is the dead-letter table's progress. Blocks."""
    ahead = [p for p, position in enumerate(decided.next) if position > main.position(p)]
    if dead_letters is None or not ahead:
        return NONE_SETTLED
    lowest = min(main.position(p) for p in ahead)
    rows = dead_letters.scan(
        row_filter=f"partition in ({', '.join(map(str, ahead))}) and last_offset >= {lowest}",
        selected_fields=("partition", "offset", "last_offset"),
    ).to_arrow()
    found = zip(*(rows[name].to_pylist() for name in ("partition", "offset", "last_offset")), strict=True)
    return SettledDeadLetters((p, first, last) for p, first, last in found if last >= main.position(p))
