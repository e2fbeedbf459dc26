"""Which brokers are dead: watched, never computed from wall clocks. Sans-IO.

Each broker counts its beats in the metadata store. A watcher reads the counts again and again, and takes a node for
dead when its count stood still for a whole lease on the watcher's own clock. A broker that could not beat because the
metadata store was away, or that nobody saw because the watcher slept, must not be judged by that time: after two reads
that are more than `GAP_S` apart everybody is watched anew.

Why a dead node acknowledges nothing any more: its lease (membership.py) ends one lease after it *sent* its last beat,
by its clock, which counts the time of a suspended machine. The watcher counts from the *answer* to the first read that
showed this beat to the *request* of the last one that did. So the only assumption is that the two clocks run at nearly
the same rate, and `CLOCK_RATES` is the margin for that.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

GAP_S = 1.0  # the longest time between two reads of one watch
LOOK_INTERVAL_S = 0.25  # the time between them
CLOCK_RATES = 0.02  # by how much faster one clock may run than another
MOVES_OF_THE_LIVING = 2  # one may have been under way when its broker was killed


class Sign(NamedTuple):
    """What a broker shows of itself in the metadata store."""

    epoch: int
    beat: int


@dataclass(slots=True)
class _Watched:
    sign: Sign
    since: float  # the answer to the first read that showed this sign
    moves: int = 0


class Watch:
    """`lease_s`: how long a broker may act on its last beat."""

    def __init__(self, lease_s: float) -> None:
        self._still_s = lease_s * (1 + CLOCK_RATES)
        self._watched: dict[int, _Watched] = {}
        self._asked_at = float("-inf")  # the request of the last read

    def look(self, signs: Mapping[int, Sign], asked_at: float, answered_at: float) -> None:
        """A read of the signs of all nodes; its request and its answer, by the watcher's monotonic clock."""
        if answered_at - self._asked_at > GAP_S:
            self._watched = {}
        self._asked_at = asked_at
        before, self._watched = self._watched, {}
        for node, sign in signs.items():
            seen = before.get(node)
            if seen is None:
                seen = _Watched(sign, answered_at)
            elif seen.sign != sign:
                seen = _Watched(sign, answered_at, seen.moves + 1)
            self._watched[node] = seen

    def is_dead(self, node: int) -> bool:
        """Its sign, as of the last read, stood still for a whole lease."""
        return self.stood_still_s(node) >= self._still_s

    def stood_still_s(self, node: int) -> float:
        """For how long its sign, as of the last read, has not moved; 0 for one that was not watched."""
        seen = self._watched.get(node)
        return max(0.0, self._asked_at - seen.since) if seen else 0.0

    def is_alive(self, node: int) -> bool:
        """It was seen to beat. A node that is neither alive nor dead was not watched long enough."""
        seen = self._watched.get(node)
        return seen is not None and seen.moves >= MOVES_OF_THE_LIVING and not self.is_dead(node)
