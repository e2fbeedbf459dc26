"""Dead letters that become rows: once and only once, wherever the worker dies, and whoever else is at the tables."""

import contextlib
import json
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from pyiceberg.types import StringType
from support.table_records import record, wire
from support.table_world import BAD, TOPIC, Killed, Life, World, good, kill_at, value

from streamlake.core.errors import Conflict, Fenced, Invalid
from streamlake.record.decode import Record
from streamlake.record.encode import encode_batch
from streamlake.table.commit import machine as commit_machine
from streamlake.table.commit.progress import DEAD_LETTER
from streamlake.table.task import redrive as module
from streamlake.table.task.redrive import PROPERTY, REDRIVABLE, Order, Redrive, order_of


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit_machine, "DELAY_FIRST_S", 0.0)


ALL = Order()
ENVELOPE = record(("after", ["null", record(("n", "long"), name="Value")]), ("op", "string"))


def redrive_of(life: Life, order: Order = ALL) -> Redrive:
    return Redrive(life.table, order, life.world.executor, life.world.budget)


async def done(redrive: Redrive) -> Redrive:
    while not await redrive.step():
        pass
    return redrive


async def redriven(life: Life, order: Order = ALL) -> Redrive:
    redrive = redrive_of(life, order)
    await redrive.begin()
    return await done(redrive)


async def resumed(world: World) -> Life:
    """A new life, which does what was left undone."""
    life = await world.opened()
    left = Redrive.resume(life.table, world.executor, world.budget)
    if left is not None:
        await done(left)
    return life


async def with_dead_letters(rounds: int = 3, **configs: str) -> World:
    """In each round records of schema 2, which is deleted, between others."""
    world = World(2, **configs)
    world.registry.gone = {2}
    life = await world.opened()
    for n in range(rounds):
        world.log.produce(0, [*good([n]), *good([n + 10, n + 20], 2), BAD])
        world.log.produce(1, [None, *good([n + 30], 2)])
        await life.round()
    world.check()
    world.registry.gone = set()
    return world


def letters(world: World) -> list[dict[str, Any]]:
    return world.load("__dlq").scan().to_arrow().to_pylist()


async def test_dead_letters_whose_schema_is_back_become_rows() -> None:
    world = await with_dead_letters()
    life = await world.opened()
    redrive = await redriven(life)
    world.check()
    assert world.dead() == [(0, 3), (0, 7), (0, 11)]
    assert sorted(n for n in world.load().scan().to_arrow()["n"].to_pylist() if n is not None and n > 9) == [
        10, 11, 12, 20, 21, 22, 30, 31, 32,
    ]  # fmt: skip
    assert (redrive.counts.redriven, redrive.counts.found, redrive.counts.still_dead) == (9, 0, 3)
    progress = life.table.main.progress
    assert (progress.rows, progress.skipped) == (len(world.rows()), {DEAD_LETTER: 3})
    assert PROPERTY not in world.load("__dlq").properties
    world.log.produce(0, good([1]))
    await life.round()  # the table goes on from where it was
    world.check()


async def test_a_row_is_as_it_would_have_been() -> None:
    world = await with_dead_letters(1)
    await redriven(await world.opened())
    rows = world.load().scan().to_arrow().to_pylist()
    (late,) = (row for row in rows if row["n"] == 20)
    (other,) = (row for row in rows if row["n"] == 0)
    kafka, first = late["_kafka"], other["_kafka"]
    assert kafka == {**first, "offset": 2, "timestamp": kafka["timestamp"]}
    assert (kafka["timestamp"] - first["timestamp"]).total_seconds() == 0.002
    assert kafka["key"] == "key"


