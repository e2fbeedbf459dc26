"""A broker that stops serves until others have what it had; and waits in vain for nobody."""

import asyncio
from typing import Any

import pytest
from support.members import controller
from support.wait import DEADLINE_S, turns

from streamlake.broker import departure as module
from streamlake.broker.departure import Departure
from streamlake.cluster.brokers import Brokers
from streamlake.cluster.slots import Slots
from streamlake.cluster.store.schema import DRAINING, LEFT, SERVING
from streamlake.cluster.store.slots import SLOTS, SlotStore
from streamlake.core.errors import OutcomeUnknown, Unavailable

LONG_S = DEADLINE_S


class Leaving:
    """Node 0, which has partitions and slots, as it sees itself and node 1."""

    def __init__(self, site: Any, life: Any, other: Any) -> None:
        self.site, self.life, self.other = site, life, other
        self.failed = False
        self.brokers = Brokers(life.member.identity, "localhost", 9092)
        life.member.listeners.append(self.brokers.seen)
        self.slots = Slots(SlotStore(site.database, life.member.identity), 0)

    def departure(self, timeout_s: float = LONG_S) -> Departure:
        return Departure(
            self.life.member, self.brokers, self.life.streams, self.slots, lambda: self.failed, timeout_s
        )  # fmt: skip

    async def look(self) -> None:
        await self.life.member.beat()
        await self.slots.refresh()

    @property
    async def state(self) -> str:
        return {b.node: b.state for b in await self.other.member.brokers()}[0]


@pytest.fixture
async def leaving(site: Any, monkeypatch: pytest.MonkeyPatch) -> Leaving:
    monkeypatch.setattr(module, "LOOK_INTERVAL_S", 0.0)
    monkeypatch.setattr(module, "RETRY_S", 0.0)
    life = await site.start()
    await life.member.serve()
    other = await site.start(node=1)
    await other.member.serve()
    made = Leaving(site, life, other)
    await made.slots.take_free()
    await made.look()
    return made


async def test_it_serves_until_others_have_everything(leaving: Leaving) -> None:
    site, life, other = leaving.site, leaving.life, leaving.other
    topic = await life.create("t", partitions=2)
    for index in (0, 1):
        await site.move(topic, index, 0)
    run = asyncio.create_task(leaving.departure().run())
    await turns()
    assert await leaving.state == DRAINING
    assert await life.append(life.logs.get(topic.id, 0)) == 1, "it serves"
    await site.move(topic, 0, 1)
    await turns()
    assert not run.done(), "one partition is still here"
    await site.move(topic, 1, 1)
    await turns()
    assert not life.streams.held() and not run.done(), "slots are still here"
    term = await controller(life.member)
    await SlotStore(site.database, life.member.identity).assign(term, dict.fromkeys(range(SLOTS), 1))
    await leaving.look()
    async with asyncio.timeout(DEADLINE_S):
        await run
    assert other.logs.get(topic.id, 0).high_watermark == 1


async def test_one_broker_alone_stops_at_once(leaving: Leaving) -> None:
    await leaving.other.member.leave()
    await leaving.look()
    await leaving.departure().run()
    assert await leaving.state == SERVING


async def test_a_timeout_of_zero_moves_nothing(leaving: Leaving) -> None:
    await leaving.departure(timeout_s=0).run()
    assert await leaving.state == SERVING


@pytest.mark.parametrize("why", ["all drain", "the last one leaves", "it has failed", "its lease is over", "timeout"])
async def test_it_does_not_wait_in_vain(leaving: Leaving, why: str) -> None:
    run = asyncio.create_task(leaving.departure(0.01 if why == "timeout" else LONG_S).run())
    if why != "timeout":
        await turns()
        assert not run.done()
    if why == "all drain":
        await leaving.other.member.drain()
    elif why == "the last one leaves":
        await leaving.other.member.leave()
        assert await leaving.state == DRAINING
    elif why == "it has failed":
        leaving.failed = True
    elif why == "its lease is over":
        leaving.life.clock.ms += 100_000
    if why in ("all drain", "the last one leaves"):
        await leaving.look()
    async with asyncio.timeout(DEADLINE_S):
        await run
    assert leaving.slots.ours, "the rest of the stop gives them up"
    await leaving.life.member.leave()
    assert {b.node: b.state for b in await leaving.life.member.brokers()}[0] == LEFT


@pytest.mark.parametrize("error", [Unavailable("away"), OutcomeUnknown("no answer")])
async def test_it_asks_again_when_the_metadata_store_does_not_answer(
    leaving: Leaving, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    member, asked = leaving.life.member, 0
    drain = member.drain

    async def unsure() -> None:
        nonlocal asked
        asked += 1
        if isinstance(error, OutcomeUnknown) or asked > 2:
            await drain()
        if asked <= 2:
            raise error

    monkeypatch.setattr(member, "drain", unsure)
    run = asyncio.create_task(leaving.departure().run())
    await turns()
    assert asked == 3 and await leaving.state == DRAINING
    leaving.failed = True
    await run


async def test_one_that_was_fenced_does_not_wait(leaving: Leaving) -> None:
    (own,) = [b for b in await leaving.other.member.brokers() if b.node == 0]
    await leaving.other.member.take_over(await controller(leaving.other.member), 0, own.sign)
    async with asyncio.timeout(DEADLINE_S):
        await leaving.departure().run()
