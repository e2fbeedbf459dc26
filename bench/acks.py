"""A steady idempotent producer, and how long each of its records took to be acknowledged. moves.py and failover.py."""

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from confluent_kafka import Producer

RATE = 100  # records a second, round robin, each a request of its own
FLUSH_S = 60.0


@dataclass
class Load:
    """`run` in a thread, then `check`."""

    producer: Producer
    topic: str
    partitions: int
    latencies: list[tuple[float, int, float]] = field(default_factory=list)  # sent at, partition, seconds
    failed: list[str] = field(default_factory=list)

    def run(self, until: Callable[[], bool]) -> None:
        turns = itertools.cycle(range(self.partitions))
        due = time.perf_counter()
        while not until():
            self.producer.poll(max(0.0, due - time.perf_counter()))
            if time.perf_counter() >= due:
                due += 1 / RATE
                self._send(next(turns))

    def check(self) -> None:
        """An error of a record, or one that is not acknowledged, ends the benchmark."""
        if self.producer.flush(FLUSH_S) or self.failed:
            raise SystemExit(f"records were not acknowledged: {self.failed[:3]}")

    def gap(self, partition: int, start: float, end: float) -> float:
        """The longest time to an acknowledgement, of the records that were sent in between; by `time.perf_counter`."""
        return max(took for sent, of, took in self.latencies if of == partition and start <= sent < end)

    def _send(self, partition: int) -> None:
        sent = time.perf_counter()

        def delivered(error: object, _: object) -> None:
            if error is not None:
                self.failed.append(str(error))
            else:
                self.latencies.append((sent, partition, time.perf_counter() - sent))

        self.producer.produce(self.topic, b"v" * 100, partition=partition, on_delivery=delivered)


def quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def distribution(ordered: Sequence[float]) -> list[tuple[float, float]]:
    """For a plot: what share of them, in percent, is no longer than that."""
    return [(100 * at / len(ordered), value) for at, value in enumerate(ordered, 1)]
