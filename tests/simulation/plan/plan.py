"""What a seed decides before anything begins: the storage, how bad the faults are, what befalls the cluster, how often.

Not everything befalls every life: each draws a few kinds of trouble, so that in some lives the same thing happens again
and again, and nothing else repairs or hides what it did (swarm testing).

What was added when brokers became many is drawn from a source of its own, so that the lives of older seeds with one
broker stayed what they were.
"""

from dataclasses import dataclass, replace
from random import Random

# What the product can do with several brokers, each a switch of one line.
TOGETHER = True  # they run at a time; else one after the other
GROUPS_TOGETHER = True  # a group has one coordinator
TABLES_TOGETHER = True  # a table has one worker

LOCAL_WAL, SHARED_WAL = "file:///data/wal", "file:///shared/wal?shared=true"
WALS = ("object", "object", SHARED_WAL, SHARED_WAL, LOCAL_WAL)

ANYWHERE = (
    "kill", "kill_at_ack", "kill_at_gap", "kill_at_upload", "kill_at_start", "kill_at_disk", "power_cut",
    "power_cut_at_ack", "bad_disk", "clean_stop", "zombie", "metadata_outage", "pause_client", "pause_client",
)  # fmt: skip
WITH_DISK = ("power_cut", "power_cut_at_ack", "bad_disk", "bad_disk")
WITH_BUCKET = (
    "zombie", "zombie", "zombie", "rival", "rival", "bucket_outage", "bucket_outage", "bucket_storm", "bucket_storm", "partition",
)  # fmt: skip
WITH_NETWORK = ("parted", "parted", "failover", "frozen", "late_commit", "late_commit")
WITH_MANY = (
    "zombie", "zombie", "kill", "kill", "clean_stop", "kill_at_start", "rival", "paused_controller", "paused_controller",
    *WITH_NETWORK,
)  # fmt: skip
WITH_TABLES = (
    "kill_worker", "kill_worker_at_commit", "pause_worker", "catalog_outage", "foreign_commits", "fade_schema",
)  # fmt: skip

AMPLE = 64 << 20
SCARCE = (
    (36 << 20) + (1 << 18) + 4096
)  # a broker on a bucket has 4 KiB of it for its connections: they are often held up


@dataclass(frozen=True, slots=True)
class Plan:
    embedded: bool  # one host, objects on its disk, a file WAL; else a bucket and three hosts
    severity: str  # calm, mild, wild
    trouble_s: float
    gap_s: float  # between two troubles, on average
    troubles: tuple[str, ...]  # methods of Trouble
    tables: bool
    retention: bool
    wals: tuple[str, ...]
    linger_ms: int  # of an object WAL
    request_timeout_s: float  # of clients
    pace: float  # of all clients: their longest pauses, in seconds
    memory_bytes: int  # of a broker
    groups: bool = True
    brokers: int = 1  # nodes that should run; a second life of one is another matter
    clock_rates: float = 0.0  # see MachineFaults
    loses_commits: bool = False  # in the end the metadata store fails over to a standby that was behind
    strikes: tuple[str, ...] = ()  # methods of Strikes
    transactions: bool = False


def draw_plan(seed: str) -> Plan:
    """The lives `15`, `15.1`, `15.2` have one plan, and differ in all other chance."""
    root = seed.partition(".")[0]

    def derived(name: str) -> Random:
        return Random(f"{root}/{name}")

    random = derived("plan")
    embedded = random.random() < 0.25
    tables = random.random() < 0.6
    kinds = ANYWHERE + (WITH_DISK if embedded else WITH_BUCKET)
    troubles = random.choices(kinds, k=random.randint(2, 4))
    if not embedded and random.random() < 0.3:
        troubles = ["zombie", "zombie", random.choice(kinds)]
    if tables:
        troubles += random.choices(WITH_TABLES, k=random.randint(1, 2))
    pace = random.choice((0.5, 1.5, 2.5))
    plan = Plan(
        embedded=embedded,
        severity=random.choice(("calm", "mild", "mild", "wild")),
        trouble_s=random.uniform(12, 36) * (0.6 if pace < 1 else 1),
        gap_s=random.choice((1.0, 2.0, 4.0)),
        troubles=tuple(troubles),
        tables=tables,
        retention=random.random() < 0.5,
        wals=("file",) if embedded else tuple(random.sample(WALS, random.randint(1, 3))),
        linger_ms=random.choice((0, 5, 5, 250)),
        request_timeout_s=random.choice((5.0, 10.0, 30.0)),
        pace=pace,
        memory_bytes=random.choice((AMPLE, AMPLE, AMPLE, SCARCE)),
    )
    plan = replace(plan, transactions=derived("plan of transactions").random() < 0.5)
    if embedded:
        return plan
    plan = _with_strikes(_with_cluster(plan, derived("plan of the cluster")), derived("plan of strikes"))
    return _with_operators(plan, derived("plan of operators"))


def _with_operators(plan: Plan, random: Random) -> Plan:
    """Beside all other trouble, and not where a strike needs calm."""
    if plan.brokers == 1 or plan.strikes or random.random() < 0.4:
        return plan
    return replace(plan, strikes=("moved_partitions", "drained_node"))


def _with_strikes(plan: Plan, random: Random) -> Plan:
    """In some lives, and few kinds in each. With little other trouble: a strike needs brokers that serve to begin with."""
    many = plan.brokers > 1
    if random.random() >= (0.6 if many else 0.1):
        return plan
    possible = {
        "sent_again": "object" in plan.wals,
        "followed_controller": many,
        "late_commit_of_offsets": many,
        "late_end_of_drain": plan.brokers > 2 and LOCAL_WAL in plan.wals and len(set(plan.wals)) > 1,
        "late_table": many and plan.tables,
    }
    kinds = [kind for kind, is_possible in possible.items() if is_possible]
    strikes = tuple(random.sample(kinds, min(2, len(kinds))))
    if possible["late_end_of_drain"] and "late_end_of_drain" not in strikes:  # few plans have what it takes
        strikes = (strikes[0], "late_end_of_drain")
    return replace(plan, strikes=strikes, troubles=(random.choice(plan.troubles),), gap_s=8.0) if strikes else plan


def _with_cluster(plan: Plan, random: Random) -> Plan:
    """Several brokers, a network that parts, a metadata store that moves."""
    brokers = random.choice((2, 2, 3, 3, 5)) if random.random() < 0.3 else 1
    troubles, wals = plan.troubles, plan.wals
    if brokers > 1:
        kinds = [kind for kind in troubles if TABLES_TOGETHER or kind not in WITH_TABLES]
        troubles = (*random.sample(kinds, min(2, len(kinds))), *random.choices(WITH_MANY, k=random.randint(2, 3)))
        if not TOGETHER:  # none of them could start while the disk of another one may hold records
            wals = tuple(wal for wal in wals if wal != LOCAL_WAL) or ("object",)
    elif random.random() < 0.2:
        troubles = (*troubles, random.choice(WITH_NETWORK))
    return replace(
        plan,
        troubles=troubles,
        wals=wals,
        gap_s=plan.gap_s if brokers == 1 else 1.0,
        trouble_s=plan.trouble_s + (0 if brokers == 1 else 10),
        tables=plan.tables and (TABLES_TOGETHER or brokers == 1),
        groups=GROUPS_TOGETHER or brokers == 1,
        brokers=brokers,
        clock_rates=0.02 if brokers > 1 else random.choice((0.0, 0.0, 0.02)),
        loses_commits=random.random() < 0.05,
    )
