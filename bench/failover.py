"""How long partitions cannot be produced to when their broker dies.

    python bench/failover.py [--kills 20] [--partitions 6] [--how kill|freeze] [--wal object|file] [--timeline]

Three brokers on PostgreSQL, with objects and WALs in directories of this machine. An idempotent producer sends 100
records a second, round robin, each a request of its own. Again and again a broker is killed with SIGKILL, the
controller and another one in turns, and started again when the others have what it had. The gap of a partition is the
longest time from the sending of a record to its acknowledgement, of the records sent around the kill.

`freeze` is what a lost host looks like: the process stops where it is, so that its port does not refuse, and whoever
asks it gets no answer. The producer gives a request up after a second then: by default after a minute.

`--timeline` prints what the brokers logged after each kill, with the seconds since then.
"""

import argparse
import contextlib
import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
from acks import Load, distribution, quantile
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from report import Report, console, plot_lines

from streamlake.lake.child_server import LOG_FILE
from streamlake.lake.cluster import CLUSTER_FILE, LocalCluster

TOPIC = "failover"
BROKERS = 3
QUIET_S = 3.0  # before a kill, with all brokers level
TIMEOUT_S = 120.0  # for a cluster to be level again
LOOK_S = 0.05
LOG_LOOK_S = 0.005
REQUEST_TIMEOUT_S = 1.0
SIGNALS = {"kill": signal.SIGKILL, "freeze": signal.SIGSTOP}
GOALS_S = {"kill": ((0.5, 2.0), (0.99, 3.5)), "freeze": ((0.99, 5.0),)}


@dataclass
class Kill:
    node: int
    is_controller: bool
    at: float  # time.perf_counter
    partitions: list[int]  # that the broker had
    until: float = 0.0  # all of them go on
    lines: list[tuple[float, int, str]] = field(default_factory=list)  # when, the node, what it logged

    @property
    def who(self) -> str:
        return "controller" if self.is_controller else "another broker"


class Logs:
    """What the brokers log within `with`, with the time at which it was seen: as exact as LOG_LOOK_S."""

    def __init__(self, directory: Path, lines: list[tuple[float, int, str]]) -> None:
        self._files = [(node, directory / f"broker-{node}" / LOG_FILE) for node in range(BROKERS)]
        self._told = [file.stat().st_size for _, file in self._files]
        self._lines = lines
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._ended.wait(LOG_LOOK_S):
            for node, file in self._files:
                with file.open("rb") as log:
                    log.seek(self._told[node])
                    new = log.read()
                whole = new[: new.rfind(b"\n") + 1]
                self._told[node] += len(whole)
                for line in whole.decode(errors="replace").splitlines():
                    self._lines.append((time.perf_counter(), node, line))


