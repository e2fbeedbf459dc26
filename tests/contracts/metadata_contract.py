"""What every metadata store does, whatever database is under it. A test class inherits this and gives `database`.

Rows go into `id_block`, the simplest of the tables.
"""

import asyncio

import pytest
from sqlalchemy import event, insert, select, text

from streamlake.cluster.store.fences import BrokerIdentity, SlotEpoch
from streamlake.cluster.store.schema import broker, id_block, slot, take_ids
from streamlake.core.errors import Closed, Conflict, Corrupt, Fenced, Full, Invalid


def put(kind: str, next_id: int):
    """The number of rows that were added."""
    row = insert(id_block).values(kind=kind, next_id=next_id).returning(id_block.c.kind)
    return lambda connection: len(connection.execute(row).all())


def rows(connection) -> dict[str, int]:
    return dict(connection.execute(select(id_block.c.kind, id_block.c.next_id)).all())


async def broker_at(database, node: int, epoch: int) -> BrokerIdentity:
    """The node is at this epoch: a fence that stands."""
    row = {"node": node, "epoch": epoch, "host": "localhost", "port": 9092}
    await database.write(lambda c: c.execute(insert(broker).values(row)).rowcount)
    return BrokerIdentity("", node, epoch)


async def slot_at(database, slot_id: int, epoch: int) -> SlotEpoch:
    """The slot was assigned so often: a fence that stands."""
    await database.write(lambda c: c.execute(insert(slot).values(id=slot_id, node=0, epoch=epoch)).rowcount)
    return SlotEpoch(slot_id, epoch)


