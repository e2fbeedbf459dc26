"""Three brokers, PostgreSQL and an object store as real processes, under load, and one trouble after the other.

`python tests/support/crash_cluster.py --rounds 10` (make crash-cluster), `--only kill,move` for some kinds of trouble.
crash.py is the same for one broker; the judge is independent of our code here, too (steady_load.py, DuckDB). Checked:
- after each round: every record that was acknowledged is in the log, once, in its producer's order; the committed offsets
  of the group have not gone back; every partition takes records again, and the group reads them;
- no producer or reader ever saw an error that a client does not retry by itself;
- in the end: the group has read everything, and the tables equal their topics.

What clients saw is written to crash-cluster.json, as are the rounds: for each trouble the longest time between two
acknowledgements, and between two records that were read, of each partition.
"""

import argparse
import itertools
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from confluent_kafka.admin import AdminClient, NewTopic
from support import moves
from support.cluster_processes import BROKERS, Broker, Cluster
from support.link import Link
from support.steady_load import QUIET, BulkLoad, GroupReading, LogReader, Partition, SteadyProducer
from support.wait import DEADLINE_S, wait_until

from streamlake.lake import sql

TOPICS = ("orders", "payments")
PARTITIONS = 6
MEMBERS = 2
RATE = 20.0  # records a second of each partition
LONGER_THAN_A_LEASE_S = (4.0, 9.0)
STORE_OUTAGE_S = 20.0
OUTAGE_S, OUTAGE_MEGABYTES = 60.0, 1200.0
# A broker whose clock is late takes what clients send for records of the future, which Kafka refuses by default.
ANY_TIME = {"message.timestamp.after.max.ms": str(24 * 3600 * 1000)}
TABLE = ANY_TIME | {
    "streamlake.table.enable": "true",
    "streamlake.table.convert.value.type": "string",
    "streamlake.table.commit.interval.ms": "1000",
}


# -- troubles: each returns, in words, what was done; it is over then, and the cluster may still be recovering ----------


def kill(cluster: Cluster, rng: random.Random) -> str:
    """It is started again at once, or when others have taken over what it had."""
    victim, away_s = rng.choice(cluster.brokers), rng.choice((0.0, 8.0))
    said = f"killed {_named(cluster, victim)}, away for {away_s:g} s"
    victim.send(signal.SIGKILL)
    if away_s:
        assert victim.server is not None
        wait_until(lambda: victim.server is not None and victim.server.why_it_ended() is not None)
        others = [broker for broker in cluster.brokers if broker is not victim]
        _rest_without(cluster, others, away_s)
    return said


def freeze(cluster: Cluster, rng: random.Random) -> str:
    victim, seconds = rng.choice(cluster.brokers), rng.uniform(*LONGER_THAN_A_LEASE_S)
    said = f"froze {_named(cluster, victim)} for {seconds:.1f} s"
    victim.send(signal.SIGSTOP)
    cluster.rest(seconds)
    victim.send(signal.SIGCONT)
    return said


def postgres(cluster: Cluster, rng: random.Random) -> str:
    seconds = rng.uniform(0, 6)
    cluster.kill_postgres()
    cluster.rest(seconds)
    cluster.start_postgres()
    return f"killed PostgreSQL, away for {seconds:.1f} s"


def postgres_long(
    cluster: Cluster, rng: random.Random, seconds: float = OUTAGE_S, megabytes: float = OUTAGE_MEGABYTES
) -> str:
    """Produce goes on with much more than caches hold: what is durable is left to the WAL. Nobody is taken for dead."""
    topic = f"bulk-{rng.randrange(10**9)}"
    admin = AdminClient({**QUIET, "bootstrap.servers": cluster.bootstrap})
    admin.create_topics([NewTopic(topic, PARTITIONS, config=ANY_TIME)])[topic].result(DEADLINE_S)
    before = cluster.sql("SELECT node, epoch FROM broker ORDER BY node")
    with BulkLoad(cluster.bootstrap, topic, PARTITIONS, seconds, megabytes) as load:
        cluster.kill_postgres()
        load.start()
        cluster.until(load.is_over, DEADLINE_S + seconds, "the load does not go on while PostgreSQL is away")
        for broker in cluster.brokers:
            cluster.until(broker.lost_its_lease, DEADLINE_S, "PostgreSQL was not away for a whole lease")
    cluster.start_postgres()
    LogReader(cluster.bootstrap, load.sent, load.value).check(load.sent)
    cluster.until(cluster.all_is_uploaded, DEADLINE_S, "what was produced is not uploaded")
    cluster.rest(LONGER_THAN_A_LEASE_S[0])
    assert cluster.sql("SELECT node, epoch FROM broker ORDER BY node") == before, "a broker was taken for dead"
    admin.delete_topics([topic])[topic].result(DEADLINE_S)
    return f"killed PostgreSQL for {seconds:g} s, in which {megabytes:g} MB were produced"


