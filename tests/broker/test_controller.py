"""Several live brokers: dead ones are fenced, their WALs given out, their partitions assigned to those that serve."""

import asyncio

import pytest
from sqlalchemy import update
from support.broker_lives import DATA, NO_ACK_S, Life, World
from support.wait import DEADLINE_S, turns, until

from streamlake.broker import controller as module
from streamlake.cluster.store import schema
from streamlake.cluster.store.administration import Administration
from streamlake.cluster.store.controllers import Term, elect
from streamlake.cluster.store.database import Database
from streamlake.cluster.store.drains import drains_of
from streamlake.cluster.store.schema import FENCED
from streamlake.cluster.store.slots import SLOTS, SlotStore
from streamlake.cluster.watch import LOOK_INTERVAL_S, Sign
from streamlake.core.errors import Conflict, Fenced, Full, StreamLakeError
from streamlake.s3stream.stream import Stream

pytestmark = pytest.mark.usefixtures("brokers_on_several_machines")


async def cluster(*wals: str) -> tuple[World, list[Life]]:
    """Nodes 0 and up that serve; node 0 has the one stream and is the controller."""
    world = await World().open()
    lives = [await world.serving(0, wals[0])]
    for node, wal in enumerate(wals[1:], 1):
        life = await world.life(node, wal)
        await life.open_wal()
        await life.start_streams()
        lives.append(life)
    for life in lives:
        await life.membership.serve()
    return world, lives


async def pass_time(world: World, lives: list[Life], seconds: float) -> None:
    """Those brokers beat and look."""
    until = world.clock.boot + seconds
    while world.clock.boot < until:
        world.clock.advance(LOOK_INTERVAL_S)
        for life in lives:
            await life.membership.beat()
            await life.controller.round()
            if life.topics.stale.is_set():
                await life.topics.refresh()


async def state_of(life: Life, node: int) -> tuple[int, str]:
    (found,) = [(b.epoch, b.state) for b in await life.membership.brokers() if b.node == node]
    return found


async def test_nobody_is_fenced_who_beats() -> None:
    world, lives = await cluster("object", "object", "object")
    await pass_time(world, lives, 20)
    assert [await state_of(lives[0], node) for node in range(3)] == [(1, "serving")] * 3
    assert [life.controller.is_active for life in lives] == [True, False, False]
    await lives[0].append(b"keep")


async def test_what_a_dead_broker_had_goes_on_elsewhere() -> None:
    world, (dead, one, two) = await cluster("object", "object", "object")
    await dead.append(b"keep")
    await pass_time(world, [one, two], 10)
    assert await state_of(one, 0) == (2, FENCED)
    assert [life.controller.is_active for life in (one, two)] == [True, False]
    stream_id = await world.topic_of(one.topics)
    (info,) = one.topics.get("t").partitions
    owner = {1: one, 2: two}[info.node]
    for life in (one, two):
        await life.takeover.drain_given()
    (stream,) = await owner.streams.open([stream_id])
    owner.stream = stream
    assert await owner.everything() == [b"keep"]
    with pytest.raises((TimeoutError, StreamLakeError)):
        await dead.append(b"lost", NO_ACK_S)
    await owner.append(b"more")
    assert await owner.everything() == [b"keep", b"more"]


async def test_a_controller_that_is_followed_in_the_middle_of_a_round_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It still lives, and must not take the other one's term for its own."""
    world, (first, second, _) = await cluster("object", "object", "object")
    take_over = first.membership.take_over

    async def and_be_followed(term: Term, node: int, sign: Sign) -> int:
        epoch = await take_over(term, node, sign)
        await elect(world.database, second.membership.identity, term)
        return epoch

    monkeypatch.setattr(first.membership, "take_over", and_be_followed)
    while await state_of(first, 2) != (2, FENCED):
        world.clock.advance(LOOK_INTERVAL_S)
        for life in (first, second):
            await life.membership.beat()
        await first.controller.round()
    assert not first.controller.is_active
    assert await world.database.read(drains_of) == []


