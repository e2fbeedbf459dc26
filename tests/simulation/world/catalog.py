"""An Iceberg catalog and its warehouse that outlive workers, with a wire that loses answers.

The catalog is pyiceberg's SQL catalog in memory, the warehouse a dict of files. A worker's view (`CatalogServer.client`)
is called in executor functions, so a fault is a sync error and slowness is time that the function takes.

Faults of a commit: it is lost; it lands and the answer is an error, or CommitFailed (the echo of a retry inside a client
or a proxy); it lands later than its sender was told that it failed, perhaps after its death. Of a read: an error. Of a
file: a read or a write fails, a write that failed may have been stored. In an outage all of it fails.

pyiceberg draws uuids for tables and metadata files; here they come from the seed. `history` has every commit.
"""

import contextlib
import io
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from pyiceberg.catalog import Catalog
from pyiceberg.catalog.memory import InMemoryCatalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.io import FileIO, InputFile, OutputFile
from pyiceberg.manifest import clear_manifest_cache
from simulation.world.chance import Latency, Windows
from simulation.world.executor import take_time
from simulation.world.loop import SimLoop, current_process

PLAIN_METHODS = ("name", "properties")
CHANGES = ("create_namespace", "create_table", "drop_table", "purge_table", "rename_table", "drop_namespace")


CALL, FILE = Latency(0.02, 0.02, 2.0), Latency(0.005, 0.01, 1.0)


@dataclass(frozen=True, slots=True)
class CatalogFaults:
    """Rates are chances per call; outages: seconds between two on average, 0 for none."""

    latency: Latency = CALL
    lost: float = 0.0
    error_after: float = 0.0  # of changes
    conflict_after: float = 0.0  # of commits
    late: float = 0.0  # of commits
    late_s: float = 60.0
    read_error: float = 0.0
    file_latency: Latency = FILE
    file_error: float = 0.0
    outage_gap_s: float = 0.0
    outage_s: float = 20.0