def store(cluster: Cluster, rng: random.Random) -> str:
    cluster.weed.pause()
    try:
        cluster.rest(STORE_OUTAGE_S)
    finally:
        cluster.weed.resume()
    return f"froze the object store for {STORE_OUTAGE_S:g} s"


def part_postgres(cluster: Cluster, rng: random.Random) -> str:
    victim = rng.choice(cluster.brokers)
    return _part(cluster, rng, victim, victim.postgres_link, "PostgreSQL")


def part_store(cluster: Cluster, rng: random.Random) -> str:
    victim = rng.choice(cluster.brokers)
    return _part(cluster, rng, victim, victim.s3_link, "the object store")


def rolling(cluster: Cluster, rng: random.Random) -> str:
    for broker in rng.sample(cluster.brokers, len(cluster.brokers)):
        broker.stop()
        cluster.until(cluster.all_run, DEADLINE_S, f"broker {broker.node} does not come back: {broker.ends}")
        _wait_for_shares(cluster)
    return "restarted all brokers, one after the other"


def move(cluster: Cluster, rng: random.Random) -> str:
    """The counts stay as they are, so the controller leaves it at that."""
    assert cluster.postgres is not None
    for step in (1, BROKERS - 1):
        for topic in TOPICS:
            moves.move(cluster.postgres.url, topic, lambda p: ((p.node or 0) + step) % BROKERS)  # noqa: B023 - called at once
        _wait_for_shares(cluster)
    return "moved all partitions to other brokers and back"


TROUBLES = {
    f.__name__.replace("_", "-"): f
    for f in (kill, freeze, postgres, postgres_long, store, part_postgres, part_store, rolling, move)
}


def _named(cluster: Cluster, broker: Broker) -> str:
    return f"broker {broker.node}{' (controller)' if cluster.controller() == broker.node else ''}"


def _part(cluster: Cluster, rng: random.Random, victim: Broker, link: Link, what: str) -> str:
    seconds, silently = rng.uniform(*LONGER_THAN_A_LEASE_S), rng.random() < 0.5
    how = "silent" if silently else "refused"
    said = f"parted {_named(cluster, victim)} from {what} for {seconds:.1f} s, {how}"
    link.part(silently=silently)
    try:
        cluster.rest(seconds)
    finally:
        link.join()
    return said


def _rest_without(cluster: Cluster, others: list[Broker], seconds: float) -> None:
    everyone, cluster.brokers = cluster.brokers, others
    try:
        cluster.rest(seconds)
    finally:
        cluster.brokers = everyone


def _wait_for_shares(cluster: Cluster) -> None:
    """Until every partition is open where it is assigned, and every broker has some."""

    def settled() -> bool:
        rows = cluster.sql("SELECT p.node, s.owner FROM partition p JOIN stream s ON s.id = p.stream_id")
        return len({node for node, _ in rows}) == BROKERS and all(node == owner for node, owner in rows)

    cluster.until(settled, DEADLINE_S, "the partitions are not open where they are assigned")


# -- rounds ------------------------------------------------------------------------------------------------------------


