"""The machines of a simulated cluster: hosts with a disk, and on them processes, each with its view of the outside.

`Outside` is what all share (bucket, metadata store, catalog); a `SimHost` is a disk that survives its processes, and a
`SimMachine` is what one process gets: it implements streamlake's Machine, and WorkerMachine but for the schemas.

Ways to end a process: `process.kill()` (kill -9: the page cache survives), `host.power_cut()` (all of its processes; what
was not synced is lost or torn), `host.kill_at_disk_operation` (kill -9 between two operations of one blocking function).
"""

from dataclasses import dataclass, field
from random import Random

from simulation.world.bucket import SimBucket
from simulation.world.catalog import CatalogClient, CatalogServer
from simulation.world.chance import Latency
from simulation.world.disk import SimDisk
from simulation.world.executor import SimExecutor, take_time
from simulation.world.loop import SimLoop
from simulation.world.metadata import MetadataServer
from simulation.world.net import SimNet
from simulation.world.process import Process, ProcessKilled

from streamlake.catalogs.config import CatalogConfig
from streamlake.cluster.store.database import Database
from streamlake.core.errors import Invalid
from streamlake.s3stream.store.bucket import S3Store
from streamlake.s3stream.store.local import LocalStore
from streamlake.s3stream.store.port import ObjectStore

CALL, SYNC = Latency(0.0001, 0.005, 0.1), Latency(0.0005, 0.01, 0.5)


@dataclass(frozen=True, slots=True)
class MachineFaults:
    executor_latency: Latency = CALL
    sync_latency: Latency = SYNC
    skew_ms: int = 50  # clocks of hosts differ by up to so much
    clock_rates: float = 0.0  # the fastest clock of a host is at most by this share faster than the slowest
    sync_error: float = 0.0  # chance of EIO per sync


@dataclass(slots=True)
class Outside:
    """What a machine can reach. `buckets`: by name, the first part of an s3:// URL's path."""

    loop: SimLoop
    net: SimNet
    metadata: MetadataServer
    buckets: dict[str, SimBucket] = field(default_factory=dict)
    catalog: CatalogServer | None = None
    faults: MachineFaults = MachineFaults()


class SimHost:
    def __init__(self, name: str, outside: Outside, capacity_bytes: int | None = None) -> None:
        self.name = name
        self.outside = outside
        self.disk = SimDisk(capacity_bytes)  # nobody's own view: for checkers
        self.processes: list[Process] = []
        self.random: Random = outside.loop.derived(f"host {name}")
        skew_ms = outside.faults.skew_ms
        self._skew_ms = self.random.randint(-skew_ms, skew_ms)
        self._clock_rate = 1 + outside.loop.derived(f"clock of {name}").random() * outside.faults.clock_rates
        self._started = 0

    def process(self, name: str) -> "tuple[Process, SimMachine]":
        """A new process; each has a name of its own in the run: `name` and a number."""
        self._started += 1
        name = f"{self.name}/{name}-{self._started}"
        process = Process(self.outside.loop, name, self.name, self._skew_ms, self._clock_rate)
        self.processes = [p for p in self.processes if p.alive] + [process]
        disk = self.disk.session()
        process.at_end.append(lambda: disk.kill() and None)
        return process, SimMachine(process, disk, self.outside)

    def power_cut(self) -> None:
        """Everything on the host is gone but what its disk had synced. It is back on at the next `power_on`."""
        self.outside.net.power_off(self.name)
        for process in self.processes:
            process.kill()
        self.processes = []
        self.disk = self.disk.crash(self.random)

    def power_on(self) -> None:
        self.outside.net.power_on(self.name)


class SimMachine:
    """Implements Machine (streamlake/broker/machine.py) for one process."""

    def __init__(self, process: Process, disk: SimDisk, outside: Outside) -> None:
        self.process = process
        self.clock = process.clock
        self.ids = process.ids
        self.disk = disk
        self.disk.before = self._before_disk_operation
        self._outside = outside
        self._executors: dict[str, SimExecutor] = {}
        self._random = outside.loop.derived(f"disk {process.name}")
        self._fuse = 0

    def executor(self, name: str, threads: int = 1) -> SimExecutor:
        if name not in self._executors:
            latency = self._outside.faults.executor_latency
            self._executors[name] = SimExecutor(name, self.process, latency, threads)
        return self._executors[name]

    async def open_store(self, url: str) -> ObjectStore:
        """file:///… is on this host's disk, s3://name/… in the bucket of that name."""
        executor = self.executor("objects", 2)
        if url.startswith("file://"):
            return await LocalStore.open(url.removeprefix("file://"), self.disk, executor, self.ids)
        name = url.removeprefix("s3://").partition("/")[0]
        if not url.startswith("s3://") or name not in self._outside.buckets:
            raise Invalid(f"there is no {url!r} in this world")
        return S3Store(self._outside.buckets[name].client(url), self.ids, executor)

    async def open_metadata(self, url: str) -> Database:
        """Whatever the URL: the one metadata store of the world."""
        return await self._outside.metadata.open(self.process, self.executor("metadata"))

    def load_catalog(self, config: CatalogConfig | None = None) -> CatalogClient:
        """Whatever the configuration: the one catalog of the world."""
        assert self._outside.catalog is not None, "this world has no catalog"
        return self._outside.catalog.client()

    def close(self) -> None:
        for executor in self._executors.values():
            executor.close()

    def kill_at_disk_operation(self, count: int) -> None:
        """kill -9 instead of its n-th disk operation from now, in the middle of whatever function does it."""
        self._fuse = count

    def _before_disk_operation(self, operation: str, path: str) -> None:
        if operation == "sync":
            faults = self._outside.faults
            take_time(faults.sync_latency.draw(self._random))
            if self._random.random() < faults.sync_error:
                raise OSError(5, "input/output error (simulated)", path)
        if self._fuse:
            self._fuse -= 1
            if self._fuse == 0:
                self.process.kill()
                raise ProcessKilled