class Brokers:
    """A cluster under load, whose brokers are killed."""

    def __init__(self, cluster: LocalCluster, directory: Path, partitions: int, how: signal.Signals) -> None:
        self._cluster = cluster
        self._directory = directory
        self._partitions = partitions
        self._how = how
        self._metadata = psycopg.connect(cluster.metadata_url, autocommit=True)
        settings: dict[str, Any] = {"bootstrap.servers": cluster.bootstrap, "enable.idempotence": True, "linger.ms": 0}
        if how != signal.SIGKILL:
            settings["socket.timeout.ms"] = int(1000 * REQUEST_TIMEOUT_S)
        self.load = Load(Producer(settings | {"log_level": 0}), TOPIC, partitions)

    def kill(self, count: int) -> list[Kill]:
        ended = threading.Event()
        loading = threading.Thread(target=self.load.run, args=[ended.is_set], daemon=True)
        self._until_level()
        loading.start()
        kills = []
        for number in range(count):
            time.sleep(QUIET_S)
            kills.append(self._kill(number))
        ended.set()
        loading.join()
        self.load.check()
        self._metadata.close()
        return kills

    def _kill(self, number: int) -> Kill:
        ((controller,),) = self._sql("SELECT node FROM controller")
        # Not the same one of the others each time: who notices first may depend on it.
        node = controller if number % 2 == 0 else (controller + 1 + number // 2 % 2) % BROKERS
        pids = {b["node"]: b["pid"] for b in json.loads((self._directory / CLUSTER_FILE).read_text())["brokers"]}
        had = [index for index, owner in self._owners().items() if owner == node]
        kill = Kill(node, node == controller, time.perf_counter(), had)
        with Logs(self._directory, kill.lines):
            os.kill(pids[node], self._how)
            self._until_all_go_on(kill)
            time.sleep(2 * LOOK_S)
        os.kill(pids[node], signal.SIGCONT)  # one that was frozen finds itself fenced, and ends
        time.sleep(QUIET_S)
        self._until_level()
        return kill

    def _until_all_go_on(self, kill: Kill) -> None:
        missing = set(kill.partitions)
        while missing:
            self._require_time(kill.at, f"partitions {sorted(missing)} do not go on")
            time.sleep(LOOK_S)
            recent = self.load.latencies[-1000:]
            missing -= {index for sent, index, _ in recent if sent > kill.at}
        kill.until = time.perf_counter()

    def _until_level(self) -> None:
        """Every broker runs, and has its share of the partitions open."""
        since = time.perf_counter()
        while True:
            self._cluster.watch()
            counts = Counter(self._owners().values())
            if counts.total() == self._partitions and {self._partitions // BROKERS} >= set(counts.values()):
                return
            self._require_time(since, f"the brokers have {dict(counts)} of {self._partitions} partitions")
            time.sleep(LOOK_S)

    def _owners(self) -> dict[int, int]:
        """Of partitions that are open."""
        rows: list[Any] = self._sql(
            "SELECT p.index, s.owner FROM partition p JOIN stream s ON s.id = p.stream_id"
            " JOIN broker b ON b.node = s.owner AND b.epoch = s.owner_epoch WHERE b.state = 'serving'"
        )
        return dict(rows)

    def _sql(self, query: str) -> list[tuple[int, ...]]:
        return self._metadata.execute(query).fetchall()

    @staticmethod
    def _require_time(since: float, what: str) -> None:
        if time.perf_counter() - since > TIMEOUT_S:
            raise SystemExit(f"after {TIMEOUT_S:g} s {what}")


def gaps_of(kills: Sequence[Kill], load: Load, partitions: int) -> dict[str, list[float]]:
    """Of the partitions that a killed controller, and another killed broker, had, and of all others; each in order."""
    gaps: dict[str, list[float]] = {}
    for kill in kills:
        for index in range(partitions):
            whose = kill.who if index in kill.partitions else "nobody"
            gaps.setdefault(whose, []).append(load.gap(index, kill.at - 0.5, kill.until))
    return {whose: sorted(some) for whose, some in gaps.items()}


def tell(kills: Sequence[Kill], load: Load, timeline: bool) -> None:
    for kill in kills:
        longest = max(load.gap(index, kill.at - 0.5, kill.until) for index in kill.partitions)
        others = max(load.gap(i, kill.at - 0.5, kill.until) for i in range(load.partitions) if i not in kill.partitions)
        console.print(
            f"broker {kill.node}, {kill.who}, with partitions {kill.partitions}: longest gap {longest:.2f} s,"
            f" of partitions of the others {others:.2f} s"
        )
        for at, node, line in kill.lines if timeline else ():
            console.print(f"  {at - kill.at:6.3f} s  broker {node}: {line}", highlight=False, markup=False)


@contextlib.contextmanager
def brokers(wal: str, partitions: int, how: str) -> Iterator[Brokers]:
    with TemporaryDirectory(prefix="failover-") as name:
        Path(name).chmod(0o755)  # PostgreSQL runs as another user for root
        directory = Path(name) / "data"
        uri = "object" if wal == "object" else f"file://{directory}/wals?shared=true"
        cluster = LocalCluster(directory, BROKERS, wal=uri)
        cluster.start()
        try:
            admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
            for created in admin.create_topics([NewTopic(TOPIC, partitions, 1)]).values():
                created.result(TIMEOUT_S)
            yield Brokers(cluster, directory, partitions, SIGNALS[how])
        finally:
            cluster.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--partitions", type=int, default=6)
    parser.add_argument("--how", choices=list(SIGNALS), action="append")
    parser.add_argument("--wal", choices=["object", "file"], default="object")
    parser.add_argument("--timeline", action="store_true")
    options = parser.parse_args()
    if options.partitions % BROKERS:
        parser.error(f"--partitions is to be a multiple of {BROKERS}")
    report, lines = Report("failover"), dict[str, list[tuple[float, float]]]()
    for how in options.how or list(SIGNALS):
        with brokers(options.wal, options.partitions, how) as killed:
            kills = killed.kill(options.kills)
        tell(kills, killed.load, options.timeline)
        facts = {"how": how, "wal": options.wal, "kills": options.kills, "partitions": options.partitions}
        gaps = gaps_of(kills, killed.load, options.partitions)
        for whose, some in gaps.items():
            report.figure(f"gap p50, {whose}", quantile(some, 0.5), "s", **facts)
            report.figure(f"longest gap, {whose}", some[-1], "s", **facts)
        of_dead = sorted(gap for whose, some in gaps.items() if whose != "nobody" for gap in some)
        for share, limit in GOALS_S[how]:
            name = f"gap p{share * 100:.0f}, {how}, {options.wal} WAL"
            report.goal(name, quantile(of_dead, share), limit, "s", better="lower")
        lines |= {f"{how}, {whose}": distribution(some) for whose, some in gaps.items()}
    report.write()
    plot_lines("failover", "Gap of a partition whose broker dies", "% of partitions", "seconds", lines)


if __name__ == "__main__":
    main()
