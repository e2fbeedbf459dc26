import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest
from contracts.metadata_contract import MetadataContract
from simulation.world.executor import SimExecutor
from simulation.world.loop import SimLoop
from simulation.world.metadata import CALM, FROZEN_S, HOST, WILD, MetadataFaults, MetadataServer, SimDatabase
from simulation.world.net import SimNet
from simulation.world.process import Process
from sqlalchemy import Connection, insert, select, update

from streamlake.cluster.store.controllers import elect
from streamlake.cluster.store.database import Database
from streamlake.cluster.store.membership import Membership
from streamlake.cluster.store.schema import controller, id_block, take_ids
from streamlake.cluster.watch import Sign
from streamlake.core.errors import Fenced, OutcomeUnknown, Unavailable


@pytest.mark.filterwarnings("ignore:Overriding the .event_loop_policy. fixture")
class TestDatabaseOfTheWorld(MetadataContract):
    @pytest.fixture
    def event_loop_policy(self, sim_policy: asyncio.AbstractEventLoopPolicy) -> asyncio.AbstractEventLoopPolicy:
        return sim_policy

    @pytest.fixture
    async def database(self) -> AsyncIterator[Database]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        server = MetadataServer(loop)
        database = await server.open(Process(loop, "p"))
        yield database
        await database.close()
        server.close()


def in_world(
    main: Callable[[SimLoop, MetadataServer], Coroutine[Any, Any, Any]],
    faults: MetadataFaults = CALM,
    seed: int = 1,
) -> Any:
    loop = SimLoop(seed)
    server = MetadataServer(loop, faults)
    try:
        result = loop.run_until_complete(main(loop, server))
        assert not loop.failures
        return result
    finally:
        loop.close()
        server.close()


def count(connection: Connection) -> int:
    return int(connection.execute(select(id_block.c.next_id).where(id_block.c.kind == "n")).scalar_one())


def add_one(connection: Connection) -> None:
    connection.execute(update(id_block).values(next_id=id_block.c.next_id + 1))


async def with_counter(server: MetadataServer, process: Process) -> Database:
    database = await server.open(process)
    await database.write(lambda c: c.execute(insert(id_block).values(kind="n", next_id=0)).rowcount)
    return database


def test_processes_share_one_store_and_its_clock() -> None:
    async def main(loop: SimLoop, server: MetadataServer) -> None:
        a, b = Process(loop, "a", skew_ms=90_000), Process(loop, "b")
        first, second = await with_counter(server, a), await server.open(b)
        await first.write(add_one)
        assert await second.read(count) == 1
        await asyncio.gather(*(db.write(add_one) for db in (first, second) for _ in range(50)))
        assert await first.read(count) == await second.read(count) == 101
        assert server.query("SELECT next_id FROM id_block WHERE kind = 'n'") == [(101,)]
        now_ms = await first.read(first.now_ms)
        assert abs(now_ms - await second.read(second.now_ms)) < 10_000 < a.clock.now_ms() - b.clock.now_ms()

    in_world(main)


def test_worlds_are_apart_and_begin_empty() -> None:
    async def main(loop: SimLoop, server: MetadataServer) -> int:
        database = await server.open(Process(loop, "p"))
        return await database.write(lambda c: take_ids(c, "x", 1))

    assert in_world(main) == in_world(main)


def test_faults_are_honest() -> None:
    """Unavailable: nothing done. OutcomeUnknown: done. Each is met."""

    async def main(loop: SimLoop, server: MetadataServer) -> Counter[str]:
        server.faults = CALM
        database = await with_counter(server, Process(loop, "p"))
        server.faults = MetadataFaults(unavailable=0.2, unknown=0.2)
        told: Counter[str] = Counter()
        for _ in range(200):
            try:
                await database.write(add_one)
                told["done"] += 1
            except (Unavailable, OutcomeUnknown) as error:
                told[type(error).__name__] += 1
        server.heal()
        assert await database.read(count) == told["done"] + told["OutcomeUnknown"]
        return told

    told = in_world(main)
    assert min(told.values()) > 10
    assert len(told) == 3


def test_an_outage_passes() -> None:
    async def main(loop: SimLoop, server: MetadataServer) -> None:
        process = Process(loop, "p")
        database = await with_counter(server, process)
        server.outage(10)
        with pytest.raises(Unavailable):
            await database.read(count)
        with pytest.raises(Unavailable):
            await server.open(process)
        await asyncio.sleep(11)
        assert await database.read(count) == 0

    in_world(main)