class Campaign:
    def __init__(self, cluster: Cluster, say: Callable[[str], None]) -> None:
        self.cluster = cluster
        self.rounds: list[dict[str, Any]] = []
        self._say = say
        admin = AdminClient({**QUIET, "bootstrap.servers": cluster.bootstrap})
        for made in admin.create_topics([NewTopic(topic, PARTITIONS, config=TABLE) for topic in TOPICS]).values():
            made.result(DEADLINE_S)
        partitions = [(topic, index) for topic in TOPICS for index in range(PARTITIONS)]
        self.producers = [SteadyProducer(cluster.bootstrap, topic, PARTITIONS, RATE) for topic in TOPICS]
        self.readers = GroupReading(cluster.bootstrap, partitions, MEMBERS)
        self._log = LogReader(cluster.bootstrap, partitions)
        self._wait_until_steady()

    def round(self, number: int, trouble: str, rng: random.Random) -> None:
        _wait_for_shares(self.cluster)
        started = time.monotonic()
        gaps = [self.readers.gaps, *(producer.gaps for producer in self.producers)]
        for each in gaps:
            each.begin()
        said = TROUBLES[trouble](self.cluster, rng)
        self._wait_until_steady()
        seconds = time.monotonic() - started
        new = self._check()
        ends = [f"broker {b.node}: {b.ends.pop(0)}" for b in self.cluster.brokers for _ in list(b.ends)]
        fenced = [
            f"fenced: {line.partition('a broker was fenced')[2].strip()}"
            for broker in self.cluster.brokers
            for line in broker.news()
            if "a broker was fenced" in line
        ]
        produce = {k: v for producer in self.producers for k, v in producer.gaps.longest().items()}
        self.rounds.append(
            {
                "trouble": trouble,
                "what": said,
                "seconds": round(seconds, 2),
                "produce_gaps_s": _flat(produce),
                "read_gaps_s": _flat(self.readers.gaps.longest()),
                "ends": ends + fenced,
            }
        )
        longest = max(produce.values())
        self._say(
            f"round {number}: {said}; longest gap {longest:.1f} s, {new:,} new records in order"
            + "".join(f"\n    {end}" for end in ends + fenced)
        )

    def finish(self) -> dict[str, int]:
        """Totals, when all is checked."""
        for producer in self.producers:
            producer.stop()
        self._check()
        ends = self._acked()
        self.cluster.until(lambda: self.readers.check_committed() == ends, DEADLINE_S,
                           f"the group has not read everything: {ends}")  # fmt: skip
        self.readers.stop()
        for topic in TOPICS:
            check_table(self.cluster, topic, {index: ends[topic, index] for index in range(PARTITIONS)})
        self.cluster.until(self.cluster.all_run, DEADLINE_S, "not all brokers run")
        for broker in self.cluster.brokers:
            broker.stop()
        return {"records": sum(ends.values()), "rounds": len(self.rounds)}

    def errors(self) -> Counter[str]:
        return sum((producer.errors for producer in self.producers), self.readers.errors.copy())

    def _wait_until_steady(self) -> None:
        """All brokers run, every partition takes records that were sent from now on, and the group reads them."""
        self.cluster.until(self.cluster.all_run, DEADLINE_S, "not all brokers run")
        marks = {k: v for producer in self.producers for k, v in producer.sent.items()}

        def behind() -> dict[Partition, tuple[int, int, int]]:
            acked = self._acked()
            seen = self.readers.seen
            return {k: (mark, acked[k], seen[k]) for k, mark in marks.items() if min(acked[k], seen[k]) <= mark}

        try:
            self.cluster.until(lambda: not behind(), DEADLINE_S, "behind")
        except AssertionError:
            raise AssertionError(
                f"sent, acknowledged and read, where that does not go on: {behind()}; errors {dict(self.errors())}"
            ) from None

    def _acked(self) -> dict[Partition, int]:
        return {k: v for producer in self.producers for k, v in producer.acked.items()}

    def _check(self) -> int:
        wrong = [text for load in (*self.producers, self.readers) for text in load.wrong]
        assert not wrong, wrong[:5]
        failed = [error for producer in self.producers for error in producer.errors]
        assert not failed, f"errors of an idempotent producer without a time limit: {failed}"
        new = self._log.check(self._acked())
        self.readers.check_committed()
        return new


def check_table(cluster: Cluster, topic: str, ends: dict[int, int]) -> None:
    """The table has every record once, with its value, and nothing else."""
    total, found = sum(ends.values()), {}

    def complete() -> bool:
        nonlocal found
        found = cluster.tables().get(topic, {})
        assert (found.get("rows") or 0) <= total, f"{topic} has {total} records, its table {found['rows']} rows"
        return found.get("rows") == total

    try:
        cluster.until(complete, DEADLINE_S, "another table")
    except AssertionError as error:
        raise AssertionError(f"{topic} has {total} records, and its table is {found}: {error}") from None
    lake = cluster.weed.duckdb(sql.connect())
    rows = lake.execute(
        "SELECT part, count(*), count(DISTINCT place), min(place), max(place), count(*) FILTER (NOT same) FROM ("
        " SELECT _kafka.partition AS part, _kafka.offset AS place,"
        " starts_with(value, concat_ws('-', ?, _kafka.partition, _kafka.offset) || '.') AS same"
        f" FROM iceberg_scan('{found['metadata_location']}')) GROUP BY ALL ORDER BY ALL",
        [topic],
    ).fetchall()
    expected = [(index, end, end, 0, end - 1, 0) for index, end in sorted(ends.items()) if end]
    assert rows == expected, f"{topic}: partition, rows, offsets, first, last, wrong ones {rows}, expected {expected}"


