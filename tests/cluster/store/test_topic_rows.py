"""An image that reads what changed has what one has that reads everything."""

import asyncio
import random
from itertools import count

import pytest
from sqlalchemy import event
from support.members import controller, next_process

from streamlake.cluster.store import revision as revision_module
from streamlake.cluster.store.database import Database
from streamlake.cluster.store.stream_metadata import SqlStreamMetadata
from streamlake.cluster.topics import Topics
from streamlake.core.errors import Conflict, Invalid, NotFound
from streamlake.core.ids import Ids
from streamlake.s3stream.metadata import Closing, OpenAt, StreamState


@pytest.fixture(autouse=True)
def not_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Database, "is_ours_alone", False)


class Broker:
    """What a broker does to topics, and its image of them."""

    def __init__(self, member, clock, random_: random.Random) -> None:
        self.member, self.random = member, random_
        self.topics = Topics(member._database, member.identity, clock, Ids(member.identity.node))
        self.streams = SqlStreamMetadata(member._database, member.identity, None)
        self.open: dict[int, int] = {}  # epochs by stream

    async def act(self, number: int) -> None:
        known = self.topics.all()
        topic = self.random.choice(known) if known else None
        act = self.random.choice((self.open_some, self.close_some, self.assign, self.alter, self.grow, self.delete))
        try:
            if topic is None or self.random.random() < 0.2:
                await self.topics.create(f"t{number}", self.random.randint(1, 4), {})
            else:
                await act(topic)
        except (NotFound, Conflict, Invalid):
            pass  # another one has deleted it, is the controller, or has added partitions

    async def alter(self, topic) -> None:
        await self.topics.alter_configs(topic.name, {"retention.ms": str(self.random.randint(1, 9))})

    async def grow(self, topic) -> None:
        await self.topics.refresh()
        if (now := self.topics.get(topic.name)) is not None:
            await self.topics.add_partitions(topic.name, len(now.partitions) + 1)

    async def delete(self, topic) -> None:
        if self.random.random() < 0.3:
            await self.topics.delete(topic.name)

    async def assign(self, topic) -> None:
        nodes = {(topic.id, p.index): self.random.randint(0, 2) for p in topic.partitions if self.random.random() < 0.5}
        await self.topics.assign(await controller(self.member), nodes)

    async def open_some(self, topic) -> None:
        ids = [p.stream_id for p in topic.partitions if self.random.random() < 0.5]
        for found in await self.streams.open_streams([OpenAt(i, 0) for i in ids]):
            if isinstance(found, StreamState):
                self.open[found.stream_id] = found.epoch

    async def close_some(self, topic) -> None:
        ids = [i for i in self.open if self.random.random() < 0.5]
        await self.streams.close_streams([Closing(i, self.open.pop(i), 0) for i in ids])


@pytest.mark.parametrize("seed", range(8))
async def test_images_that_read_changes_have_everything(database, clock, seed: int, monkeypatch) -> None:
    chosen = random.Random(seed)
    if seed % 2:  # now and then the list does not reach back, or names too much
        monkeypatch.setattr(revision_module, "LISTED_MAX", 6)
        monkeypatch.setattr(revision_module, "CLEARED_EACH", 2)
        monkeypatch.setattr(revision_module, "IDS_MAX", 4)
    brokers = [Broker(await next_process(database, clock, Ids(n), n), clock, chosen) for n in range(3)]
    for broker in brokers:
        await broker.topics.refresh()
    for number in range(60):
        await asyncio.gather(*(broker.act(100 * number + at) for at, broker in enumerate(brokers)))
        for broker in chosen.sample(brokers, 1):
            await broker.topics.refresh()
    whole = Topics(database, brokers[0].member.identity, clock, Ids(9))
    await whole.refresh()
    for broker in brokers:
        await broker.topics.refresh()
        assert broker.topics.revision == whole.revision
        assert broker.topics.all() == whole.all()
        assert broker.topics._partitions == whole._partitions


@pytest.mark.parametrize("others", [1, 40])
async def test_what_is_read_after_a_change_does_not_grow_with_the_cluster(cluster, others: int) -> None:
    """One partition of one topic moves, whatever else is there."""
    names = count()
    ours, theirs = await cluster.topics(), await cluster.topics()
    for _ in range(others):
        await theirs.create(f"other{next(names)}", 20, {"retention.ms": "1"})
    topic = await theirs.create("t", 20, {})
    await ours.refresh()
    mover = await cluster.member(1)
    theirs = await cluster.topics(identity=mover.identity)
    await theirs.assign(await controller(mover), {(topic.id, 7): 5})
    statements: list[str] = []

    def executed(connection, cursor, statement, *_) -> None:
        if statement.startswith("SELECT"):
            statements.append(statement)

    heard = []
    ours.listeners.append(heard.append)
    event.listen(cluster.database._engine, "before_cursor_execute", executed)
    await ours.refresh()
    event.remove(cluster.database._engine, "before_cursor_execute", executed)
    assert len(statements) == 2, "the list of changes, and the partition"
    (change,) = heard
    assert [p.index for p in change.after.partitions if p != topic.partitions[p.index]] == [7]