async def test_a_large_wal_is_drained_by_several(monkeypatch: pytest.MonkeyPatch) -> None:
    """`drain-part-discards`: what one part leaves, the other still needs."""
    monkeypatch.setattr(module, "PART_BYTES", 4)
    world = await World().open()
    dead = await world.serving(0, "object")
    topic = await dead.topics.create("more", 6, {})
    streams = await dead.streams.open([p.stream_id for p in topic.partitions])
    for stream in streams:
        assert isinstance(stream, Stream) and dead.streams.try_reserve(4)
        await stream.append(0, 1, 0, b"keep")
    lives = []
    for node in (1, 2):
        life = await world.life(node, "object")
        await life.open_wal()
        await life.start_streams()
        await life.membership.serve()
        lives.append(life)
    one, two = lives
    await pass_time(world, lives, 10)
    assert len(await world.database.read(drains_of)) == 2
    await one.takeover.drain_given()
    assert any(len(data) > 100 for key, data in world.stores[DATA].objects.items() if key.startswith("wal/0/"))
    found = await one.streams.open([p.stream_id for p in topic.partitions])
    assert sorted(isinstance(s, Stream) for s in found) == [False] * 3 + [True] * 3, "half of them is drained"
    await two.takeover.drain_given()
    found += await two.streams.open(
        [p.stream_id for p, s in zip(topic.partitions, found, strict=True) if not isinstance(s, Stream)]
    )
    for stream in found:
        if isinstance(stream, Stream):
            assert b"".join(await stream.read(0, 1, 100)) == b"keep"
    assert sum(isinstance(s, Stream) for s in found) == 6
    assert not any(len(data) > 100 for key, data in world.stores[DATA].objects.items() if key.startswith("wal/0/"))


async def test_what_lies_on_a_disk_of_its_own_waits_for_its_broker() -> None:
    world, (own, other) = await cluster("file", "object")
    await own.append(b"keep")
    await pass_time(world, [other], 10)
    assert other.controller.is_active
    await other.topics.refresh()
    assert other.topics.get("t").partitions[0].node == 0
    assert await world.database.read(drains_of) == []
    back = await world.serving(0, "file")
    assert await back.everything() == [b"keep"]


async def test_a_broker_that_left_is_not_waited_for() -> None:
    world, (left, other) = await cluster("object", "object")
    await left.append(b"keep")
    await left.membership.leave()
    await pass_time(world, [other], 0.5)
    await other.takeover.drain_given()
    (stream,) = await other.streams.open([await world.topic_of(other.topics)])
    assert isinstance(stream, Stream) and stream.durable_offset == 1


