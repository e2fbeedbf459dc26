import asyncio

import pytest

from streamlake.cluster.store.membership import LeaseTerm, Membership
from streamlake.core.errors import Closed, Conflict, Fenced, Invalid, NotFound, Unavailable
from streamlake.core.ids import Ids


def membership(database, clock, seed: int = 1) -> Membership:
    return Membership(database, clock, Ids(seed), lease_ms=9_000)


async def test_each_start_takes_the_next_epoch_and_the_cluster_id_stays(database, clock) -> None:
    first = (await membership(database, clock, 1).register(0, "localhost", 9092)).identity
    second = (await membership(database, clock, 2).register(0, "example", 9093)).identity
    other = (await membership(database, clock, 3).register(5, "other", 9094)).identity
    assert (first.node, first.epoch, second.epoch, other.epoch) == (0, 1, 2, 1)
    assert len(first.cluster_id) == 22
    assert first.cluster_id == second.cluster_id == other.cluster_id
    brokers = await membership(database, clock).brokers()
    assert [(b.node, b.epoch, b.host, b.port) for b in brokers] == [
        (0, 2, "example", 9093),
        (5, 1, "other", 9094),
    ]


async def test_a_newer_process_of_the_node_fences_the_older(database, clock) -> None:
    old, new = membership(database, clock), membership(database, clock)
    await old.register(0, "localhost", 9092)
    await new.register(0, "localhost", 9092)
    before = await new.brokers()
    clock.advance(1)
    with pytest.raises(Fenced, match=r"its epoch is 2, this process has 1"):
        await old.renew()
    with pytest.raises(Fenced):
        await old.leave()
    assert await new.brokers() == before
    assert not old.held()
    await new.renew()


async def test_unknown_nodes_are_fenced(database, clock, cluster) -> None:
    from dataclasses import replace

    with pytest.raises(Fenced):
        await database.write(lambda c: None, replace(cluster.identity, node=9))


async def test_the_lease_runs_by_both_clocks(database, clock) -> None:
    member = membership(database, clock)
    assert not member.held()
    await member.register(0, "localhost", 9092)
    assert (await member.brokers())[0].lease_until_ms == clock.now_ms() + 9_000
    clock.advance(8.999)
    assert member.held()
    clock.advance(0.001)
    assert not member.held()
    await member.renew()  # nobody took over while the machine slept
    assert member.held()
    assert member.renewals == 1


async def test_the_lease_counts_from_before_the_renewal_was_sent(database, clock, monkeypatch) -> None:
    """The store may have granted at once and its answer taken long: others count from the grant."""
    member = membership(database, clock)
    await member.register(0, "localhost", 9092)
    real = database.write

    def slow(fn, *fences):
        answer = real(fn, *fences)
        clock.advance(5)
        return answer

    monkeypatch.setattr(database, "write", slow)
    await member.renew()
    clock.advance(3.999)
    assert member.held()
    clock.advance(0.001)
    assert not member.held(), "nine seconds after it was sent"
    await membership(database, clock).register(0, "localhost", 9092)


async def test_leaving_ends_the_lease_at_once(database, clock) -> None:
    member = membership(database, clock)
    await member.register(0, "localhost", 9092)
    clock.advance(1)
    await member.leave()
    assert not member.held()
    assert (await member.brokers())[0].lease_until_ms == 0


async def test_a_renewal_that_is_answered_while_the_broker_leaves_gives_nothing_back(database, clock) -> None:
    """Others take the node over at once, without the wait for a lease."""
    member = membership(database, clock)
    await member.register(0, "localhost", 9092)
    renewing = asyncio.ensure_future(member.renew())
    leaving = asyncio.ensure_future(member.leave())
    await asyncio.gather(renewing, leaving)
    assert not member.held()
    with pytest.raises(Closed):
        await member.renew()
    other = membership(database, clock)
    await other.register(1, "localhost", 9092)
    assert await other.take_over(0, 1_000) == 1


async def test_whoever_waits_for_the_lease_goes_on_when_it_is_granted_again(database, clock) -> None:
    member = membership(database, clock)
    waiting = [asyncio.ensure_future(member.until_held()) for _ in range(2)]
    await asyncio.sleep(0)
    assert not any(w.done() for w in waiting)
    await member.register(0, "localhost", 9092)
    await asyncio.gather(*waiting)
    await member.until_held()
    clock.advance(9)
    waiting = [asyncio.ensure_future(member.until_held()) for _ in range(2)]
    await asyncio.sleep(0)
    assert not any(w.done() for w in waiting)
    await member.renew()
    await asyncio.gather(*waiting)
    assert member.held()


