"""How long a partition cannot be produced to while it moves to another broker.

    python bench/moves.py [--moves 50] [--partitions 4] [--wal object|file]

Two brokers on PostgreSQL, with objects and WALs in directories of this machine. An idempotent producer sends 100
records a second, round robin, each a request of its own; all partitions change their brokers again and again. The gap
of a move is the longest time from the sending of a record to its acknowledgement, of the records sent around it.
"""

import argparse
import asyncio
import itertools
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from acks import Load, distribution, quantile
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from report import Report, console, plot_lines

from streamlake.lake.cluster import LocalCluster

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from support.moves import Mover

TOPIC = "moves"
PAUSE_S = 2.0  # between two moves: far longer than one takes
GOAL_P50_S, GOAL_P99_S = 0.2, 0.5
TIMEOUT_S = 60.0


async def measure(cluster: LocalCluster, moves: int, partitions: int) -> list[float]:
    """The gap of each move, of each partition."""
    settings = {"bootstrap.servers": cluster.bootstrap, "enable.idempotence": True, "linger.ms": 0}
    load = Load(Producer(settings), TOPIC, partitions)
    mover, stop = await Mover.of(cluster.metadata_url), False
    loading = asyncio.create_task(asyncio.to_thread(load.run, lambda: stop))
    moved_at = []
    await asyncio.sleep(PAUSE_S)
    for _ in range(moves):
        moved_at.append(time.perf_counter())
        await mover.move(TOPIC, lambda partition: 1 - (partition.node or 0))
        await asyncio.sleep(PAUSE_S)
    stop = True
    await loading
    load.check()
    await mover.close()
    gaps = [
        load.gap(partition, start - 0.5, end - 0.5)
        for start, end in itertools.pairwise([*moved_at, moved_at[-1] + PAUSE_S])
        for partition in range(partitions)
    ]
    quiet = sorted(took for sent, _, took in load.latencies if sent < moved_at[0])
    console.print(f"without a move: p50 {quiet[len(quiet) // 2] * 1000:.0f} ms, most {quiet[-1] * 1000:.0f} ms")
    return sorted(gaps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moves", type=int, default=50)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--wal", choices=["object", "file"], action="append")
    options = parser.parse_args()
    report, found = Report("moves"), {}
    for wal in options.wal or ["object", "file"]:
        with TemporaryDirectory(prefix="moves-") as name:
            Path(name).chmod(0o755)  # PostgreSQL runs as another user for root
            directory = Path(name) / "data"
            uri = "object" if wal == "object" else f"file://{directory}/wals?shared=true"
            cluster = LocalCluster(directory, 2, wal=uri)
            cluster.start()
            try:
                admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
                for created in admin.create_topics([NewTopic(TOPIC, options.partitions, 1)]).values():
                    created.result(TIMEOUT_S)
                gaps = found[wal] = asyncio.run(measure(cluster, options.moves, options.partitions))
            finally:
                cluster.stop()
        facts = {"moves": options.moves, "partitions": options.partitions}
        for share, limit in ((0.5, GOAL_P50_S), (0.99, GOAL_P99_S)):
            value = quantile(gaps, share)
            report.figure(f"gap p{share * 100:.0f}, {wal} WAL", value, "s", **facts)
            report.goal(f"gap p{share * 100:.0f}, {wal} WAL", value, limit, "s", better="lower")
        report.figure(f"longest gap, {wal} WAL", gaps[-1], "s", **facts)
    report.write()
    lines = {f"{wal} WAL": distribution(gaps) for wal, gaps in found.items()}
    plot_lines("moves", "Gap of a partition that moves", "% of moves", "seconds", lines)


if __name__ == "__main__":
    main()
