"""Compatibility levels: which earlier versions of a subject a new schema is compared with, and in which direction.

BACKWARD: who reads with the new schema understands what was written with the one before. FORWARD: who still reads with
the one before understands what is written with the new one. FULL: both. _TRANSITIVE: not only the one before, but all.
"""

from collections.abc import Callable, Sequence
from enum import Enum
from typing import TypeVar

T = TypeVar("T")


class Level(Enum):
    NONE = "NONE"
    BACKWARD = "BACKWARD"
    BACKWARD_TRANSITIVE = "BACKWARD_TRANSITIVE"
    FORWARD = "FORWARD"
    FORWARD_TRANSITIVE = "FORWARD_TRANSITIVE"
    FULL = "FULL"
    FULL_TRANSITIVE = "FULL_TRANSITIVE"

    @property
    def backward(self) -> bool:
        return self.value.startswith(("BACKWARD", "FULL"))

    @property
    def forward(self) -> bool:
        return self.value.startswith(("FORWARD", "FULL"))

    @property
    def transitive(self) -> bool:
        return self.value.endswith("_TRANSITIVE")


DEFAULT_LEVEL = Level.BACKWARD


def incompatibilities(
    level: Level, new: T, earlier: Sequence[tuple[int, T]], cannot_read: Callable[[T, T], str]
) -> list[str]:
    """What speaks against `new`, one message for each version and direction; none: it is compatible.

    `earlier` are (version, schema), oldest first. `cannot_read(reader, writer)` says why not; "": it can."""
    if level is Level.NONE:
        return []
    found = []
    for version, old in reversed(earlier if level.transitive else earlier[-1:]):
        if level.backward and (why := cannot_read(new, old)):
            found.append(f"the new schema cannot read data written with version {version}: {why}")
        if level.forward and (why := cannot_read(old, new)):
            found.append(f"version {version} cannot read data written with the new schema: {why}")
    return found
