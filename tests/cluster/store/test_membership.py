import asyncio
from dataclasses import replace

import pytest
from sqlalchemy import event, update
from support.members import controller, next_process, sign_of
from support.members import drained as members_drained
from support.members import fence as members_fence

from streamlake.cluster.store import schema
from streamlake.cluster.store.administration import Administration
from streamlake.cluster.store.membership import (
    BEAT_INTERVAL_S,
    BEAT_RETRY_S,
    FENCED,
    LEASE_S,
    LEFT,
    STARTING,
    BeatView,
    BrokerInfo,
    LeaseTerm,
    Membership,
)
from streamlake.cluster.store.revision import Kind, next_revision
from streamlake.cluster.store.schema import DRAINING, SERVING
from streamlake.cluster.store.wals import Wals
from streamlake.cluster.watch import Sign
from streamlake.core.errors import Closed, Conflict, Corrupt, Fenced, Invalid, NotFound, Unavailable
from streamlake.core.ids import Ids


def membership(database, clock, seed: int = 1) -> Membership:
    return Membership(database, database, clock, Ids(seed))


async def state_of(member: Membership, node: int) -> str:
    (state,) = [broker.state for broker in await member.brokers() if broker.node == node]
    return state


# -- registration ------------------------------------------------------------------------------------------------------


async def test_each_start_takes_the_next_epoch_and_the_cluster_id_stays(database, clock) -> None:
    first = await membership(database, clock, 1).register(0, "localhost", 9092)
    second = await membership(database, clock, 2).register(0, "example", 9093, Sign(1, 0))
    other = await membership(database, clock, 3).register(5, "other", 9094)
    assert (first.node, first.epoch, second.epoch, other.epoch) == (0, 1, 2, 1)
    assert len(first.cluster_id) == 22
    assert first.cluster_id == second.cluster_id == other.cluster_id
    brokers = await membership(database, clock).brokers()
    assert [(b.node, b.epoch, b.beat, b.state, b.host, b.port) for b in brokers] == [
        (0, 2, 0, STARTING, "example", 9093),
        (5, 1, 0, STARTING, "other", 9094),
    ]


async def test_a_newer_process_of_the_node_fences_the_older(database, clock) -> None:
    old, new = await next_process(database, clock, Ids(1)), await next_process(database, clock, Ids(2))
    before = await new.brokers()
    clock.advance(1)
    with pytest.raises(Fenced, match=r"its epoch is 2, this process has 1"):
        await old.beat()
    with pytest.raises(Fenced):
        await old.leave()
    assert await new.brokers() == before
    assert not old.held()
    await new.beat()


async def test_a_node_that_may_run_is_not_registered_again(database, clock) -> None:
    """A copied configuration would else give two servers that fence each other in turns."""
    old, new = membership(database, clock), membership(database, clock)
    await old.register(0, "localhost", 9092)
    await old.beat()
    before = await old.brokers()
    for sign in (None, Sign(1, 0), Sign(0, 1)):
        with pytest.raises(Conflict, match="node 0 may run"):
            await new.register(0, "localhost", 9093, sign)
    assert await old.brokers() == before
    await old.beat()
    await old.leave()
    assert (await new.register(0, "localhost", 9093)).epoch == 2


def test_there_is_no_identity_before_registration(clock) -> None:
    with pytest.raises(Closed):
        _ = Membership(None, None, clock, Ids(1)).identity


# -- beats and the lease -----------------------------------------------------------------------------------------------


async def test_a_beat_is_counted_and_renews_the_lease(database, clock) -> None:
    member = membership(database, clock)
    assert not member.held()
    await member.register(0, "localhost", 9092)
    clock.advance(LEASE_S - 0.001)
    assert member.held()
    clock.advance(0.001)
    assert not member.held()
    await member.beat()  # nobody took over while the machine slept
    assert member.held()
    assert member.renewals == 1
    assert await sign_of(member, 0) == Sign(1, 1)


async def test_a_beat_sees_all_brokers_and_the_revision_by_one_statement_more(database, clock) -> None:
    member, other = membership(database, clock, 1), membership(database, clock, 2)
    await member.register(3, "three", 9093)
    await other.register(1, "one", 9091)
    await other.leave()
    views: list[BeatView] = []
    member.listeners.append(views.append)
    statements: list[str] = []

    def executed(connection, cursor, statement, *_) -> None:
        statements.append(statement.partition(" ")[0])

    event.listen(database._engine, "before_cursor_execute", executed)
    await member.beat()
    event.remove(database._engine, "before_cursor_execute", executed)
    assert [s for s in statements if s in ("SELECT", "UPDATE", "INSERT")] == ["UPDATE", "SELECT"]
    await database.write(lambda c: next_revision(c, Kind.SLOTS))
    await member.beat()
    brokers = (BrokerInfo(1, 1, 0, LEFT, "one", 9091), BrokerInfo(3, 1, 1, STARTING, "three", 9093))
    assert views == [BeatView(0, brokers), BeatView(1, (brokers[0], replace(brokers[1], beat=2)))]