CALM = CatalogFaults()
MILD = CatalogFaults(lost=0.01, error_after=0.02, conflict_after=0.02, read_error=0.01, file_error=0.003)
WILD = CatalogFaults(
    Latency(0.03, 0.1, 10.0), lost=0.04, error_after=0.05, conflict_after=0.05, late=0.03, read_error=0.03,
    file_error=0.01, outage_gap_s=300,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class CommitEvent:
    time_s: float
    table: str
    who: str
    fate: str  # done, lost, error after, conflict after, late, outage
    landed: bool
    snapshot_ids: tuple[int, ...]  # that it was to add


@dataclass(eq=False)
class Warehouse:
    """The files, and what may befall those who use them."""

    loop: SimLoop
    faults: CatalogFaults
    random: Random
    outages: Windows
    files: dict[str, bytes] = field(default_factory=dict)

    def attempt(self, what: str) -> bool:
        """Takes its time, then: OSError, or True if it is done, or False if it is done and fails all the same."""
        if current_process() is None:
            return True  # a checker's own look
        take_time(self.faults.file_latency.draw(self.random))
        drawn = self.random.random()
        if self.outages.active(self.loop.time()) or drawn < self.faults.file_error / 2:
            raise OSError(f"{what}: the warehouse does not answer (simulated)")
        return drawn >= self.faults.file_error


class SimFileIO(FileIO):
    """pyiceberg makes it, from the catalog property `warehouse-files`."""

    def __init__(self, properties: Mapping[str, Any] = {}) -> None:
        super().__init__(dict(properties))
        self._warehouse: Warehouse = properties["warehouse-files"]

    def new_input(self, location: str) -> "SimFile":
        return SimFile(location, self._warehouse)

    def new_output(self, location: str) -> "SimFile":
        return SimFile(location, self._warehouse)

    def delete(self, location: Any) -> None:
        name = location if isinstance(location, str) else location.location
        done = self._warehouse.attempt(f"delete {name}")
        if self._warehouse.files.pop(name, None) is None:
            raise FileNotFoundError(name)
        if not done:
            raise OSError(f"delete {name}: the answer was lost (simulated)")


class SimFile(InputFile, OutputFile):
    def __init__(self, location: str, warehouse: Warehouse) -> None:
        super().__init__(location)
        self._warehouse = warehouse

    def __len__(self) -> int:
        return len(self._content())

    def exists(self) -> bool:
        self._read()
        return self.location in self._warehouse.files

    def to_input_file(self) -> "SimFile":
        return self

    def open(self, seekable: bool = True) -> Any:
        self._read()
        return io.BytesIO(self._content())

    def create(self, overwrite: bool = False) -> Any:
        if not overwrite and self.location in self._warehouse.files:
            raise FileExistsError(self.location)
        warehouse, location = self._warehouse, self.location

        class Sink(io.BytesIO):
            """Stored when it is closed, whole or not at all."""

            def close(self) -> None:
                if not self.closed:
                    data = self.getvalue()
                    super().close()
                    done = warehouse.attempt(f"write {location}")
                    warehouse.files[location] = data
                    warehouse.loop.event(f"file {location} {len(data)}")
                    if not done:
                        raise OSError(f"write {location}: the answer was lost (simulated)")

            def __exit__(self, *failure: Any) -> None:
                if failure[0] is not None:
                    super().close()  # what failed half-way is not stored
                self.close()

        return Sink()

    def _read(self) -> None:
        if not self._warehouse.attempt(f"read {self.location}"):
            raise OSError(f"read {self.location}: cut short (simulated)")

    def _content(self) -> bytes:
        try:
            return self._warehouse.files[self.location]
        except KeyError:
            raise FileNotFoundError(self.location) from None


class CatalogServer:
    """The state. `catalog` is the bare catalog, for checkers: without faults, and in no time."""

    def __init__(self, loop: SimLoop, faults: CatalogFaults = CALM, name: str = "lake") -> None:
        self.loop = loop
        self.random = loop.derived(f"catalog {name}")
        self.history: list[CommitEvent] = []
        self._writable_at = 0.0
        outages = Windows(self.random, faults.outage_gap_s, faults.outage_s)
        self.warehouse = Warehouse(loop, faults, self.random, outages)
        properties: dict[str, Any] = {
            "warehouse": f"sim://{name}",
            "py-io-impl": f"{__name__}.SimFileIO",
            "warehouse-files": self.warehouse,
        }
        clear_manifest_cache()  # by location, for the whole Python process: that of another world, perhaps
        self.catalog: Catalog = InMemoryCatalog(name, **properties)

    @property
    def faults(self) -> CatalogFaults:
        return self.warehouse.faults

    @property
    def files(self) -> dict[str, bytes]:
        return self.warehouse.files

    def client(self) -> "CatalogClient":
        """What a worker's `load_catalog` returns."""
        return CatalogClient(self)

    def outage(self, length_s: float) -> None:
        self.warehouse.outages.open(self.loop.time(), length_s)

    def read_only(self, length_s: float) -> None:
        """No commit is answered, nor lands; all else is well."""
        self._writable_at = self.loop.time() + length_s

    @property
    def writable(self) -> bool:
        return self.loop.time() >= self._writable_at

    def heal(self) -> None:
        """No faults from now on; what was late may still land."""
        now = self.warehouse.faults
        self.warehouse.faults = CatalogFaults(latency=now.latency, file_latency=now.file_latency)
        self.warehouse.outages.close()
        self._writable_at = 0.0

    @contextlib.contextmanager
    def seeded(self) -> Iterator[None]:
        """uuid4 draws from the seed."""
        before, os.urandom = os.urandom, self.random.randbytes
        try:
            yield
        finally:
            os.urandom = before

    def fate(self, *chances: tuple[str, float]) -> str:
        """What becomes of a call; takes its time."""
        take_time(self.faults.latency.draw(self.random))
        if self.warehouse.outages.active(self.loop.time()):
            return "outage"
        drawn = self.random.random()
        for fate, rate in chances:
            if drawn < rate:
                return fate
            drawn -= rate
        return "done"


class CatalogClient:
    """A worker's catalog: pyiceberg's methods, each over the faulty wire."""

    def __init__(self, server: CatalogServer) -> None:
        self._server = server

    def __getattr__(self, method: str) -> Any:
        found = getattr(self._server.catalog, method)
        if method in PLAIN_METHODS or not callable(found):
            return found

        def call(*args: Any, **options: Any) -> Any:
            server = self._server
            if method in CHANGES:
                fate = server.fate(("lost", server.faults.lost), ("error after", server.faults.error_after))
            else:
                fate = server.fate(("lost", server.faults.read_error))
            server.loop.event(f"catalog {method}: {fate}")
            if fate in ("lost", "outage"):
                raise ConnectionError(f"{method}: no answer from the catalog: {fate} (simulated)")
            with server.seeded():
                answer = found(*args, **options)
            if fate == "error after":
                raise TimeoutError(f"{method}: it was done, and the answer was lost (simulated)")
            return answer

        return call

    def commit_table(self, table: Any, requirements: Any, updates: Any) -> Any:
        server, faults = self._server, self._server.faults
        fates = (
            ("lost", faults.lost),
            ("late", faults.late),
            ("error after", faults.error_after),
            ("conflict after", faults.conflict_after),
        )
        fate = server.fate(*fates) if server.writable else "outage"
        if fate in ("lost", "outage"):
            self._record(table, updates, fate, landed=False)
            raise ConnectionError(f"commit: no answer from the catalog: {fate} (simulated)")
        if fate == "late":
            delay_s = server.random.random() * faults.late_s
            server.loop.in_world(delay_s, self._land_late, _who(), table, requirements, updates)
            raise TimeoutError("commit: no answer yet, and it is still on its way (simulated)")
        answer = self._commit(table, requirements, updates, fate)
        if fate == "error after":
            raise TimeoutError("commit: it landed, and the answer was lost (simulated)")
        if fate == "conflict after":
            raise CommitFailedException("the version has changed: the echo of a retry (simulated)")
        return answer

    def _commit(self, table: Any, requirements: Any, updates: Any, fate: str, who: str = "") -> Any:
        try:
            with self._server.seeded():
                answer = self._server.catalog.commit_table(table, requirements, updates)
        except Exception:
            self._record(table, updates, fate, landed=False, who=who)
            raise
        self._record(table, updates, fate, landed=True, who=who)
        return answer

    def _land_late(self, who: str, *commit: Any) -> None:
        try:
            self._commit(*commit, "late", who)
        except Exception:
            pass  # refused, as it should be if somebody committed meanwhile; nobody is there to hear

    def _record(self, table: Any, updates: Any, fate: str, *, landed: bool, who: str = "") -> None:
        server, name = self._server, ".".join(table.name())
        snapshots = tuple(u.snapshot.snapshot_id for u in updates if hasattr(u, "snapshot"))
        server.history.append(CommitEvent(server.loop.time(), name, who or _who(), fate, landed, snapshots))
        server.loop.event(f"commit to {name} of {who or _who()}: {fate}, landed: {landed} {snapshots}")


def _who() -> str:
    process = current_process()
    return process.name if process else "world"