def test_one_connection_may_be_lost_alone() -> None:
    async def main(loop: SimLoop, server: MetadataServer) -> None:
        process = Process(loop, "p")
        database = await with_counter(server, process)
        beside = database.beside(SimExecutor("beside", process))
        assert isinstance(beside, SimDatabase)
        beside.lose(10)
        with pytest.raises(Unavailable):
            await beside.write(add_one)
        await database.write(add_one)
        await asyncio.sleep(10)
        await beside.write(add_one)
        assert await database.read(count) == 2

    in_world(main)


@pytest.mark.parametrize(
    ("source", "target", "first", "done"),
    [("a", HOST, Unavailable, 0), (HOST, "a", OutcomeUnknown, 1)],
)
def test_behind_a_partition_nothing_arrives_but_a_last_request(
    source: str, target: str, first: type[Exception], done: int
) -> None:
    """One way: who is not heard changes nothing; who hears nothing has one request on the open connection."""

    async def main(loop: SimLoop, server: MetadataServer) -> None:
        net = SimNet(loop)
        database, near = await with_counter(server, Process(loop, "p", "a")), await server.open(Process(loop, "q", "b"))
        net.partition(source, target, both=False)
        with pytest.raises(first):
            await database.write(add_one)
        for _ in range(3):
            with pytest.raises(Unavailable):
                await database.write(add_one)
        assert await near.read(count) == done
        net.heal()
        await database.write(add_one)
        assert await near.read(count) == done + 1

    in_world(main)


def test_after_a_failover_all_is_there_and_what_was_under_way_is_open() -> None:
    outcomes: Counter[tuple[str, int]] = Counter()
    for seed in range(20):

        async def main(loop: SimLoop, server: MetadataServer) -> None:
            database = await with_counter(server, Process(loop, "p"))
            await database.write(add_one)
            server.fail_over(5)
            with pytest.raises((Unavailable, OutcomeUnknown)) as error:
                await database.write(add_one)
            with pytest.raises(Unavailable):
                await database.write(add_one)
            await asyncio.sleep(5)
            outcomes[type(error.value).__name__, await database.read(count)] += 1

        in_world(main, seed=seed)
    assert set(outcomes) == {("Unavailable", 1), ("OutcomeUnknown", 2)}


def test_a_standby_that_was_behind_lacks_the_last_commits_and_sees_fences() -> None:
    fences = []

    async def main(loop: SimLoop, server: MetadataServer) -> None:
        process = Process(loop, "p")
        database = await with_counter(server, process)
        await database.write(add_one)
        server.copy_to_standby()
        await database.write(add_one)
        server.lose_commits(0)
        with pytest.raises((Unavailable, OutcomeUnknown)):
            await database.read(count)
        assert await database.read(count) == 1
        server.on_fence = fences.append
        membership = Membership(database, database, process.clock, process.ids)
        await membership.register(1, "a", 1)

    in_world(main)
    assert [(fence.node, fence.epoch) for fence in fences] == [(1, 0)]


@pytest.mark.parametrize(("asleep_s", "done"), [(0.5, True), (3.0, False)])
def test_a_frozen_group_holds_its_locks_until_the_server_ends_it(asleep_s: float, done: bool) -> None:
    async def main(loop: SimLoop, server: MetadataServer) -> None:
        zombie, other = Process(loop, "zombie"), Process(loop, "other")
        frozen, database = await with_counter(server, zombie), await server.open(other)
        outcome: list[str] = []

        async def write() -> None:
            try:
                await frozen.write(add_one)
            except Unavailable as error:
                outcome.append(str(error))

        server.freeze(zombie)
        zombie.start(write())
        await asyncio.sleep(0.1)
        assert zombie.paused
        assert await database.read(count) == 0  # reads wait for nobody
        loop.in_world(asleep_s - 0.1, zombie.resume)
        await database.write(add_one)
        assert min(asleep_s, FROZEN_S) <= loop.time() < min(asleep_s, FROZEN_S) + 0.2
        await asyncio.sleep(10)
        assert await database.read(count) == 1 + done
        assert bool(outcome) != done

    in_world(main)


def test_a_group_is_stopped_on_its_way_while_its_process_and_all_others_go_on() -> None:
    async def main(loop: SimLoop, server: MetadataServer) -> None:
        process, other = Process(loop, "p"), Process(loop, "other")
        database, another = await with_counter(server, process), await server.open(other)

        class Act:
            async def add(self) -> None:
                def run(connection: Connection) -> None:
                    add_one(connection)

                await database.write(run)

        stop = server.stop(process, Act.add.__qualname__)
        await database.write(add_one)
        assert not stop.reached
        adding = process.start(Act().add())
        await asyncio.sleep(5)
        assert stop.reached and not process.paused and not adding.done()
        await another.write(add_one)
        assert await another.read(count) == 2
        stop.release()
        await asyncio.sleep(1)
        assert adding.done() and await another.read(count) == 3
        server.stop(process, Act.add.__qualname__).release()
        await Act().add()
        assert await another.read(count) == 4

    in_world(main)


