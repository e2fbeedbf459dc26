"""One controller at a time: what a former one writes is refused."""

import asyncio

import pytest
from support.members import controller, next_process, sign_of

from streamlake.cluster.store.controllers import elect, term_of
from streamlake.cluster.store.drains import Drains
from streamlake.cluster.store.wals import Wals
from streamlake.core.errors import Conflict, Fenced
from streamlake.core.ids import Ids


async def test_terms_follow_one_another(database, clock) -> None:
    a, b = await next_process(database, clock, Ids(1)), await next_process(database, clock, Ids(2), 1)
    assert await database.read(term_of) is None
    first = await elect(database, a.identity, None)
    assert (first.epoch, first.node, await database.read(term_of)) == (1, 0, first)
    assert first.is_of(a.identity) and not first.is_of(b.identity)
    assert await elect(database, a.identity, None) == first, "again, after a lost answer"
    second = await elect(database, b.identity, first)
    assert (second.epoch, second.node) == (2, 1)


async def test_of_two_that_begin_a_term_at_once_one_does(database, clock) -> None:
    a, b = await next_process(database, clock, Ids(1)), await next_process(database, clock, Ids(2), 1)
    for _ in range(2):  # the very first term has no row to lock
        former = await database.read(term_of)
        outcomes = await asyncio.gather(
            elect(database, a.identity, former), elect(database, b.identity, former), return_exceptions=True
        )
        assert isinstance(outcomes[1], Conflict) and outcomes[0] == await database.read(term_of)
        await elect(database, b.identity, await database.read(term_of))


async def test_a_former_controller_changes_nothing(cluster, clock) -> None:
    """It was paused in a round, and wakes up in the term of another one."""
    database = cluster.database
    old, new, third = [await cluster.member(node) for node in (1, 2, 3)]
    wal = await Wals(database, third.identity).adopt("object", continues=False)
    topics = await cluster.topics(old.identity)
    topic = await topics.create("t", 1, {})
    former = await controller(old)
    await controller(new)
    third = await cluster.member(3)
    sign = await sign_of(old, 3)
    before = await cluster.dump()
    for attempt in (
        lambda: old.take_over(former, 3, sign),
        lambda: topics.assign(former, {(topic.id, 0): 3}),
        lambda: Drains(database, old.identity).give(former, wal, [old.identity]),
    ):
        with pytest.raises(Conflict, match="not the controller any more"):
            await attempt()
    assert await cluster.dump() == before


async def test_a_zombie_begins_no_term(cluster) -> None:
    zombie = await cluster.member(1)
    await cluster.member(1)
    with pytest.raises(Fenced):
        await controller(zombie)