async def test_a_beat_that_fails_shows_nothing(database, clock) -> None:
    old = await next_process(database, clock, Ids(1))
    await next_process(database, clock, Ids(2))
    old.listeners.append(lambda view: pytest.fail("a zombie saw the cluster"))
    with pytest.raises(Fenced):
        await old.beat()


async def test_a_wall_clock_that_is_set_ends_no_lease_and_renews_none(database, clock) -> None:
    member = await next_process(database, clock, Ids(1))
    clock.milliseconds += 3_600_000
    assert member.held()
    clock.boot_s += LEASE_S
    clock.milliseconds -= 7_200_000
    assert not member.held()


async def test_the_lease_counts_from_before_the_beat_was_sent(database, clock, monkeypatch) -> None:
    """The store may have counted at once and its answer taken long: others count from what they saw."""
    member = await next_process(database, clock, Ids(1))
    real = database.write

    def slow(fn, *fences):
        answer = real(fn, *fences)
        clock.advance(2)
        return answer

    monkeypatch.setattr(database, "write", slow)
    await member.beat()
    clock.advance(LEASE_S - 2.001)
    assert member.held()
    clock.advance(0.001)
    assert not member.held(), "a lease after it was sent"


async def registered(database, clock, *, leaves: bool = False) -> int:
    """The node that a broker without one gets."""
    member = membership(database, clock)
    identity = await member.register(None, "localhost", 9092)
    if leaves:
        await member.leave()
    return identity.node


async def test_a_node_that_left_nothing_is_given_again(database, clock) -> None:
    assert [await registered(database, clock, leaves=node == 1) for node in range(3)] == [0, 1, 1]
    assert await registered(database, clock) == 2


async def test_a_node_that_may_have_left_something_is_not(database, clock) -> None:
    fenced, with_wal, drained, controls = [await next_process(database, clock, Ids(n), n) for n in range(4)]
    wal = await Wals(database, with_wal.identity).adopt("object", continues=False)
    for member in (with_wal, drained):
        await member.leave()
    await controls.serve()
    await Administration(database, controls.identity).drain(2)
    assert await registered(database, clock) == 4
    await members_fence(controls, 0)
    assert await registered(database, clock) == 0
    await members_drained(controls, wal)
    assert await registered(database, clock) == 1
    assert await registered(database, clock) == 5
    del fenced


async def test_two_that_start_at_once_get_different_nodes(postgres, clock) -> None:
    databases = [await postgres.open() for _ in range(4)]
    await (await next_process(databases[0], clock, Ids(1), 7)).leave()
    nodes = await asyncio.gather(*(registered(database, clock) for database in databases))
    assert sorted(nodes) == [0, 1, 2, 7]


async def test_a_broker_that_drains_runs_until_it_leaves(database, clock) -> None:
    member = membership(database, clock)
    await member.register(0, "localhost", 9092)
    await member.serve()
    await member.drain()
    await member.drain()
    (broker,) = await member.brokers()
    assert (broker.state, broker.may_run, broker.serves, broker.is_available) == (DRAINING, True, True, False)
    await member.beat()
    assert member.held()
    with pytest.raises(Conflict, match="may run"):
        await membership(database, clock, 2).register(0, "localhost", 9092)
    await member.leave()
    assert await state_of(member, 0) == LEFT


async def test_a_fenced_process_cannot_drain_its_successor(database, clock) -> None:
    old, new = await next_process(database, clock, Ids(1)), await next_process(database, clock, Ids(2))
    await new.serve()
    with pytest.raises(Fenced):
        await old.drain()
    assert await state_of(new, 0) == SERVING


async def test_leaving_ends_the_lease_at_once(database, clock) -> None:
    member = await next_process(database, clock, Ids(1))
    await member.leave()
    assert not member.held()
    assert await state_of(member, 0) == LEFT


async def test_a_beat_that_is_answered_while_the_broker_leaves_gives_nothing_back(database, clock) -> None:
    """Others take the node over at once, without the wait for a lease."""
    member = await next_process(database, clock, Ids(1))
    beating = asyncio.ensure_future(member.beat())
    leaving = asyncio.ensure_future(member.leave())
    await asyncio.gather(beating, leaving)
    assert not member.held()
    with pytest.raises(Closed):
        await member.beat()


async def test_whoever_waits_for_the_lease_goes_on_when_it_is_granted_again(database, clock) -> None:
    member = membership(database, clock)
    waiting = [asyncio.ensure_future(member.until_held()) for _ in range(2)]
    await asyncio.sleep(0)
    assert not any(w.done() for w in waiting)
    await member.register(0, "localhost", 9092)
    await asyncio.gather(*waiting)
    await member.until_held()
    clock.advance(LEASE_S)
    waiting = [asyncio.ensure_future(member.until_held()) for _ in range(2)]
    await asyncio.sleep(0)
    assert not any(w.done() for w in waiting)
    await member.beat()
    await asyncio.gather(*waiting)
    assert member.held()


