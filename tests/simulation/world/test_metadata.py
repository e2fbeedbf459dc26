import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest
from contracts.metadata_contract import MetadataContract
from simulation.world.loop import SimLoop
from simulation.world.metadata import CALM, WILD, MetadataFaults, MetadataServer
from simulation.world.process import Process
from sqlalchemy import Connection, insert, select, update

from streamlake.cluster.store.database import Database
from streamlake.cluster.store.membership import Membership
from streamlake.cluster.store.schema import id_block, take_ids
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