async def test_tombstones_headers_and_records_without_a_time_survive() -> None:
    world = World(layout="automq")
    world.registry.gone = {2}
    records = [Record(0, -1, None, value(1, 2), (("h", b"1"), ("h", None))), Record(1, 5, b"k", value(2, 2), ())]
    world.log._append(0, 0, 2, encode_batch(records))
    world.log.data |= {(0, 0), (0, 1)}
    life = world.life()
    await life.drain()
    assert len(letters(world)) == 2
    world.registry.gone = set()
    await redriven(life)
    rows = sorted(world.load().scan().to_arrow().to_pylist(), key=lambda row: row["n"])
    assert [row["_kafka_metadata"] for row in rows] == [
        {"partition": 0, "offset": 0, "timestamp": -1}, {"partition": 0, "offset": 1, "timestamp": 5},
    ]  # fmt: skip
    assert [row["_kafka_key"] for row in rows] == [None, "k"]
    assert rows[0]["_kafka_header"] == [("h", None)]


async def test_a_table_that_had_no_row_is_made_by_its_first_one() -> None:
    world = World()
    world.registry.gone = {1}
    world.log.produce(0, [*good([1, 2]), BAD])
    life = world.life()
    await life.drain()
    assert life.table.main.table is None
    world.registry.gone = set()
    await redriven(life)
    world.check()
    assert world.rows() == [(0, 0), (0, 1)]
    assert life.table.main.progress.skipped == {DEAD_LETTER: 1}
    world.log.produce(0, good([3]))
    await life.round()
    await world.life().drain()
    world.check()


async def test_a_table_that_is_dropped_after_a_redrive_is_filled_from_the_log_again() -> None:
    """The dead-letter table no longer stands for all positions below its own."""
    world = World()
    world.registry.gone = {1}
    world.log.produce(0, [*good([1, 2]), BAD])
    life = world.life()
    await life.drain()
    world.registry.gone = set()
    await redriven(life)
    world.catalog.inner.drop_table(("default", TOPIC))
    world.committed_once = False  # disabled and enabled again
    await world.life().drain()
    world.check()
    assert world.rows() == [(0, 0), (0, 1)]


async def test_changes_become_rows_and_a_tombstone_stays_a_dead_letter() -> None:
    """Dead letters of a topic whose config is flatten_debezium only now."""
    world = World(convert_value_type="by_schema_id", convert_key_type="by_schema_id")
    world.registry.schemas = {3: json.dumps(ENVELOPE)}
    world.log.produce(0, [None, wire(3, ENVELOPE, {"after": {"n": 5}, "op": "c"})])
    life = await world.opened()
    await life.round()
    assert world.dead() == [(0, 0), (0, 1)]  # their keys have no schema
    world.configs["streamlake.table.convert.key.type"] = "string"
    world.configs["streamlake.table.transform.value.type"] = "flatten_debezium"
    life = await world.opened()
    redrive = await redriven(life)
    assert (redrive.counts.redriven, redrive.counts.still_dead) == (1, 1)
    assert (world.rows(), world.dead()) == ([(0, 1)], [(0, 0)])
    assert life.table.main.progress.skipped == {DEAD_LETTER: 1}
    (letter,) = letters(world)
    assert (letter["reason"], letter["error"][:12]) == ("invalid_envelope", "a tombstone,")


async def test_one_reason_alone() -> None:
    world = await with_dead_letters()
    before = letters(world)
    redrive = await redriven(await world.opened(), order_of("invalid_value"))
    assert (redrive.counts.redriven, redrive.counts.still_dead) == (0, 3)
    assert letters(world) == before
    assert (await redriven(await world.opened(), order_of("unknown_schema"))).counts.redriven == 9
    world.check()


def test_reasons_that_cannot_be_redriven_are_refused() -> None:
    assert order_of("").reasons == REDRIVABLE
    with pytest.raises(Invalid, match="'invalid_batch' cannot be told again from its dead letter: redrive invalid_v"):
        order_of("invalid_batch")
    with pytest.raises(Invalid, match="'nonsense' is no reason"):
        order_of("nonsense")


