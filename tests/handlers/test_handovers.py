"""A refusal waits until it is known who has the partition, but not for long."""

import asyncio
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from support.two_brokers import OTHER, OWN, two_brokers

from streamlake.cluster.store.topic_rows import PartitionInfo, TopicInfo
from streamlake.cluster.topics import TopicChange
from streamlake.handlers.handovers import HANDOVER_S, Handovers

ID = UUID(int=1)
OPEN_THERE = PartitionInfo(0, 1, OTHER.node, 7, OTHER.node, OTHER.epoch)
CLOSED = PartitionInfo(0, 1, OTHER.node, 6)


class Deadlines:
    def __init__(self) -> None:
        self.added: list[tuple[Any, float]] = []

    def add(self, item: Any, timeout_s: float) -> int:
        self.added.append((item, timeout_s))
        return 0


class World:
    def __init__(self) -> None:
        self.open: set[tuple[UUID, int]] = set()
        self.found: TopicInfo | None = TopicInfo("t", ID, {}, (CLOSED,))
        self.deadlines = Deadlines()
        topics = SimpleNamespace(by_id=lambda _: self.found, listeners=[])
        logs = SimpleNamespace(get=lambda *key: SimpleNamespace(leader_epoch=1) if key in self.open else None)
        parts: Any = (two_brokers(), topics, logs, self.deadlines)
        self.handovers = Handovers(*parts)
        self.heard = topics.listeners

    def change(self, partition: PartitionInfo | None) -> None:
        before = self.found
        self.found = None if partition is None else TopicInfo("t", ID, {}, (partition,))
        for listener in self.heard:
            listener(TopicChange(1, before, self.found))


@pytest.fixture
async def world() -> World:
    return World()


async def test_nobody_waits_for_a_partition_that_does_not_move(world: World) -> None:
    assert world.handovers.until_over(ID, 0) is None


@pytest.mark.parametrize("over", [OPEN_THERE, None])
async def test_until_another_broker_has_opened_it_or_it_is_deleted(world: World, over) -> None:
    world.handovers.begin(ID, 0)
    waiting = world.handovers.until_over(ID, 0)
    assert waiting is world.handovers.until_over(ID, 0)
    world.change(PartitionInfo(0, 1, OWN.node, 6))
    assert not waiting.done()
    world.change(over)
    assert waiting.done()
    assert world.handovers.until_over(ID, 0) is None


async def test_until_it_is_open_here(world: World) -> None:
    world.handovers.begin(ID, 0)
    waiting = world.handovers.until_over(ID, 0)
    world.handovers.look([ID])
    assert not waiting.done()
    world.open.add((ID, 0))
    world.handovers.look([ID])
    assert waiting.done()


async def test_one_that_takes_long_is_not_waited_for_and_does_not_begin_again(world: World) -> None:
    world.handovers.begin(ID, 0)
    waiting = world.handovers.until_over(ID, 0)
    ((item, after_s),) = world.deadlines.added
    assert after_s == HANDOVER_S
    item.time_is_up()
    await asyncio.sleep(0)
    assert waiting.done()
    world.handovers.begin(ID, 0)
    assert world.handovers.until_over(ID, 0) is None
    world.change(OPEN_THERE)
    world.change(CLOSED)
    world.handovers.begin(ID, 0)
    assert world.handovers.until_over(ID, 0) is not None, "the next one is another one"
    item.time_is_up()
    assert not world.handovers.until_over(ID, 0).done()