@pytest.mark.parametrize("wal", ["object", "file:///shared?shared=true"])
@pytest.mark.parametrize("refuses", [True, False])
async def test_who_refuses_is_fenced_before_its_lease_is_over(
    wal: str, refuses: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind an object WAL only: with a shared disk nothing but the lease keeps it from acknowledging."""

    async def answer(host: str, port: int, timeout_s: float) -> bool:
        return refuses

    monkeypatch.setattr(module, "refuses", answer)
    world, (one, two) = await cluster("object", wal)
    await pass_time(world, [one, two], 2)
    await pass_time(world, [one], 1.5)
    assert await state_of(one, 1) == ((2, FENCED) if refuses and wal == "object" else (1, "serving"))
    await pass_time(world, [one], 3)
    assert await state_of(one, 1) == (2, FENCED)


@pytest.mark.parametrize("wal", ["object", "file"])
@pytest.mark.parametrize("refuses", [True, False])
async def test_a_controller_that_refuses_is_followed_before_its_lease_is_over(
    wal: str, refuses: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its WAL is: should it live, its term is over, and its broker is not fenced for that."""

    async def answer(host: str, port: int, timeout_s: float) -> bool:
        return refuses

    monkeypatch.setattr(module, "refuses", answer)
    world, (one, two) = await cluster(wal, "object")
    await pass_time(world, [one, two], 2)
    await pass_time(world, [two], 1.5)
    assert two.controller.is_active == refuses
    assert await state_of(two, 0) == ((2, FENCED) if refuses and wal == "object" else (1, "serving"))
    if refuses and wal == "file":
        await one.membership.beat()
        await one.controller.round()
        assert not one.controller.is_active


async def test_a_change_elsewhere_is_looked_at_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients must not be sent to a broker that was fenced a moment ago."""
    monkeypatch.setattr(module, "FOLLOW_INTERVAL_S", 1000.0)
    world, (one, two, gone) = await cluster("object", "object", "object")
    await pass_time(world, [one, two, gone], 1)
    assert two.brokers.get(2) is not None
    following = asyncio.create_task(two.controller.run())
    await turns()
    await gone.membership.leave()
    await one.topics.create("more", 1, {})
    two.brokers.revised(one.topics.revision)
    await until(lambda: two.brokers.get(2) is None)
    assert two.controller.revision == one.topics.revision
    following.cancel()


async def test_a_broker_that_starts_slowly_has_a_whole_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its port refuses because it does not serve yet: it would be fenced in each start on a machine that is busy."""

    async def answer(host: str, port: int, timeout_s: float) -> bool:
        return True

    monkeypatch.setattr(module, "refuses", answer)
    world, (one, two) = await cluster("object", "object")
    starting = await world.life(2, "object")
    await starting.open_wal()
    await pass_time(world, [one, two, starting], 2)
    await pass_time(world, [one, two], 2.5)
    assert await state_of(one, 2) == (1, "starting")
    await pass_time(world, [one, two], 1)
    assert await state_of(one, 2) == (2, FENCED)


async def test_hosts_that_are_lost_are_fenced_though_their_ports_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for their answers must not be late for the next look: nobody would ever be watched for a whole lease."""
    world, (one, *lost) = await cluster("object", "object", "object", "object")
    asked = 0.0

    async def no_answer(host: str, port: int, timeout_s: float) -> bool:
        nonlocal asked
        if asked < world.clock.boot:  # those that wait at once wait together
            world.clock.advance(timeout_s)
            asked = world.clock.boot
        return False

    monkeypatch.setattr(module, "refuses", no_answer)
    await pass_time(world, [one, *lost], 1)
    await pass_time(world, [one], 6)
    assert [await state_of(one, life.membership.identity.node) for life in lost] == [(2, FENCED)] * 3


async def test_a_controller_that_was_paused_changes_nothing() -> None:
    """It was about to fence a broker that had been silent, and sleeps. When it wakes up that broker beats again, and
    another one is the controller."""
    world, (old, new, third) = await cluster("object", "object", "object")
    blocked, awake, take_over = asyncio.Event(), asyncio.Event(), old.membership.take_over

    async def sleep_and_take_over(*arguments):
        blocked.set()
        await awake.wait()
        return await take_over(*arguments)

    old.membership.take_over = sleep_and_take_over
    acting = asyncio.create_task(pass_time(world, [old, new], 4))
    await blocked.wait()
    await pass_time(world, [new, third], 5)
    assert new.controller.is_active
    awake.set()
    with pytest.raises(Fenced):  # the new controller has taken its broker over, too
        await acting
    assert await state_of(new, 2) == (1, "serving")


async def nodes_of(life: Life) -> list[int | None]:
    """Of all partitions."""
    await life.topics.refresh()
    return [p.node for topic in life.topics.all() for p in topic.partitions]


@pytest.mark.parametrize("wal", ["object", "file"])
@pytest.mark.parametrize("leaving", [0, 1])
async def test_what_a_broker_has_that_drains_is_spread_over_the_others(wal: str, leaving: int) -> None:
    """Whether or not it is the controller; and its WAL may be on a disk of its own, as it closes its streams itself."""
    world, lives = await cluster(wal, wal, wal)
    await lives[0].topics.create("more", 11, {})
    await pass_time(world, lives, 1)
    assert set(await nodes_of(lives[0])) == {0, 1, 2}
    await lives[leaving].membership.drain()
    await pass_time(world, lives, 5)
    stay = sorted({0, 1, 2} - {leaving})
    nodes = await nodes_of(lives[0])
    assert [nodes.count(node) for node in stay] == [6, 6]
    assert sorted(await slots_of(lives[0])) == stay
    assert await state_of(lives[0], leaving) == (1, "draining"), "it beats, and is not fenced"
    assert lives[0].controller.is_active
    await lives[leaving].membership.leave()
    await pass_time(world, [life for life in lives if life is not lives[leaving]], 1)
    assert await nodes_of(lives[stay[0]]) == nodes
    assert lives[stay[0]].controller.is_active


async def test_a_drained_node_has_nothing_until_it_is_told() -> None:
    world, lives = await cluster("object", "object", "object")
    await lives[0].topics.create("more", 11, {})
    await pass_time(world, lives, 1)
    administration = Administration(world.database, lives[1].membership.identity)
    await administration.drain(0)
    await pass_time(world, lives, 2)
    assert sorted(set(await nodes_of(lives[0]))) == [1, 2]
    assert sorted(await slots_of(lives[0])) == [1, 2]
    assert lives[0].controller.is_active
    # It starts again, and takes nothing of what others have, nor what is new.
    await lives[0].membership.leave()
    await pass_time(world, lives[1:], 1)
    again = await world.life(0, "object")
    await again.open_wal()
    await again.start_streams()
    await again.controller.round()
    await again.membership.serve()
    await again.topics.create("another", 2, {})
    await pass_time(world, [again, *lives[1:]], 2)
    assert sorted(set(await nodes_of(again))) == [1, 2]
    assert sorted(await slots_of(again)) == [1, 2]
    await administration.undrain(0)
    await pass_time(world, [again, *lives[1:]], 2)
    assert sorted(set(await nodes_of(again))) == [0, 1, 2]
    assert sorted(await slots_of(again)) == [0, 1, 2]


async def test_what_was_moved_by_hand_stays_while_its_broker_is_there() -> None:
    world, lives = await cluster("object", "object")
    topic = await lives[0].topics.create("more", 5, {})
    await pass_time(world, lives, 1)
    administration = Administration(world.database, lives[0].membership.identity)
    await administration.move({(topic.id, index): 1 for index in range(5)})
    await pass_time(world, lives, 2)
    assert [p.node for p in lives[0].topics.get("more").partitions] == [1] * 5
    assert [p.node for p in lives[0].topics.get("t").partitions] == [0], "what was not moved by hand makes up for it"
    await lives[1].membership.drain()
    await pass_time(world, lives, 2)
    assert (await nodes_of(lives[0])).count(1) == 0
    await lives[1].membership.serve()
    await administration.undrain(1)
    await pass_time(world, lives, 2)
    assert (await nodes_of(lives[0])).count(1) == 3, "it gets its share, as every broker that comes"


async def test_what_was_just_moved_by_hand_is_left_there() -> None:
    """The controller has decided before, and is about to write."""
    world, lives = await cluster("object", "object")
    topic = await lives[0].topics.create("more", 2, {})
    await pass_time(world, lives, 1)
    topics, controller = lives[0].topics, lives[0].controller
    (before,) = {p.node for p in topics.get("t").partitions}
    other = 1 - (before or 0)
    await Administration(world.database, lives[1].membership.identity).move({(topics.get("t").id, 0): other})
    assert controller.term is not None
    await topics.assign(controller.term, {(topics.get("t").id, 0): before or 0, (topic.id, 0): other})
    assert topics.get("t").partitions[0].node == other, "by the operator"
    assert topics.get("more").partitions[0].node == other, "by the controller"


async def test_when_all_drain_everybody_keeps_what_it_has() -> None:
    world, lives = await cluster("object", "object")
    await pass_time(world, lives, 1)
    before = await nodes_of(lives[0]), await slots_of(lives[0])
    for life in lives:
        await life.membership.drain()
    await pass_time(world, lives, 2)
    assert (await nodes_of(lives[0]), await slots_of(lives[0])) == before


async def test_what_drains_is_fenced_when_it_dies() -> None:
    world, (dead, other) = await cluster("object", "object")
    await dead.append(b"keep")
    await dead.membership.drain()
    await pass_time(world, [other], 10)
    assert await state_of(other, 0) == (2, FENCED)
    await other.takeover.drain_given()
    (stream,) = await other.streams.open([await world.topic_of(other.topics)])
    assert isinstance(stream, Stream) and stream.durable_offset == 1


async def test_a_wal_is_drained_by_those_that_stay() -> None:
    world, (leaving, other, dead) = await cluster("object", "object", "object")
    await pass_time(world, [leaving, other, dead], 1)
    await leaving.membership.drain()
    await pass_time(world, [leaving, other], 10)
    assert leaving.controller.is_active
    assert {row.by_node for row in await world.database.read(drains_of)} == {1}


async def test_a_new_broker_gets_its_share_of_partitions() -> None:
    world, lives = await cluster("object", "object")
    await lives[0].topics.create("more", 9, {})
    await pass_time(world, lives, 1)
    nodes = [p.node for topic in lives[0].topics.all() for p in topic.partitions]
    assert sorted(nodes) == [0] * 5 + [1] * 5


async def slots_of(life: Life) -> dict[int, int]:
    """How many each node has."""
    _, rows = await SlotStore(life.world.database, life.membership.identity).load()
    nodes = [row.node for row in rows]
    return {node: nodes.count(node) for node in set(nodes)}


async def test_slots_are_spread_and_those_of_the_dead_go_on_elsewhere() -> None:
    world, (one, two, dead) = await cluster("object", "object", "object")
    await pass_time(world, [one, two, dead], 1)
    counts = await slots_of(one)
    assert counts.keys() == {0, 1, 2}
    assert sum(counts.values()) == SLOTS
    assert max(counts.values()) - min(counts.values()) <= SLOTS / 20
    _, before = await SlotStore(one.world.database, one.membership.identity).load()
    await pass_time(world, [one, two], 10)
    assert (await slots_of(one)).keys() == {0, 1}
    _, after = await SlotStore(one.world.database, one.membership.identity).load()
    assert all(new == old for old, new in zip(before, after, strict=True) if old.node != 2), "no others have moved"
    assert all(new.epoch == old.epoch + 1 for old, new in zip(before, after, strict=True) if old.node == 2)


async def test_slots_are_read_only_when_something_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    world, lives = await cluster("object", "object")
    await pass_time(world, lives, 1)
    active = lives[0].controller
    monkeypatch.setattr(active._slots, "load", lambda: pytest.fail("nothing has changed"))
    await pass_time(world, lives, 1)


async def test_a_controller_that_was_replaced_assigns_no_slots() -> None:
    world, lives = await cluster("object", "object")
    await pass_time(world, lives, 1)
    old = lives[0].controller
    assert old.term is not None
    await elect(lives[1].world.database, lives[1].membership.identity, old.term)
    with pytest.raises(Conflict, match="not the controller any more"):
        await old._slots.assign(old.term, {0: 1})


async def test_a_round_that_fails_is_done_again_by_a_broker_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk of its metadata was full at its start: its partitions must not wait for the next one."""
    monkeypatch.setattr(Database, "is_ours_alone", True)
    monkeypatch.setattr(module, "LOOK_INTERVAL_S", 0.001)
    monkeypatch.setattr(module, "FOLLOW_INTERVAL_S", 0.001)
    world = await World().open()
    life = await world.life(0, "object")
    await life.open_wal()
    await life.start_streams()
    assign, failures = life.topics.assign, 3

    async def fail_at_first(*arguments):
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise Full("no space left")
        await assign(*arguments)

    life.topics.assign = fail_at_first
    await life.topics.create("t", 1, {})
    forget = update(schema.partition).values(node=None)
    await world.database.write(lambda connection: connection.execute(forget).rowcount)
    life.topics.stale.set()
    life.topics.revision = -1
    await life.topics.refresh()
    await life.controller.round()
    assert life.topics.get("t").partitions[0].node is None
    async with asyncio.timeout(DEADLINE_S):
        await life.controller.run()
    assert life.topics.get("t").partitions[0].node == 0
