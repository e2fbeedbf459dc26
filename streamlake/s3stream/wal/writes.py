"""How often a WAL made records durable, and how long each time took. Plain numbers, read at scrape time."""

from bisect import bisect_left

LATENCY_BOUNDS_MS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000)


class Writes:
    """Syncs of a file WAL, uploads of an object WAL (retries included)."""

    __slots__ = ("buckets", "count", "sum_ms")

    def __init__(self) -> None:
        self.count = 0
        self.sum_ms = 0.0
        self.buckets = [0] * (len(LATENCY_BOUNDS_MS) + 1)  # count per bound, the last one above all bounds

    def add(self, latency_ms: float) -> None:
        self.count += 1
        self.sum_ms += latency_ms
        self.buckets[bisect_left(LATENCY_BOUNDS_MS, latency_ms)] += 1

    def cumulative(self) -> list[tuple[str, int]]:
        """How many took at most so many milliseconds, for each bound."""
        total, rows = 0, []
        for bound, count in zip((*LATENCY_BOUNDS_MS, float("inf")), self.buckets, strict=True):
            total += count
            rows.append((f"{bound:g}".replace("inf", "+Inf"), total))
        return rows
