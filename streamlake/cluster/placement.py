"""Which broker is to have which partition: pure decisions of the controller.

A partition without an available broker goes to the one that has fewest. Then counts are levelled, with as few moves as
that takes, and only where they differ by more than a tenth: each move is a short gap for the producers of a partition.
"""

from collections.abc import Collection, Hashable, Mapping
from typing import TypeVar

P = TypeVar("P", bound=Hashable)
UNEVEN = 0.1  # of the mean: differences up to this are left alone


def place(partitions: Mapping[P, int | None], available: Collection[int], kept: Collection[int] = ()) -> dict[P, int]:
    """What changes, by partition. `available`: the nodes that can take partitions. `kept`: nodes that cannot, and keep
    theirs: nobody else can open them."""
    if not available:
        return {}
    held: dict[int, list[P]] = {node: [] for node in sorted(available)}
    changes: dict[P, int] = {}
    homeless: list[P] = []
    for partition, node in partitions.items():
        if node in held:
            held[node].append(partition)
        elif node not in kept:
            homeless.append(partition)
    for partition in homeless:
        node = min(held, key=lambda n: len(held[n]))
        held[node].append(partition)
        changes[partition] = node
    mean = sum(map(len, held.values())) / len(held)
    while True:
        fullest, emptiest = max(held, key=lambda n: len(held[n])), min(held, key=lambda n: len(held[n]))
        if len(held[fullest]) - len(held[emptiest]) <= max(1, UNEVEN * mean):
            return changes
        partition = held[fullest].pop()
        held[emptiest].append(partition)
        changes[partition] = emptiest