async def test_a_registration_tells_how_long_the_previous_life_may_acknowledge(database, clock) -> None:
    """A whole lease unless it left: the wall clock, by which it may be over, may have been set."""

    async def register() -> Membership:
        us = membership(database, clock)
        told.append((await us.register(0, "localhost", 9092)).previous_lease_ms)
        return us

    told: list[int] = []
    await register()
    clock.advance(2)
    second = await register()
    await second.leave()  # but not for the first, whose lease runs on
    third = await register()
    clock.advance(20)
    await third.leave()
    await register()
    clock.advance(3600)
    await register()
    assert told == [0, 9_000, 9_000, 0, 9_000]


async def test_a_short_life_does_not_give_the_lease_of_the_one_before_back(database, clock) -> None:
    """Its start failed, say. Somebody else would replay what the first one still acknowledges (C4)."""
    first, second, other = (membership(database, clock) for _ in range(3))
    await first.register(0, "localhost", 9092)
    clock.advance(2)
    await second.register(0, "localhost", 9092)
    await second.leave()
    await other.register(1, "localhost", 9093)
    with pytest.raises(Conflict, match="in 8000 ms"):
        await other.take_over(0, 1_000)


async def test_a_dead_node_is_taken_over_after_its_lease_and_a_margin(database, clock) -> None:
    dead, us = membership(database, clock), membership(database, clock)
    await dead.register(5, "localhost", 9092)
    await us.register(0, "localhost", 9092)
    before = await us.brokers()
    for seconds, left_ms in ((0, 10_000), (9, 1_000), (0.999, 1)):
        clock.advance(seconds)
        with pytest.raises(Conflict, match=f"may be alive: it can be taken over in {left_ms} ms"):
            await us.take_over(5, 1_000)
    assert await us.brokers() == before
    clock.advance(0.001)
    await us.renew()
    assert await us.take_over(5, 1_000) == 1
    with pytest.raises(Fenced, match=r"its epoch is 2, this process has 1"):
        await dead.renew()
    assert not dead.held()
    assert await us.take_over(5, 1_000) == 2, "by the next one that drains it"
    back = membership(database, clock)
    assert (await back.register(5, "localhost", 9092)).identity.epoch == 4


async def test_a_node_that_renewed_at_the_last_moment_keeps_its_epoch(database, clock) -> None:
    late, us = membership(database, clock), membership(database, clock)
    await late.register(5, "localhost", 9092)
    await us.register(0, "localhost", 9092)
    clock.advance(20)
    assert not late.held()
    await late.renew()
    with pytest.raises(Conflict):
        await us.take_over(5, 0)
    assert late.held()


async def test_who_can_be_taken_over(database, clock) -> None:
    us = membership(database, clock)
    await us.register(0, "localhost", 9092)
    with pytest.raises(NotFound, match="broker 7 never registered"):
        await us.take_over(7, 0)
    with pytest.raises(Invalid, match="is this broker"):
        await us.take_over(0, 0)
    dead = membership(database, clock)
    await dead.register(5, "localhost", 9092)
    clock.advance(60)
    await membership(database, clock).register(0, "localhost", 9092)
    with pytest.raises(Fenced):
        await us.take_over(5, 0)  # a zombie takes nobody over
    await dead.renew()


async def test_an_unreachable_store_lets_the_lease_run_out(database, clock, monkeypatch) -> None:
    member = membership(database, clock)
    await member.register(0, "localhost", 9092)
    clock.advance(5)

    def down(fn, *fences):
        raise Unavailable("down")

    monkeypatch.setattr(database, "write", down)
    with pytest.raises(Unavailable):
        await member.renew()
    assert member.failed_renewals == 1
    clock.advance(3.999)
    assert member.held()
    clock.advance(0.001)
    assert not member.held()


async def test_run_renews_until_fenced(database, clock, monkeypatch) -> None:
    member = membership(database, clock)
    await member.register(0, "localhost", 9092)
    slept, real = [], database.write
    failing = [True, False, True]

    async def sleep(seconds: float) -> None:
        slept.append(round(seconds, 3))
        clock.advance(seconds)
        if len(slept) == 5:
            await membership(database, clock).register(0, "localhost", 9092)

    def write(fn, *fences):
        if failing and failing.pop():
            raise Unavailable("down for a moment")
        return real(fn, *fences)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr(database, "write", write)
    with pytest.raises(Fenced):
        await member.run()
    # Renewed after a third of the lease; after a failure soon again.
    assert slept == [3.0, 0.9, 3.0, 0.9, 3.0]


def test_there_is_no_identity_before_registration(clock) -> None:
    with pytest.raises(Closed):
        _ = Membership(None, clock, Ids(1)).identity


def test_lease_never_goes_back() -> None:
    lease = LeaseTerm(10)
    lease.granted(100)
    lease.granted(90)
    assert lease.deadline == 110
    assert lease.held(109.9)
    assert not lease.held(110)
