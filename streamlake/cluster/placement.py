"""Which broker is to have which partition: pure decisions of the controller.

A partition without an available broker goes to the one that has fewest. Then counts are levelled, with as few moves as
that takes, and only where they differ by more than a tenth: each move is a short gap for the producers of a partition.
What an operator has put somewhere stays there, as long as that broker is available.
"""

from collections.abc import Collection, Hashable, Mapping
from typing import TypeVar

P = TypeVar("P", bound=Hashable)
UNEVEN = 0.1  # of the mean: differences up to this are left alone


def place(
    partitions: Mapping[P, int | None],
    available: Collection[int],
    kept: Collection[int] = (),
    pinned: Collection[P] = (),
) -> dict[P, int]:
    """What changes, by partition. `available`: the nodes that can take partitions. `kept`: nodes that cannot, and keep
    theirs: nobody else can open them. `pinned`: partitions that are not moved to level counts."""
    if not available:
        return {}
    held: dict[int, list[P]] = {node: [] for node in sorted(available)}  # what may be moved from there
    counts = dict.fromkeys(held, 0)
    changes: dict[P, int] = {}
    homeless: list[P] = []
    for partition, node in partitions.items():
        if node in held:
            counts[node] += 1
            if partition not in pinned:
                held[node].append(partition)
        elif node not in kept:
            homeless.append(partition)
    for partition in homeless:
        node = min(counts, key=counts.__getitem__)
        counts[node] += 1
        held[node].append(partition)
        changes[partition] = node
    mean = sum(counts.values()) / len(counts)
    while movable := [node for node in counts if held[node]]:
        fullest, emptiest = max(movable, key=counts.__getitem__), min(counts, key=counts.__getitem__)
        if counts[fullest] - counts[emptiest] <= max(1, UNEVEN * mean):
            break
        partition = held[fullest].pop()
        held[emptiest].append(partition)
        counts[fullest] -= 1
        counts[emptiest] += 1
        changes[partition] = emptiest
    return changes