async def test_a_dead_letter_says_why_it_is_dead_now() -> None:
    world = await with_dead_letters(1)
    del world.registry.schemas[2]
    world.registry.schemas[2] = '{"type":"record","name":"Order","fields":[{"name":"n","type":"string"}]}'
    redrive = await redriven(await world.opened())
    world.check()
    assert (redrive.counts.redriven, redrive.counts.still_dead) == (0, 4)
    assert {row["reason"] for row in letters(world)} == {"invalid_value"}
    assert any("not a value of schema 2" in row["error"] for row in letters(world))


async def test_a_bad_batch_stays_one_dead_letter() -> None:
    world = World()
    world.log.produce(0, good([1]))
    world.log.garbage(0, 3)
    life = world.life()
    await life.drain()
    before = letters(world)
    await redriven(life)
    assert letters(world) == before


@pytest.mark.slow
@pytest.mark.parametrize("first_row", [False, True])
async def test_killed_at_each_step(first_row: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each call that blocks: reads, writes of files, commits. The next life finishes what was ordered."""
    monkeypatch.setattr(module, "STEP_BYTES", 1)  # a file a step
    for call in range(1, 200):
        if first_row:
            world = World()
            world.registry.gone = {1}
            world.log.produce(0, [*good([1, 2]), BAD])
            await world.life().drain()
            world.registry.gone = set()
        else:
            world = await with_dead_letters(2)
        life = await world.opened()
        world.executor.before = kill_at(call)
        died = True
        with contextlib.suppress(Killed):
            await redriven(life)
            died = False
        world.executor.before = None
        world.committed_once |= life.table.main.committed_once
        began = PROPERTY in world.load("__dlq").properties
        if not died:
            assert call > 20
            break
        after = await resumed(world)
        world.check()
        assert PROPERTY not in world.load("__dlq").properties
        if not began:  # the order was not durable, or all was done
            await redriven(after)
            world.check()
        assert after.table.main.progress.rows == len(world.rows())
        assert len(world.dead()) == (1 if first_row else 2)
        world.log.produce(0, good([1]))
        await after.round()
        world.check()
    else:
        raise AssertionError("a redrive has more calls than were tried")


@pytest.mark.parametrize("fault", ["lost", "timeout", "conflict"])
async def test_every_commit_may_leave_open_whether_it_landed(fault: str) -> None:
    for nth in range(4):
        world = await with_dead_letters(1)
        life = await world.opened()
        world.catalog.plan = [*[None] * nth, fault]
        await redriven(life)
        world.check()
        assert len(world.dead()) == 1


async def test_died_between_the_two_commits_what_is_there_only_leaves_the_dead_letters() -> None:
    world = await with_dead_letters(1)
    life = await world.opened()
    redrive = redrive_of(life)
    await redrive.begin()

    async def killed(*_: object, **__: object) -> None:
        raise Killed

    life.table.rewrite_dead_letters = killed  # type: ignore[method-assign]
    with pytest.raises(Killed):
        await redrive.step()
    assert len(world.rows()) + len(world.dead()) == len(world.log.data) + 3  # in both
    life = await world.opened()
    left = Redrive.resume(life.table, world.executor, world.budget)
    assert left is not None
    rows = world.load().metadata.current_snapshot_id
    await done(left)
    world.check()
    assert (left.counts.found, left.counts.redriven) == (3, 0)
    assert world.load().metadata.current_snapshot_id == rows


async def test_rows_that_came_to_the_head_after_the_look_make_it_look_again() -> None:
    """Whoever inserts rows between the look and the commit: the commit lands on the head that was looked at alone."""
    world = await with_dead_letters(1)
    life = await world.opened()
    redrive = redrive_of(life)
    await redrive.begin()
    original = module._there

    def looked(table: Any, records: Any) -> Any:
        found = original(table, records)
        by_hand = world.load()
        by_hand.append(by_hand.scan(limit=1).to_arrow())
        return found

    module._there, before = looked, module._there
    try:
        with pytest.raises(Conflict):
            await redrive.step()
    finally:
        module._there = before
    world.load()  # it has the row that somebody inserted, and none of the redrive
    assert len(world.dead()) == 4


async def test_a_dead_letter_file_that_somebody_rewrote_meanwhile_is_read_again() -> None:
    world = await with_dead_letters(2)
    life = await world.opened()
    redrive = redrive_of(life)
    await redrive.begin()
    table = world.load("__dlq")
    table.delete("offset = 3")  # pyiceberg rewrites files
    with pytest.raises(Conflict):
        await redrive.step()
    await resumed(world)
    assert len(world.rows()) == len(set(world.rows())) == 10
    assert world.dead() == [(0, 7)]


async def test_a_zombie_lands_nothing_of_its_redrive() -> None:
    world = await with_dead_letters()
    zombie = await world.opened()
    redrive = redrive_of(zombie)
    await redrive.begin()
    await resumed(world)
    with pytest.raises((Conflict, Fenced)):
        await done(redrive)
    world.check()
    assert len(world.dead()) == 3


async def test_settled_dead_letters_above_the_tables_position_are_left_alone() -> None:
    world = World()
    world.log.produce(0, good([1]))
    life = world.life()
    await life.drain()
    world.registry.gone = {2}
    world.log.produce(0, good([2], 2))

    async def killed(*_: object) -> None:
        raise Killed

    life.table._commit_main = killed  # type: ignore[method-assign]
    with pytest.raises(Killed):
        await life.round()
    world.registry.gone = set()
    life = await world.opened()  # the dead letter is settled, the main table does not account for it yet
    redrive = await redriven(life)
    assert redrive.counts.redriven == 0
    await life.drain()
    world.check()
    assert (await redriven(life)).counts.redriven == 1
    world.check()


async def test_a_copied_dead_letter_makes_one_row_and_added_ones_are_refused() -> None:
    world = await with_dead_letters(1)
    table = world.load("__dlq")
    copy = table.scan(row_filter="offset = 2").to_arrow()
    table.append(copy)
    await redriven(await world.opened(), order_of("unknown_schema"))
    assert len(world.rows()) == len(set(world.rows())) == 5
    assert world.dead() == [(0, 3)]


async def test_more_records_than_the_table_counts_as_dead_are_refused() -> None:
    """Somebody has put rows of their own there, for positions without a row: moved, they would break the account."""
    world = World()
    world.registry.gone = {2}
    world.log.abort(0, good([1, 2]))
    world.log.produce(0, [*good([1]), *good([2], 2)])
    life = world.life()
    await life.drain()
    table = world.load("__dlq")
    own = table.scan().to_arrow().to_pylist()[0]
    table.append(pa.Table.from_pylist([{**own, "offset": 0, "last_offset": 0}], table.schema().as_arrow()))
    world.registry.gone = set()
    with pytest.raises(Invalid, match="holds 2 records that can be rows now, but only 1 of its dead letters"):
        await redriven(await world.opened())
    assert world.rows() == [(0, 3)]


async def test_columns_that_somebody_added_to_the_dead_letters_are_kept() -> None:
    world = await with_dead_letters(1)
    with world.load("__dlq").update_schema() as update:
        update.add_column("ticket", StringType())
    await redriven(await world.opened())
    assert [row["ticket"] for row in letters(world)] == [None]
    world.check()


def test_an_order_that_nobody_can_read_is_told() -> None:
    assert msgspec.json.decode(msgspec.json.encode(Order(("invalid_key",))), type=Order) == Order(("invalid_key",))


async def test_the_order_is_read_back_or_refused() -> None:
    world = await with_dead_letters(1)
    life = await world.opened()
    await redrive_of(life, order_of("invalid_key")).begin()
    assert module.pending(world.load("__dlq")) == Order(("invalid_key",))
    with world.load("__dlq").transaction() as change:
        change.set_properties({PROPERTY: "{"})
    with pytest.raises(Invalid, match="cannot be read"):
        module.pending(world.load("__dlq"))