async def test_a_store_that_lost_commits_ends_the_broker(database, clock) -> None:
    """A standby that was behind is promoted: it gives out epochs and ids again that were given out before."""
    member = await next_process(database, clock, Ids(1))
    for _ in range(3):
        await member.beat()
    await database.write(lambda c: c.execute(update(schema.broker).values(beat=2)).rowcount)
    with pytest.raises(Corrupt, match="counts beat 3 of node 0, and had acknowledged beat 3"):
        await member.beat()
    assert await sign_of(member, 0) == Sign(1, 2), "and what it found is left alone"
    await database.write(lambda c: c.execute(update(schema.broker).values(beat=3)).rowcount)
    await member.beat()
    for lost in (update(schema.broker).values(epoch=0), schema.broker.delete()):
        await database.write(lambda c, lost=lost: c.execute(lost).rowcount)
        with pytest.raises(Corrupt, match="the metadata store went back"):
            await member.beat()


async def test_an_unreachable_store_lets_the_lease_run_out(database, clock, monkeypatch) -> None:
    member = await next_process(database, clock, Ids(1))
    clock.advance(1)

    def down(fn, *fences):
        raise Unavailable("down")

    monkeypatch.setattr(database, "write", down)
    with pytest.raises(Unavailable):
        await member.beat()
    assert member.failed_renewals == 1
    clock.advance(LEASE_S - 1.001)
    assert member.held()
    clock.advance(0.001)
    assert not member.held()


async def test_run_beats_until_fenced(database, clock, monkeypatch) -> None:
    member = await next_process(database, clock, Ids(1))
    slept, real = [], database.write
    failing = [True, False, True, False]

    async def sleep(seconds: float) -> None:
        slept.append(round(seconds, 3))
        clock.advance(seconds)
        if len(slept) == 5:
            await next_process(database, clock, Ids(2))

    def write(fn, *fences):
        if failing and failing.pop():
            raise Unavailable("down for a moment")
        return real(fn, *fences)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr(database, "write", write)
    with pytest.raises(Fenced):
        await member.run()
    assert slept == [BEAT_INTERVAL_S, BEAT_INTERVAL_S, BEAT_RETRY_S, BEAT_INTERVAL_S, BEAT_RETRY_S]


def test_lease_never_goes_back() -> None:
    lease = LeaseTerm(10)
    lease.granted(100)
    lease.granted(90)
    assert lease.deadline == 110
    assert lease.held(109.9)
    assert not lease.held(110)


# -- takeover ----------------------------------------------------------------------------------------------------------


async def test_a_watched_node_is_taken_over_once(database, clock) -> None:
    dead, us = await next_process(database, clock, Ids(1), 5), await next_process(database, clock, Ids(2))
    assert await us.take_over(await controller(us), 5, Sign(1, 0)) == 1
    assert await state_of(us, 5) == FENCED
    with pytest.raises(Fenced, match=r"its epoch is 2, this process has 1"):
        await dead.beat()
    assert await us.take_over(await controller(us), 5, Sign(2, 0)) == 2, "by the next one that drains it"
    assert (await membership(database, clock).register(5, "localhost", 9092)).epoch == 4, "without a wait"


async def test_a_node_that_beat_at_the_last_moment_keeps_its_epoch(database, clock) -> None:
    """Between the last look and the fence: it holds its lease again, and acknowledges."""
    late, us = await next_process(database, clock, Ids(1), 5), await next_process(database, clock, Ids(2))
    clock.advance(20)
    assert not late.held()
    sign = await sign_of(us, 5)
    await late.beat()
    with pytest.raises(Conflict, match="is alive"):
        await us.take_over(await controller(us), 5, sign)
    assert late.held()
    await late.beat()


async def test_who_can_be_taken_over(database, clock) -> None:
    us = await next_process(database, clock, Ids(1))
    with pytest.raises(NotFound, match="broker 7 never registered"):
        await us.take_over(await controller(us), 7, Sign(1, 0))
    with pytest.raises(Invalid, match="is this broker"):
        await us.take_over(await controller(us), 0, Sign(1, 0))
    dead = await next_process(database, clock, Ids(2), 5)
    term = await controller(us)
    await next_process(database, clock, Ids(3))
    with pytest.raises(Fenced):
        await us.take_over(term, 5, Sign(1, 0))  # a zombie takes nobody over
    await dead.beat()


async def test_a_watch_sees_what_brokers_show(database, clock) -> None:
    us, other = await next_process(database, clock, Ids(1)), await next_process(database, clock, Ids(2), 5)
    for _ in range(8):
        found = await us.look()
        await us.beat()
        clock.advance(0.5)
    assert sorted(found) == [0, 5] and found[5].may_run
    assert us.watch.is_dead(5) and us.watch.is_alive(0)
    assert found[5].sign == await sign_of(other, 5)
