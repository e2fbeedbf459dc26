"""Who waits for whom at a fence, on PostgreSQL. What fences do on every database: tests/contracts/metadata_contract.py.

what holds the row            beside a group before its COMMIT (FOR KEY SHARE)
UPDATE of other columns       passes: a beat
SELECT … FOR UPDATE           waits: Register, Fence
UPDATE of the epoch           passes, so it would be no fence
"""

import asyncio

import pytest
from contracts.metadata_contract import put, rows
from sqlalchemy import delete, event, update
from support.locks import Held, until, waiting_for_a_lock
from support.members import controller, next_process, sign_of

from streamlake.cluster.store import membership as module
from streamlake.cluster.store import schema
from streamlake.cluster.store.database import Database
from streamlake.cluster.store.fences import BrokerIdentity, Fence, SlotEpoch
from streamlake.cluster.store.membership import Membership
from streamlake.cluster.store.slots import assign
from streamlake.cluster.watch import Sign
from streamlake.core.errors import Corrupt, Fenced
from streamlake.core.ids import Ids


class Group:
    """A group of a broker whose fences are checked, and whose COMMIT is not sent yet."""

    def __init__(self, database: Database, *fences: Fence) -> None:
        self.held = Held()
        event.listen(database._engine, "commit", lambda connection: self.held(), once=True)
        self.writing = database.write(put("late", 1), *fences)

    async def reached(self) -> "Group":
        await asyncio.to_thread(self.held.inside.wait)
        return self

    async def commit(self) -> int:
        self.held.let_go()
        return await self.writing


async def group_of_node_0(postgres, clock) -> tuple[Membership, Group]:
    database = await postgres.open()
    membership = await next_process(database, clock, Ids(0))
    return membership, await Group(database, membership.identity).reached()


async def test_a_beat_passes(postgres, clock) -> None:
    old, group = await group_of_node_0(postgres, clock)
    old._beats = await postgres.open()
    await old.beat()
    assert not group.writing.done()
    assert (await sign_of(old, 0)) == Sign(1, 1)
    assert await group.commit() == 1


async def test_a_registration_waits_for_writes_that_passed_the_check(postgres, clock) -> None:
    """Else the new process could read, then a write of the old one land."""
    _, group = await group_of_node_0(postgres, clock)
    database, watcher = await postgres.open(), await postgres.open()
    registering = asyncio.ensure_future(next_process(database, clock, Ids(0)))
    await until(lambda: waiting_for_a_lock(watcher))
    assert not registering.done()
    await group.commit()
    await registering
    assert (await database.read(rows))["late"] == 1


async def test_a_takeover_waits_for_writes_that_passed_the_check(postgres, clock) -> None:
    old, group = await group_of_node_0(postgres, clock)
    database, watcher = await postgres.open(), await postgres.open()
    us = await next_process(database, clock, Ids(1), 1)
    term = await controller(us)
    taking = asyncio.ensure_future(us.take_over(term, 0, Sign(1, 0)))
    await until(lambda: waiting_for_a_lock(watcher))
    assert not taking.done()
    await group.commit()
    assert await taking == old.identity.epoch
    assert (await database.read(rows))["late"] == 1


async def test_a_group_waits_for_a_takeover_and_is_fenced(postgres, clock) -> None:
    old_database, database, watcher = [await postgres.open() for _ in range(3)]
    old, held = await next_process(old_database, clock, Ids(0)), Held()

    def take_over(connection) -> None:
        assert module._locked_brokers(connection, {0})
        connection.execute(update(schema.broker).where(schema.broker.c.node == 0).values(epoch=2))
        held()

    fencing = database.write(take_over)
    await asyncio.to_thread(held.inside.wait)
    writing = old_database.write(put("zombie", 1), old.identity)
    await until(lambda: waiting_for_a_lock(watcher))
    held.let_go()
    await fencing
    with pytest.raises(Fenced):
        await writing
    assert "zombie" not in await database.read(rows)


