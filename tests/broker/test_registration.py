"""Who may register, after how long a wait: in memory, where waiting moves the clock, and with a real port."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from simulation.world.disk import SimDisk

from streamlake.broker import registration as module
from streamlake.broker.registration import Registration
from streamlake.cluster.store.database import Database
from streamlake.cluster.store.membership import LEASE_S, Membership
from streamlake.cluster.store.wals import Wals
from streamlake.cluster.watch import CLOCK_RATES, LOOK_INTERVAL_S
from streamlake.config import Config
from streamlake.core import sockets
from streamlake.core.errors import Fenced, Unavailable
from streamlake.core.ids import Ids
from streamlake.core.tasks import InlineExecutor
from streamlake.s3stream.wal.file.directory import WalDirectory

OWN, SHARED, OBJECT = "file", "file:///shared?shared=true", "object"
WAIT_S = LEASE_S * (1 + CLOCK_RATES)
ELSEWHERE = "broker.example"  # no loopback address
FORMER_PORT = 9092


@dataclass
class World:
    """`when`: what happens at a time, by the clock of this world."""

    database: Database
    boot_s: float = 1000.0
    disk: SimDisk = field(default_factory=SimDisk)
    when: dict[float, Callable[[], Any]] = field(default_factory=dict)

    def now_ms(self) -> int:
        return int(self.boot_s * 1000)

    def boottime(self) -> float:
        return self.boot_s

    async def pass_time(self, seconds: float) -> None:
        until = self.boot_s + seconds
        for at in sorted(at for at in self.when if at <= until):
            self.boot_s = at
            await self.when.pop(at)()
        self.boot_s = until


class Machine:
    def __init__(self, world: World) -> None:
        self.clock, self.ids, self.disk = world, Ids(1), world.disk.session()

    def executor(self, name: str, threads: int = 1) -> InlineExecutor:
        return InlineExecutor()


class Life:
    def __init__(self, world: World, wal: str = OBJECT) -> None:
        self.world, self.wal, self.machine = world, wal, Machine(world)
        storage = {"data_dir": "/data", "wal": wal, "url": "s3://lake/data", "metadata_url": "postgresql://x/y"}
        self.config = Config.model_validate({"server": {"node_id": 3}, "storage": storage})
        self.membership = Membership(world.database, world.database, world, Ids(2))

    async def register(self, host: str = ELSEWHERE, port: int = FORMER_PORT) -> float:
        """How long it waited."""
        started = self.world.boot_s
        machine: Any = self.machine
        registration = Registration(self.config, machine, self.world.database, self.membership)
        await registration.register(host, port)
        return self.world.boot_s - started

    async def enter_wal(self) -> "Life":
        """As broker/wal.py does it."""
        uri = self.wal
        if uri == OWN:
            self.directory = WalDirectory("/data/wal", self.machine.disk, self.machine.ids, 65536)
            self.directory.lock()
            uri += "#" + self.directory.create()
        await Wals(self.world.database, self.membership.identity).adopt(uri, continues=self.wal == OWN)
        return self

    def die(self) -> None:
        self.machine.disk.kill()


async def running(world: World, wal: str = OBJECT, **address: Any) -> Life:
    life = Life(world, wal)
    await life.register(**address)
    return await life.enter_wal()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    database = await Database.open("sqlite://", InlineExecutor(), World(None))  # type: ignore[arg-type]
    yield World(database)
    await database.close()


@pytest.fixture(autouse=True)
def waiting_moves_the_clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    async def wait(registration: Registration, seconds: float) -> None:
        await registration._machine.clock.pass_time(seconds)  # type: ignore[attr-defined]

    monkeypatch.setattr(Registration, "_pause", wait)
    yield


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """The metadata store is one that other processes may use, too."""
    monkeypatch.setattr(Database, "is_ours_alone", False)


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the port of the former process does."""
    does = ["refuses"]

    async def refuses(host: str, port: int) -> bool:
        assert (host, port) == (ELSEWHERE, FORMER_PORT)
        return does[0] == "refuses"

    monkeypatch.setattr(module, "_refuses", refuses)
    return does


async def test_the_first_and_those_after_a_clean_stop_wait_for_nothing(world: World, many: None) -> None:
    first = await running(world, SHARED)
    await first.membership.leave()
    assert await Life(world, SHARED).register() == 0


async def test_a_node_of_the_clusters_choice_waits_for_nobody(world: World, many: None) -> None:
    first, second = Life(world), Life(world)
    for life in (first, second):
        life.config = Config.model_validate({"server": {"node_id": "auto"}, "storage": life.config.storage})
        assert await life.register() == 0
    assert (first.membership.identity.node, second.membership.identity.node) == (0, 1)


async def test_whose_directory_can_be_locked_is_dead(world: World, many: None) -> None:
    """A restart after kill -9 waits for nothing."""
    first = await running(world, OWN)
    first.die()
    again = Life(world, OWN)
    assert await again.register() == 0
    again.directory = WalDirectory("/data/wal", again.machine.disk, again.machine.ids, 65536)
    again.directory.lock()  # that it was looked at leaves no lock


