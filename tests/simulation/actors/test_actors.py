"""All actors at once against a real server that is killed in between: whatever they do is right, and is done."""

import asyncio
import random

import pytest
from simulation.actors.admin import Admin
from simulation.actors.consumers import Tailer
from simulation.actors.groups import GroupMember
from simulation.actors.producers import IdempotentProducer, PlainProducer
from simulation.checks.outcome import check_all
from simulation.real import new_topic, run_until, world_of
from support.server import Server

pytestmark = pytest.mark.whole


async def test_a_server_that_keeps_its_promises_is_found_innocent(server: Server) -> None:
    world = world_of(server)
    lasting = [await new_topic(world, 2), await new_topic(world, 1)]
    grouped = [await new_topic(world, 2)]
    scratch = [f"{lasting[0]}-scratch"]
    everything = [*lasting, *grouped, *scratch]

    def rng(n: int) -> random.Random:
        return random.Random(n)

    members = [GroupMember(world, f"m{n}", rng(n), "group", grouped, crash_share=0) for n in range(2)]
    admin = Admin(world, "admin", rng(10), lasting, scratch, pace_s=0.2)
    tailer = Tailer(world, "t1", rng(11), everything, stray_share=0.3)

    ledger = world.ledger

    class Killer:
        async def run(self) -> None:
            while ledger.records_acked < 500:
                await asyncio.sleep(0.05)
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)

    def enough() -> bool:
        return (
            ledger.records_acked > 1_500
            and ledger.records_read > 1_500
            and admin.done > 10
            and sum(member.processed for member in members) > 100
            and sum(len(commits) for commits in ledger.group("group").commits.values()) > 5
            and any(facts.deleted for facts in ledger.topics.values())
        )

    await run_until(
        world,
        enough,
        *members,
        admin,
        tailer,
        Tailer(world, "t2", rng(12), everything),
        PlainProducer(world, "p1", rng(13), [*lasting, *scratch]),
        IdempotentProducer(world, "i1", rng(14), lasting, crash_share=0.02),
        IdempotentProducer(world, "i2", rng(15), [*grouped, *scratch]),
        Killer(),
    )
    logs = await check_all(world, rng(16))
    assert any(log.start > 0 for log in logs.values()), "DeleteRecords and retention never took anything"
