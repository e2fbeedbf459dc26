import asyncio

import pytest

from streamlake.cluster.membership import Lease, Membership, require_current
from streamlake.core.errors import Closed, Fenced, Unavailable
from streamlake.core.ids import Ids


def membership(database, clock, seed: int = 1) -> Membership:
    return Membership(database, clock, Ids(seed), lease_ms=9_000)


async def test_each_start_takes_the_next_epoch_and_the_cluster_id_stays(database, clock) -> None:
    first = await membership(database, clock, 1).register(0, "localhost", 9092, "file:///a")
    second = await membership(database, clock, 2).register(0, "example", 9093, "file:///b")
    other = await membership(database, clock, 3).register(5, "other", 9094, "file:///c")
    assert (first.node, first.epoch, second.epoch, other.epoch) == (0, 1, 2, 1)
    assert len(first.cluster_id) == 22
    assert first.cluster_id == second.cluster_id == other.cluster_id
    brokers = await membership(database, clock).brokers()
    assert [(b.node, b.epoch, b.host, b.port, b.wal_uri) for b in brokers] == [
        (0, 2, "example", 9093, "file:///b"),
        (5, 1, "other", 9094, "file:///c"),
    ]


async def test_a_newer_process_of_the_node_fences_the_older(database, clock) -> None:
    old, new = membership(database, clock), membership(database, clock)
    await old.register(0, "localhost", 9092, "")
    await new.register(0, "localhost", 9092, "")
    before = await new.brokers()
    clock.advance(1)
    with pytest.raises(Fenced, match=r"its epoch is 2, this process has 1"):
        await old.renew()
    with pytest.raises(Fenced):
        await old.leave()
    assert await new.brokers() == before
    assert not old.holds_lease()
    await new.renew()


async def test_unknown_nodes_are_fenced(database, clock, cluster) -> None:
    from dataclasses import replace

    with pytest.raises(Fenced):
        await database.write(lambda c: require_current(c, replace(cluster.identity, node=9)))


async def test_the_lease_runs_by_both_clocks(database, clock) -> None:
    member = membership(database, clock)
    assert not member.holds_lease()
    await member.register(0, "localhost", 9092, "")
    assert member.deadline_boottime == clock.boottime() + 9
    assert (await member.brokers())[0].lease_until_ms == clock.now_ms() + 9_000
    clock.advance(8.999)
    assert member.holds_lease()
    clock.advance(0.001)
    assert not member.holds_lease()
    await member.renew()  # nobody took over while the machine slept
    assert member.holds_lease()
    assert member.renewals == 1


async def test_the_lease_counts_from_before_the_renewal_was_sent(database, clock, monkeypatch) -> None:
    """The store may have granted at once and its answer taken long: others count from the grant."""
    member = membership(database, clock)
    await member.register(0, "localhost", 9092, "")
    sent_at = clock.boottime()
    real = database.write

    def slow(fn):
        answer = real(fn)
        clock.advance(5)
        return answer

    monkeypatch.setattr(database, "write", slow)
    await member.renew()
    assert member.deadline_boottime == sent_at + 9
    await membership(database, clock).register(0, "localhost", 9092, "")


async def test_leaving_ends_the_lease_at_once(database, clock) -> None:
    member = membership(database, clock)
    await member.register(0, "localhost", 9092, "")
    clock.advance(1)
    await member.leave()
    assert not member.holds_lease()
    assert (await member.brokers())[0].lease_until_ms == clock.now_ms()


async def test_an_unreachable_store_lets_the_lease_run_out(database, clock, monkeypatch) -> None:
    member = membership(database, clock)
    await member.register(0, "localhost", 9092, "")
    deadline = member.deadline_boottime

    def down(fn):
        raise Unavailable("down")

    monkeypatch.setattr(database, "write", down)
    with pytest.raises(Unavailable):
        await member.renew()
    assert member.deadline_boottime == deadline
    assert member.failed_renewals == 1


async def test_run_renews_until_fenced(database, clock, monkeypatch) -> None:
    member = membership(database, clock)
    await member.register(0, "localhost", 9092, "")
    slept, real = [], database.write
    failing = [True, False, True]

    async def sleep(seconds: float) -> None:
        slept.append(round(seconds, 3))
        clock.advance(seconds)
        if len(slept) == 5:
            await membership(database, clock).register(0, "localhost", 9092, "")

    def write(fn):
        if failing and failing.pop():
            raise Unavailable("down for a moment")
        return real(fn)

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
    lease = Lease(10)
    lease.granted(100)
    lease.granted(90)
    assert lease.deadline == 110
    assert lease.held(109.9)
    assert not lease.held(110)
