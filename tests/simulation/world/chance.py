"""How long things take and when they fail, drawn from a seed.

`Latency` is mostly quick and sometimes very slow: a mean would hide the races that a tail finds. `Windows` are stretches
of time in which something is wrong (a storm of 503s, an outage), computed as time passes, so they need no timers.
"""

from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class Latency:
    """Around `typical_s`; one in `1 / tail_rate` takes anything up to `tail_s`."""

    typical_s: float
    tail_rate: float = 0.0
    tail_s: float = 0.0

    def draw(self, random: Random) -> float:
        if self.tail_rate and random.random() < self.tail_rate:
            return self.typical_s + random.random() ** 3 * self.tail_s
        return self.typical_s * (0.5 + random.random())


class Windows:
    """Stretches of up to `length_s`, every `gap_s` on average; none if `gap_s` is 0. `open` adds one by hand."""

    def __init__(self, random: Random, gap_s: float, length_s: float) -> None:
        self._random = random
        self._gap_s = gap_s
        self._length_s = length_s
        self._start = random.expovariate(1 / gap_s) if gap_s else float("inf")
        self._end = self._start + random.random() * length_s
        self._by_hand_until = float("-inf")

    def open(self, now: float, length_s: float) -> None:
        """One that starts now."""
        self._by_hand_until = now + length_s

    def close(self) -> None:
        """None from now on."""
        self._start, self._by_hand_until = float("inf"), float("-inf")

    def active(self, now: float) -> bool:
        """`now` never goes back."""
        while now >= self._end and self._start != float("inf"):
            self._start = self._end + self._random.expovariate(1 / self._gap_s)
            self._end = self._start + self._random.random() * self._length_s
        return now >= self._start or now < self._by_hand_until