async def test_a_fence_by_plain_update_would_be_none(postgres, clock) -> None:
    """It passes beside FOR KEY SHARE, as no key changes: the zombie's write lands after the new process has read."""
    _, group = await group_of_node_0(postgres, clock)
    database = await postgres.open()
    plain = update(schema.broker).where(schema.broker.c.node == 0).values(epoch=2)
    await database.write(lambda c: c.execute(plain).rowcount)
    assert "late" not in await database.read(rows)
    assert await group.commit() == 1, "and nobody told the zombie"
    assert "late" in await database.read(rows)


# -- slots -------------------------------------------------------------------------------------------------------------

SLOT = 5


async def assign_to(database: Database, node: int) -> None:
    await database.write(lambda connection: assign(connection, {SLOT: node}))


async def group_of_slot(postgres, clock) -> tuple[BrokerIdentity, Group]:
    database = await postgres.open()
    identity = (await next_process(database, clock, Ids(0))).identity
    await assign_to(database, 0)
    return identity, await Group(database, identity, SlotEpoch(SLOT, 1)).reached()


async def test_an_assignment_waits_for_writes_that_passed_the_check(postgres, clock) -> None:
    """Else the new owner could read the groups, then a write of the old one land."""
    _, group = await group_of_slot(postgres, clock)
    database, watcher = await postgres.open(), await postgres.open()
    assigning = asyncio.ensure_future(assign_to(database, 1))
    await until(lambda: waiting_for_a_lock(watcher))
    assert not assigning.done()
    await group.commit()
    await assigning
    assert (await database.read(rows))["late"] == 1


async def test_a_group_waits_for_an_assignment_and_is_fenced(postgres, clock) -> None:
    old_database, database, watcher = [await postgres.open() for _ in range(3)]
    identity, held = (await next_process(old_database, clock, Ids(0))).identity, Held()
    await assign_to(database, 0)

    def assigned(connection) -> None:
        assign(connection, {SLOT: 1})
        held()

    assigning = database.write(assigned)
    await asyncio.to_thread(held.inside.wait)
    writing = old_database.write(put("late", 1), identity, SlotEpoch(SLOT, 1))
    await until(lambda: waiting_for_a_lock(watcher))
    held.let_go()
    await assigning
    with pytest.raises(Fenced, match="slot 5 was assigned again"):
        await writing
    assert "late" not in await database.read(rows)


async def test_an_assignment_by_plain_update_would_be_none(postgres, clock) -> None:
    """It passes beside FOR KEY SHARE: the new owner has read, and then the old one's write lands."""
    _, group = await group_of_slot(postgres, clock)
    database = await postgres.open()
    plain = update(schema.slot).where(schema.slot.c.id == SLOT).values(node=1, epoch=2)
    await database.write(lambda c: c.execute(plain).rowcount)
    assert "late" not in await database.read(rows)
    assert await group.commit() == 1, "and nobody told the old owner"
    assert "late" in await database.read(rows)


async def test_groups_that_name_slots_in_any_order_do_not_wait_in_a_circle(postgres, clock) -> None:
    databases = [await postgres.open() for _ in range(4)]
    identities = [(await next_process(d, clock, Ids(n), n)).identity for n, d in enumerate(databases)]
    slots = [SlotEpoch(number, 1) for number in range(8)]
    await databases[0].write(lambda connection: assign(connection, dict.fromkeys(range(8), 0)))
    for round_ in range(10):
        writes = [
            database.write(put(f"{round_} {n} {at}", 1), *(slots if (n + at) % 2 else reversed(slots)), identities[n])
            for n, database in enumerate(databases)
            for at in range(4)
        ]
        assert await asyncio.gather(*writes) == [1] * 16
    assert [database.retries for database in databases] == [0] * 4


@pytest.mark.parametrize("left", [None, 1])
async def test_a_store_that_went_back_is_damage_and_no_fence(cluster, left: int | None) -> None:
    """A failover lost the registration of this process, perhaps with all that was built on it."""
    await cluster.register(7)
    identity = await cluster.register(7)
    row = schema.broker.c.node == 7
    lost = delete(schema.broker).where(row) if left is None else update(schema.broker).where(row).values(epoch=left)
    await cluster.database.write(lambda connection: connection.execute(lost).rowcount)
    with pytest.raises(Corrupt, match=f"went back: node 7 has epoch {left} there, and this process was given 2"):
        await cluster.database.write(lambda connection: None, identity)