@pytest.mark.parametrize("lost", ["locked", "elsewhere", "another one"])
async def test_a_directory_that_proves_nothing(world: World, many: None, port: list[str], lost: str) -> None:
    first = await running(world, OWN)
    if lost != "locked":
        first.die()
        world.disk = SimDisk()
    if lost == "another one":
        other = WalDirectory("/data/wal", world.disk.session(), Ids(9), 65536)
        other.lock()
        other.create()
        other.unlock()
    assert await Life(world, OWN).register() >= WAIT_S


async def test_an_object_wal_whose_port_refuses(world: World, many: None, port: list[str]) -> None:
    await running(world, OBJECT)
    assert await Life(world, OBJECT).register() == 0
    port[0] = "answers nothing"
    assert await Life(world, OBJECT).register() >= WAIT_S


async def test_a_shared_disk_waits_whatever_the_port_says(world: World, many: None, port: list[str]) -> None:
    await running(world, SHARED)
    waited = await Life(world, OBJECT).register()
    assert WAIT_S <= waited <= WAIT_S + 2 * LOOK_INTERVAL_S


async def test_on_sqlite_the_file_says_that_nobody_else_runs(world: World) -> None:
    await running(world, OBJECT)
    assert await Life(world, OBJECT).register() == 0
    assert await Life(world, SHARED).register() == 0, "it died before it had a WAL"


async def test_a_living_node_is_refused(world: World, many: None, port: list[str]) -> None:
    """And not harmed: two servers with a copied configuration would fence each other in turns."""
    first = await running(world, OBJECT)
    port[0] = "answers"
    for n in range(1, 40):
        world.when[world.boot_s + 0.75 * n] = first.membership.beat
    started = world.boot_s
    with pytest.raises(
        Unavailable, match=r"another server with node_id 3 is running, at broker\.example:9092.*server\.node_id"
    ):
        await Life(world, OBJECT).register()
    assert world.boot_s - started < LEASE_S, "and soon"
    await first.membership.beat()


async def test_a_beat_that_was_under_way_when_it_died_does_not_count(world: World, many: None, port: list[str]) -> None:
    first = await running(world, OBJECT)
    port[0] = "answers nothing"
    world.when[world.boot_s + 0.3] = first.membership.beat
    assert await Life(world, OBJECT).register() >= WAIT_S


async def test_who_beats_between_the_look_and_the_registration_is_not_fenced(
    world: World, many: None, port: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds its lease again: it is watched anew."""
    first = await running(world, SHARED)
    register, beats = Membership.register, [first.membership.beat]

    async def late(membership: Membership, *args: Any) -> Any:
        if beats:
            await beats.pop()()
            assert first.membership.held()
        return await register(membership, *args)

    monkeypatch.setattr(Membership, "register", late)
    assert await Life(world, SHARED).register() >= 2 * WAIT_S
    with pytest.raises(Fenced):
        await first.membership.beat()


async def test_a_store_that_is_away_while_we_watch_judges_nobody(
    world: World, many: None, port: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await running(world, SHARED)
    look, away = Membership.look, [None] * 20

    async def faulty(membership: Membership) -> Any:
        if world.boot_s > 1001 and away:
            away.pop()
            raise Unavailable("away")
        return await look(membership)

    monkeypatch.setattr(Membership, "look", faulty)
    world.when[1001 + 20 * LOOK_INTERVAL_S + 1] = first.membership.beat
    assert await Life(world, SHARED).register() >= 20 * LOOK_INTERVAL_S + 1 + WAIT_S


async def test_a_store_that_stays_away_is_an_error(world: World, many: None, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(membership: Membership) -> Any:
        raise Unavailable("away")

    monkeypatch.setattr(Membership, "look", away)
    monkeypatch.setattr(module, "PATIENCE_S", 0)
    with pytest.raises(Unavailable, match="away"):
        await Life(world).register()


# -- ports -------------------------------------------------------------------------------------------------------------


async def test_what_a_port_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "is_loopback", lambda host: False)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        assert not await module._refuses("127.0.0.1", listening.getsockname()[1])
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert await module._refuses("127.0.0.1", bound.getsockname()[1]), "ours, before we listen, is no server"
    assert not await module._refuses("host.invalid", 9092), "a name that is gone says nothing"


async def test_a_host_that_does_not_answer_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: Any) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio, "open_connection", never)
    monkeypatch.setattr(sockets, "CONNECT_TIMEOUT_S", 0.01)
    assert not await module._refuses(ELSEWHERE, 9092)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.0.1", "::1"])
async def test_of_loopback_addresses_nothing_is_known(host: str) -> None:
    """Each machine has its own: what refuses here may be alive there."""
    assert not await module._refuses(host, 1)