class MetadataContract:
    async def test_a_write_returns_what_its_function_returns(self, database) -> None:
        assert await database.write(put("a", 1)) == 1
        assert await database.read(rows) == {"a": 1}

    async def test_waiting_writes_share_one_commit(self, database) -> None:
        before = database.commits
        results = await asyncio.gather(*[database.write(lambda c: take_ids(c, "x", 2)) for _ in range(50)])
        assert results == list(range(1, 101, 2))
        assert database.commits == before + 1

    async def test_one_refusal_does_not_spoil_the_others(self, database) -> None:
        def refuse(connection):
            connection.execute(insert(id_block).values(kind="undone", next_id=1))
            raise Invalid("no")

        def bug(connection):
            connection.execute(insert(id_block).values(kind="undone too", next_id=1))
            raise ZeroDivisionError

        def broken_sql(connection):
            connection.execute(text("SELECT nonsense FROM nowhere"))

        before = database.commits
        first, *failed, last = await asyncio.gather(
            database.write(put("first", 1)),
            database.write(refuse),
            database.write(bug),
            database.write(put("first", 2)),
            database.write(broken_sql),
            database.write(put("last", 3)),
            return_exceptions=True,
        )
        assert (first, last) == (1, 1)
        assert [type(error).__name__ for error in failed] == ["Invalid", "ZeroDivisionError", "Conflict", "Unavailable"]
        assert isinstance(failed[2], Conflict)
        assert database.commits == before + 1
        assert await database.read(rows) == {"first": 1, "last": 3}

    async def test_answers_come_in_the_order_of_the_writes(self, database) -> None:
        order: list[int] = []
        futures = [database.write(lambda c, i=i: i) for i in range(20)]
        for future in futures:
            future.add_done_callback(lambda f: order.append(f.result()))
        await asyncio.gather(*futures)
        assert order == list(range(20))

    async def test_a_later_operation_of_a_group_sees_the_earlier_ones(self, database) -> None:
        _, seen, read = await asyncio.gather(database.write(put("a", 1)), database.write(rows), database.read(rows))
        assert seen == read == {"a": 1}

    async def test_a_read_changes_nothing(self, database) -> None:
        assert await database.read(put("a", 1)) == 1
        assert await database.read(rows) == {}

    async def test_a_read_that_fails_is_alone(self, database) -> None:
        def refuse(connection):
            raise Invalid("no")

        outcomes = await asyncio.gather(database.read(refuse), database.read(rows), return_exceptions=True)
        assert isinstance(outcomes[0], Invalid)
        assert outcomes[1] == {}

    async def test_a_write_whose_caller_left_before_it_began_does_nothing(self, database) -> None:
        left = database.write(put("left", 1))
        left.cancel()
        await database.write(put("stayed", 1))
        assert await database.read(rows) == {"stayed": 1}

    async def test_the_queue_has_a_limit(self, database, monkeypatch) -> None:
        monkeypatch.setattr("streamlake.cluster.store.database.QUEUE_OPERATIONS_MAX", 3)
        waiting = [database.write(put(str(i), i)) for i in range(3)]
        with pytest.raises(Full, match="waiting already"):
            database.write(put("one too many", 1))
        assert await asyncio.gather(*waiting) == [1, 1, 1]
        assert await database.write(put("again", 1)) == 1

    async def test_a_group_has_a_limit(self, database, monkeypatch) -> None:
        monkeypatch.setattr("streamlake.cluster.store.database.GROUP_OPERATIONS_MAX", 4)
        before = database.commits
        await asyncio.gather(*[database.write(put(str(i), i)) for i in range(10)])
        assert database.commits == before + 3

    async def test_close_finishes_what_is_queued(self, database) -> None:
        waiting = database.write(put("a", 1))
        await database.close()
        assert await waiting == 1
        with pytest.raises(Closed):
            database.write(put("b", 1))
        await database.close()

    async def test_a_fence_that_fell_leaves_out_its_writes_alone(self, database) -> None:
        ours, theirs = await broker_at(database, 0, 2), await broker_at(database, 1, 7)
        zombie = BrokerIdentity("", 0, 1)
        writes = [database.write(put(str(i), i), zombie if i % 7 == 3 else ours, theirs) for i in range(30)]
        outcomes = await asyncio.gather(*writes, return_exceptions=True)
        fenced = [i for i, outcome in enumerate(outcomes) if isinstance(outcome, Fenced)]
        assert fenced == [i for i in range(30) if i % 7 == 3]
        assert "its epoch is 2, this process has 1" in str(outcomes[3])
        assert await database.read(rows) == {str(i): i for i in range(30) if i % 7 != 3}

    async def test_nobody_sees_what_a_fenced_write_of_its_group_did(self, database) -> None:
        await broker_at(database, 0, 2)
        fenced, first = await asyncio.gather(
            database.write(lambda c: take_ids(c, "x", 10), BrokerIdentity("", 0, 1)),
            database.write(lambda c: take_ids(c, "x", 10)),
            return_exceptions=True,
        )
        assert isinstance(fenced, Fenced)
        assert first == 1

    async def test_a_zombie_is_fenced_whatever_else_it_finds(self, database) -> None:
        """Its successor has moved on: what a zombie finds looks like damage, and is none."""

        def damaged(connection):
            raise Corrupt("somebody else wrote here")

        ours, zombie = await broker_at(database, 0, 2), BrokerIdentity("", 0, 1)
        outcomes = await asyncio.gather(
            database.write(damaged, zombie), database.write(damaged, ours), database.write(damaged),
            return_exceptions=True,
        )  # fmt: skip
        assert [type(outcome) for outcome in outcomes] == [Fenced, Corrupt, Corrupt]

    async def test_a_write_with_two_fences_needs_both(self, database) -> None:
        us, them = await broker_at(database, 0, 2), await broker_at(database, 1, 2)
        assert await database.write(put("both", 1), us, them) == 1
        for other in (BrokerIdentity("", 1, 1), BrokerIdentity("", 0, 1)):
            with pytest.raises(Fenced):
                await database.write(put("one", 1), us, other)
        assert await database.read(rows) == {"both": 1}

    async def test_a_broker_and_a_slot_are_two_fences(self, database) -> None:
        """Of two live brokers both are current: the slot decides."""
        ours, slots = await broker_at(database, 0, 2), [await slot_at(database, i, i + 1) for i in range(3)]
        zombie, lost = BrokerIdentity("", 0, 1), SlotEpoch(1, 1)
        never = SlotEpoch(7, 1)
        assert await database.write(put("slot alone", 1), slots[0]) == 1
        fences = [(ours, slots[0]), (ours, lost), (zombie, slots[0]), (zombie, lost), (ours, slots[2]), (ours, never)]
        writes = [database.write(put(str(i), i), *each) for i, each in enumerate(fences)]
        outcomes = await asyncio.gather(*writes, return_exceptions=True)
        assert [isinstance(outcome, Fenced) for outcome in outcomes] == [False, True, True, True, False, True]
        assert "slot 1 was assigned again: its epoch is 2" in str(outcomes[1])
        assert "node 0 was taken over" in str(outcomes[2])
        assert "slot 7 was assigned again: its epoch is None" in str(outcomes[5])
        assert await database.read(rows) == {"slot alone": 1, "0": 0, "4": 4}

    async def test_the_fences_of_a_group_cost_one_statement(self, database) -> None:
        ours, theirs = await broker_at(database, 0, 2), await broker_at(database, 1, 7)
        statements: list[str] = []

        def executed(connection, cursor, statement, *_) -> None:
            statements.append(statement)

        event.listen(database._engine, "before_cursor_execute", executed)
        await asyncio.gather(*[database.write(put(str(i), i), ours if i % 2 else theirs) for i in range(20)])
        assert sum("FROM broker" in statement for statement in statements) == 1
        slots = [await slot_at(database, i, 1) for i in range(20)]
        statements.clear()
        await asyncio.gather(*[database.write(put(f"{i} of a slot", i), ours, slots[i]) for i in range(20)])
        event.remove(database._engine, "before_cursor_execute", executed)
        assert sum("FROM broker" in statement or "FROM slot" in statement for statement in statements) == 1
        assert "FROM broker" in statements[-1], "last, so that it is locked for the shortest time"
