"""Produce by codec: what it costs the broker that it decompresses each batch before it takes it (docs/adr/0016).

    python bench/compression.py [--against CHECKOUT] [--kafka] [--seconds 2] [--rounds 3]

Ready-made requests over plain sockets, in turns, as in bench/produce.py; records of text that packs to a third. With
--against, another checkout of StreamLake (with its own .venv) runs beside this one, and ratios are to it. MB are those
of the records before compression.
"""

import argparse
import random
import string
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from brokers import StreamLake, apache_kafka, merged
from produce import CONFIG, CONNECTIONS, Broker, Reached, measure
from report import Report, median, take_turns

from streamlake.bench.raw import produce_requests
from streamlake.record.compression import Compression

RECORD_BYTES = 1000
VALUES = 1000
WORDS = 2000
IN_FLIGHT = {1: 64, 10: 64, 100: 16, 1000: 5}  # by records of a batch, on each connection
MEASUREMENT_BYTES = 1 << 30  # at most, for the sake of the disk


class OtherCheckout(StreamLake):
    """Another version of StreamLake, by its own interpreter."""

    def __init__(self, checkout: Path, directory: Path) -> None:
        super().__init__(
            f"StreamLake of {checkout.name}", directory, merged({"storage": {"wal": "file"}}, CONFIG), None
        )
        self._python = str(checkout / ".venv" / "bin" / "python")
        self.environ["PYTHONSAFEPATH"] = "1"  # or it would import this checkout, from the directory we are in

    def command(self) -> list[str]:
        return [self._python, *super().command()[1:]]


def text(seed: int = 1) -> list[bytes]:
    """Values of words, the common ones more often: they pack to about a quarter."""
    rng = random.Random(seed)
    words = ["".join(rng.choices(string.ascii_lowercase, k=rng.randint(3, 9))) for _ in range(WORDS)]
    weights = [1 / (n + 1) for n in range(WORDS)]
    return [" ".join(rng.choices(words, weights, k=RECORD_BYTES // 4)).encode()[:RECORD_BYTES] for _ in range(VALUES)]


def facts(reached: list[Reached]) -> tuple[float, float]:
    """MB/s, and MB for a second of the broker's processor."""
    mb_per_core_s = median([r.load.bytes / 1e6 / r.broker_cpu_s for r in reached])
    return median([r.load.mb_per_s for r in reached]), mb_per_core_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", type=Path, help="another checkout")
    parser.add_argument("--kafka", action="store_true", help="Apache Kafka beside it, without a flush per batch")
    parser.add_argument("--batches", type=int, nargs="*", default=list(IN_FLIGHT), help="records of a batch")
    given = parser.parse_args()
    report, ring = Report("compression"), text()
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        place = Path(directory)
        ours = StreamLake("StreamLake", place / "ours", merged({"storage": {"wal": "file"}}, CONFIG), None)
        brokers: list[Broker] = [ours]
        if given.against:
            brokers.append(OtherCheckout(given.against.absolute(), place / "other"))
        for broker in brokers:
            assert isinstance(broker, StreamLake)
            broker.start()
            stack.callback(broker.stop)
        if given.kafka and (kafka := stack.enter_context(apache_kafka(place / "kafka"))) is not None:
            brokers.append(kafka)
        for batch_records in given.batches:
            for codec in Compression:
                arguments = {
                    "record_bytes": RECORD_BYTES, "batch_records": batch_records, "in_flight": IN_FLIGHT[batch_records],
                    "seconds": given.seconds, "records": MEASUREMENT_BYTES // RECORD_BYTES,
                    "ring": ring, "compression": codec,
                }  # fmt: skip
                runs = {b.name: partial(measure, b, CONNECTIONS, produce_requests, **arguments) for b in brokers}
                found = {name: facts(reached) for name, reached in take_turns(given.rounds, runs).items()}
                what = f"batches of {batch_records:,} x {RECORD_BYTES:,} B, {codec.name.lower()}"
                for name, (mb_per_s, mb_per_core_s) in found.items():
                    ratios = {
                        f"ratio to {other}": f"{mb_per_s / theirs[0]:.2f}, per core {mb_per_core_s / theirs[1]:.2f}"
                        for other, theirs in found.items() if name == ours.name != other
                    }  # fmt: skip
                    report.figure(what, mb_per_s, "MB/s", broker=name, mb_per_core_s=round(mb_per_core_s, 1), **ratios)
    report.write()


if __name__ == "__main__":
    main()
