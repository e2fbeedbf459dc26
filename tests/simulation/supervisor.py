"""What keeps the brokers of a life running: a supervisor for each node, which starts a broker where none is.

A seat is the place of a node: the host and the WAL of its latest broker. A plan has one seat or several. With one, a
broker may also come back as another node, in the place of the one before.
"""

import asyncio
from random import Random

from simulation.cluster import BrokerLife, SimCluster
from simulation.plan.plan import LOCAL_WAL, TOGETHER, Plan
from simulation.world.loop import SimLoop

from streamlake.config import Config
from streamlake.s3stream.wal.object.settings import ObjectWalSettings

WAL_OBJECT_BYTES = 65536
ABSENT_S = (0.0, 0.0, 0.0, 8.0, 20.0)  # how long a seat stays empty, at most, so that others may notice


class Seat:
    def __init__(self, node: int, host: str, wal: str, random: Random) -> None:
        self.node = node
        self.host = host
        self.wal = wal
        self.random = random
        self.starts = 0
        self.empty_until = 0.0  # nobody is started before


class Supervisor:
    def __init__(self, loop: SimLoop, plan: Plan, cluster: SimCluster, random: Random) -> None:
        """`random`: of the first seat; every other one has a source of its own."""
        self.loop = loop
        self.plan = plan
        self.cluster = cluster
        hosts, randoms = list(cluster.hosts), [random, *(loop.derived(f"seat {n}") for n in range(1, plan.brokers))]
        self.seats = [Seat(n, hosts[n], plan.wals[n % len(plan.wals)], randoms[n]) for n in range(plan.brokers)]
        self._tasks: list[asyncio.Task[None]] = []

    # -- who runs --------------------------------------------------------------------------------------------------------

    @property
    def running(self) -> list[BrokerLife]:
        """Ready or not, the newest last."""
        return [life for life in self.cluster.lives if life.process.alive and not life.process.paused]

    @property
    def together(self) -> int:
        """How many brokers serve when all is well."""
        return len(self.seats) if TOGETHER else 1

    def seat(self, life: BrokerLife) -> Seat:
        return self._of(life.node)

    def _of(self, node: int) -> Seat:
        return self.seats[node % len(self.seats)]

    # -- starting --------------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """The first broker starts at once."""
        self.start(self.seats[0].host, self.seats[0].wal)
        self._tasks = [self.loop.create_task(self._keep(seat)) for seat in self.seats]

    def end(self) -> None:
        for task in self._tasks:
            task.cancel()

    def start(self, host: str, wal: str, node: int = 0) -> BrokerLife:
        """Whether or not one runs. The seat of the node is there from now on."""
        seat = self._of(node)
        seat.host, seat.wal, seat.starts = host, wal, seat.starts + 1
        self.loop.event(f"start of node {node} on {host} with {wal}")
        return self.cluster.start(host, self.config(node, wal))

    async def _keep(self, seat: Seat) -> None:
        while True:
            await asyncio.sleep(seat.random.uniform(0.2, 2))
            if self._is_empty(seat) and len(self.seats) > 1 and seat.starts:
                await asyncio.sleep(seat.random.choice(ABSENT_S) * seat.random.random())
            if self._is_empty(seat):
                host, wal = self._next_place(seat)
                self.start(self._host_of_undrained(seat.node) or host, wal, seat.node)

    def end_for_a_while(self, life: BrokerLife, length_s: float) -> None:
        """kill -9, and its seat stays empty, so that others do something about it."""
        self.seat(life).empty_until = self.loop.time() + length_s
        life.process.kill()

    def _is_empty(self, seat: Seat) -> bool:
        return self.loop.time() >= seat.empty_until and all(
            TOGETHER and self._of(life.node) is not seat for life in self.running
        )

    def _next_place(self, seat: Seat) -> tuple[str, str]:
        """A local file WAL binds the node to its host."""
        random, wals = seat.random, self.plan.wals
        if seat.wal in ("file", LOCAL_WAL) or random.random() < 0.5:
            return seat.host, random.choice(wals) if random.random() < 0.3 else seat.wal
        taken = {other.host for other in self.seats if other is not seat}
        return random.choice([host for host in self.cluster.hosts if host not in taken]), random.choice(wals)

    def _host_of_undrained(self, node: int) -> str | None:
        """Where the node has a WAL on a disk of its own that is not drained: nobody else can, and it cannot start
        elsewhere. It may have been started elsewhere all the same, by trouble."""
        own = "SELECT epoch FROM wal WHERE node = ? AND uri LIKE 'file#%'"  # with the identity of its directory
        epochs = [epoch for (epoch,) in self.cluster.outside.metadata.query(own, node)]
        lives = [life for life in self.cluster.lives if life.node == node and life.epoch in epochs]
        return lives[-1].host.name if lives else None

    def config(self, node: int, wal: str) -> Config:
        url = "file:///data/objects" if self.plan.embedded else "s3://bucket/lake"
        # A broker that gives everything away first has ended its drains by then, unless they took longer than it waits.
        hasty = "late_end_of_drain" in self.plan.strikes
        read_back = 0 if wal.startswith("file") else ObjectWalSettings(object_bytes=WAL_OBJECT_BYTES).read_cache_bytes
        return Config.model_validate(
            {
                "server": {"node_id": node, "shutdown_timeout_s": 5, "drain_timeout_s": 0 if hasty else 30},
                "storage": {
                    "data_dir": "/data", "url": url, "metadata_url": "postgresql://simulated", "wal": wal,
                    "wal_capacity_bytes": 1 << 20, "wal_segment_bytes": 65536, "wal_object_bytes": WAL_OBJECT_BYTES,
                    "wal_linger_ms": self.plan.linger_ms, "wal_unflushed_bytes": 1 << 20, "upload_bytes": 32768,
                    "upload_interval_s": 3, "retention_interval_s": 1, "gc_interval_s": 10, "gc_grace_s": 5,
                    "compaction_interval_s": 2,
                },
                "memory": {
                    "total_bytes": self.plan.memory_bytes + read_back,
                    "log_cache_bytes": 1 << 20, "block_cache_bytes": 1 << 20,
                },
            }
        )  # fmt: skip