def run(
    folder: Path,
    rounds: int,
    seed: int,
    only: list[str] | None = None,
    minutes: float = 1e9,
    say: Callable[[str], None] = print,
) -> tuple[dict[str, int], Campaign]:
    """The totals. AssertionError names what does not hold; the logs of the brokers are in `folder` then."""
    rng, kinds = random.Random(seed), only or list(TROUBLES)
    until = time.monotonic() + 60 * minutes
    cluster = Cluster(folder)
    try:
        campaign = Campaign(cluster, say)
        order = itertools.chain.from_iterable(rng.sample(kinds, len(kinds)) for _ in itertools.count())
        for number, trouble in zip(range(1, rounds + 1), order, strict=False):
            if time.monotonic() > until:
                say(f"{minutes:g} minutes are over")
                break
            cluster.rest(rng.uniform(0.2, 1.5))
            campaign.round(number, trouble, rng)
        return campaign.finish(), campaign
    finally:
        cluster.close()


def summary(rounds: list[dict[str, Any]]) -> list[str]:
    """By trouble: the p50 and p99 over all partitions and rounds, and a bar for each band of gaps."""
    lines = [f"{'trouble':14} rounds  produce gap p50   p99   max   read gap p50   p99   max"]
    for trouble in TROUBLES:
        mine = [r for r in rounds if r["trouble"] == trouble]
        if mine:
            produce, read = ([g for r in mine for g in r[key].values()] for key in ("produce_gaps_s", "read_gaps_s"))
            lines.append(f"{trouble:14} {len(mine):6}  {_three(produce):>27}   {_three(read):>22}")
    lines.append("produce gaps of partitions, all troubles")
    gaps = [g for r in rounds for g in r["produce_gaps_s"].values()]
    bands = (0, 0.5, 1, 2, 4, 8, 16, 32, 1e9)
    for low, high in itertools.pairwise(bands):
        count = sum(low <= g < high for g in gaps)
        label = f"{low:g} to {high:g} s" if high < 1e9 else f"over {low:g} s"
        lines.append(f"  {label:12} {count:6} {'#' * round(60 * count / max(len(gaps), 1))}")
    return lines


def _three(values: list[float]) -> str:
    ordered = sorted(values)
    p50, p99 = (ordered[min(int(len(ordered) * q), len(ordered) - 1)] for q in (0.5, 0.99))
    return f"{p50:5.1f} {p99:5.1f} {ordered[-1]:5.1f}"


def _flat(gaps: dict[Partition, float]) -> dict[str, float]:
    return {f"{topic}-{index}": round(seconds, 3) for (topic, index), seconds in gaps.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=600, help="no round begins later")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--only", default="", help=f"of {','.join(TROUBLES)}")
    parser.add_argument("--json", type=Path, default=Path("build/crash-cluster.json"))
    arguments = parser.parse_args()
    only = [name for name in arguments.only.split(",") if name]
    if unknown := set(only) - set(TROUBLES):
        parser.error(f"no such trouble: {', '.join(sorted(unknown))}; there are {', '.join(TROUBLES)}")
    print(f"seed {arguments.seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="crash-cluster-"))
    try:
        totals, campaign = run(
            folder, arguments.rounds, arguments.seed, only, arguments.minutes, lambda line: print(line, flush=True)
        )
    except BaseException:
        print(f"the logs of the brokers are in {folder}", flush=True)
        raise
    shutil.rmtree(folder)
    errors = dict(campaign.errors())
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(
        json.dumps({"seed": arguments.seed, **totals, "errors": errors, "rounds": campaign.rounds}, indent=1) + "\n"
    )
    print("\n".join(summary(campaign.rounds)))
    print(f"errors that readers saw, and went on: {errors or 'none'}")
    print("equal: " + ", ".join(f"{count:,} {name}" for name, count in totals.items()))


if __name__ == "__main__":
    main()