def test_what_is_undone_was_not_seen() -> None:
    """A fence of the writer that has fallen undoes an assignment, after it has run."""
    seen: list[object] = []

    async def main(loop: SimLoop, server: MetadataServer) -> None:
        process = Process(loop, "p")
        database = await server.open(process)
        membership = Membership(database, database, process.clock, process.ids)
        zombie = await membership.register(1, "a", 1)
        await Membership(database, database, process.clock, process.ids).register(1, "a", 1, Sign(1, 0))
        server.on_term = lambda: seen.append("term")
        term = {"id": 1, "node": 1, "broker_epoch": 1, "epoch": 1}
        await database.write(lambda connection: connection.execute(insert(controller).values(term)).rowcount)
        later = update(controller).values(epoch=2)
        with pytest.raises(Fenced):
            await database.write(lambda connection: connection.execute(later).rowcount, zombie)
        assert seen == []
        await database.write(lambda connection: connection.execute(later).rowcount)

    in_world(main)
    assert seen == ["term"]


def test_who_could_not_look_is_told_apart_when_it_fences() -> None:
    """A fence tells how long ago the one who does it could not reach the store, whether it alone or everybody."""
    since: list[float] = []

    async def main(loop: SimLoop, server: MetadataServer) -> None:
        net = SimNet(loop)
        a, b = Process(loop, "a", "a"), Process(loop, "b", "b")
        memberships = []
        for process in (a, b):
            database = await server.open(process)
            memberships.append(Membership(database, database, process.clock, process.ids))
        await memberships[0].register(1, "a", 1)
        await memberships[1].register(2, "b", 1)
        server.on_fence = lambda fence: since.append(fence.since_outage_s)
        net.partition("b", HOST)
        for _ in range(2):
            with pytest.raises(Unavailable):
                await memberships[1].look()
            await asyncio.sleep(2)
        net.heal()
        done: list[int] = []

        async def fence(membership: Membership, node: int) -> None:
            done.append(await membership.take_over(term, node, Sign(1, 0)))

        term = await elect(database, memberships[1].identity, None)
        b.start(fence(memberships[1], 1))
        await asyncio.sleep(0.5)
        assert done == [1]

    in_world(main)
    assert len(since) == 1 and since[0] < 25


def test_a_group_of_a_killed_process_is_done_whole_or_not_at_all() -> None:
    ends: Counter[int] = Counter()
    for tenths in range(40):

        async def main(loop: SimLoop, server: MetadataServer, tenths: int = tenths) -> None:
            process = Process(loop, "p")
            database = await with_counter(server, process)

            async def write() -> None:
                await asyncio.gather(*(database.write(add_one) for _ in range(7)))

            process.start(write())
            await asyncio.sleep(tenths / 40_000)
            process.kill()
            await asyncio.sleep(10)
            ends[await (await server.open(Process(loop, "next"))).read(count)] += 1

        in_world(main)
    assert set(ends) == {0, 7}


def test_a_zombie_is_fenced() -> None:
    async def main(loop: SimLoop, server: MetadataServer) -> None:
        old, new = Process(loop, "old"), Process(loop, "new")
        memberships = []
        for process in (old, new):
            database = await server.open(process)
            memberships.append(Membership(database, database, process.clock, process.ids))
        await memberships[0].register(1, "a", 1)
        old.pause()
        outcome: list[str] = []

        async def renew() -> None:
            try:
                await memberships[0].run()
            except Fenced:
                outcome.append("fenced")

        old.start(renew())
        await asyncio.sleep(1)
        await memberships[1].register(1, "b", 1, Sign(1, 0))
        old.resume()
        await asyncio.sleep(100)
        assert outcome == ["fenced"]

    in_world(main)


def test_one_seed_is_one_life() -> None:
    async def main(loop: SimLoop, server: MetadataServer) -> str:
        databases = []
        for name in ("a", "b"):
            while True:
                try:
                    databases.append(await server.open(Process(loop, f"{name}{loop.time()}")))
                    break
                except Unavailable:
                    await asyncio.sleep(1)
        writes = [db.write(lambda c: take_ids(c, "x", 1)) for db in databases for _ in range(20)]
        await asyncio.gather(*writes, return_exceptions=True)
        await asyncio.sleep(1)
        return loop.trace.digest

    wild = replace(WILD, unavailable=0.3, unknown=0.3)
    digests = [in_world(main, wild, seed) for seed in (1, 1, 2)]
    assert digests[0] == digests[1] != digests[2]
