"""Send the same requests to Apache Kafka and to StreamLake, and compare the answers field by field: `make differ`.

Kafka runs from its jars (Java 17 and Maven; without them nothing is compared, and this says so). `--only NAME` runs the
scenarios whose name contains it. Exit code: 0 if every difference is an intended one (intended.toml), or nothing could
be compared; 1 if something else differs, or an intended difference does not.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from differ import (  # noqa: F401
    administration,
    cluster,
    configs,
    coordinator,
    fetching,
    groups,
    groups_of_consumers,
    markers,
    offsets,
    producing,
    reassignments,
    topics,
    transactions,
)
from differ.compare import compare, read_intended
from differ.scenario import SCENARIOS, answers
from support.apache_kafka import ApacheKafka, kafka_version
from support.maven import Missing
from support.server import Server

KAFKA = {"group.initial.rebalance.delay.ms": "0"}
OURS = """
[tables]
enabled = false
[groups]
initial_rebalance_delay_ms = 0
"""
NODE_ID = 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="only scenarios whose name contains this")
    only = parser.parse_args().only
    chosen = [run for run in SCENARIOS if only in run.__name__]
    place = Path(tempfile.mkdtemp(prefix="differ-"))
    ours = Server(place / "streamlake", OURS)
    try:
        with ApacheKafka(place / "kafka", KAFKA, NODE_ID, heap_bytes=512 << 20) as kafka:
            print(f"Apache Kafka {kafka_version()} beside StreamLake, {len(chosen)} scenarios", flush=True)
            ours.start()
            theirs_said: dict[str, Any] = {}
            ours_said: dict[str, Any] = {}
            for run in chosen:
                theirs_said |= answers(kafka.port, run)
                ours_said |= answers(ours.port, run)
    except Missing as missing:
        print(f"nothing was compared: {missing}")
        return 0
    finally:
        if ours.process is not None:
            ours.stop()
        shutil.rmtree(place, ignore_errors=True)
    outcome = compare(theirs_said, ours_said, read_intended())
    for label, differences in outcome.unexpected.items():
        print(label, *(f"    {difference}" for difference in differences), sep="\n")
    if only:
        outcome.stale = []
    for entry in outcome.stale:
        print(f"intended, but the same now: {entry.request} {entry.field}: take it off the list")
    print(outcome)
    return 0 if outcome.good else 1


if __name__ == "__main__":
    sys.exit(main())
