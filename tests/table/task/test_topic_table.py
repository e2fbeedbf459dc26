import asyncio
import contextlib
import itertools
import json
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.exceptions import BadRequestError
from pyiceberg.partitioning import PartitionField
from pyiceberg.table.update import AddPartitionSpecUpdate
from pyiceberg.transforms import BucketTransform
from support.table_records import record, wire
from support.table_world import BAD, TOPIC, Executor, Killed, Pause, World, good, value

from streamlake.catalogs.capabilities import Capabilities
from streamlake.core.errors import Conflict, Fenced, Invalid, OutcomeUnknown, Unavailable
from streamlake.table.commit import machine as commit_machine
from streamlake.table.rows import partition
from streamlake.table.task import topic_table


async def test_records_whose_type_the_catalog_cannot_hold_are_dead_letters() -> None:
    """As with every schema that a table cannot hold: the table goes on."""
    world = World(transform_value_type="none")
    world.capabilities = Capabilities(type_chars_max=300)
    optional = [{"name": f"field_{n}", "type": ["null", "long"]} for n in range(40)]
    fields = [{"name": "n", "type": "long"}, *optional]
    world.registry.schemas[3] = json.dumps({"type": "record", "name": "Order", "fields": fields})
    wide = value(2, schema_id=3) + b"\0" * len(optional)
    world.log.produce(0, [*good([1]), wide, *good([3])])
    await world.life().drain()
    world.check()
    assert (world.rows(), world.dead()) == ([(0, 0), (0, 2)], [(0, 1)])
    (row,) = world.load("__dlq").scan(selected_fields=("reason", "error")).to_arrow().to_pylist()
    assert row["reason"] == "incompatible_schema"
    assert "its type as text has" in row["error"]


async def test_what_the_catalog_does_not_keep_is_in_the_status() -> None:
    world = World(partition_by="[day(missing)]")
    world.capabilities = Capabilities(keeps_tags=False, keeps_history=False)
    world.log.produce(0, good([1]))
    life = world.life()
    await life.drain()
    assert life.table.note == (
        "not partitioned by day(missing): the table has no column missing; the catalog keeps no tags and no history of "
        "the table, so there is no time travel; its progress is kept by the table property streamlake.progress"
    )


async def test_rows_dead_letters_and_the_account() -> None:
    world = World(2)
    world.log.produce(0, [*good(range(5)), BAD, None])
    world.log.abort(0, good([1, 2]))
    world.log.garbage(1, 3)
    life = world.life()
    await life.drain()
    world.check()
    progress = life.table.main.progress
    assert progress.next == (10, 3)
    assert progress.skipped == {"aborted": 2, "control": 1, "dead_letter": 4}
    assert progress.rows == len(world.rows()) == 6
    reasons = world.load("__dlq").scan().to_arrow().sort_by("partition")["reason"].to_pylist()
    assert reasons == ["invalid_value", "invalid_batch"]


ENVELOPE = json.dumps(record(
    ("before", ["null", record(("n", "long"), name="Value")]), ("after", ["null", "Value"]), ("op", "string"),
))  # fmt: skip


def change(op: str, before: int | None, after: int | None) -> bytes:
    images = {"before": None if before is None else {"n": before}, "after": None if after is None else {"n": after}}
    return wire(3, json.loads(ENVELOPE), {**images, "op": op})


async def test_tombstones_of_changes_leave_no_row_and_are_accounted_for() -> None:
    world = World(transform_value_type="flatten_debezium")
    world.registry.schemas = {3: ENVELOPE}
    world.log.produce(0, [None, None])
    life = world.life()
    await life.drain()  # nothing that would make a table
    assert (life.table.main.table, life.table.reached.skipped) == (None, {"tombstone": 2})
    world.log.produce(
        0, [change("c", None, 1), change("u", None, None), change("d", 1, None), None, change("c", None, 2)]
    )
    await life.drain()
    assert (world.rows(), world.dead()) == ([(0, 2), (0, 4), (0, 6)], [(0, 3)])
    progress = life.table.main.progress
    assert (progress.next, progress.skipped) == ((7,), {"dead_letter": 1, "tombstone": 3})
    assert progress.rows == 3
    rows = world.load().scan().to_arrow().sort_by("n").to_pylist()
    assert [(row["n"], row["_op"]) for row in rows] == [(1, "c"), (1, "d"), (2, "c")]
    again = await world.opened()  # a new worker goes on where this one was
    assert again.table.reached.next == (7,)
    world.log.produce(0, [None])
    assert not await again.round()  # no commit for a tombstone alone


async def test_both_tables_exist_from_the_start_and_the_second_is_empty() -> None:
    world = World()
    await world.life().table.open()
    assert world.load("__dlq").scan().to_arrow().num_rows == 0


async def test_rows_of_many_partitions_share_a_file() -> None:
    world = World(8)
    for number in range(8):
        world.log.produce(number, good([number]))
    await world.life().drain()
    assert len(list(world.load().scan().plan_files())) == 1


async def test_the_table_is_partitioned_as_configured() -> None:
    world = World(partition_by="[bucket(n, 4)]")
    world.log.produce(0, good(range(50)))
    await world.life().drain()
    spec = world.load().spec()
    assert spec.fields == (PartitionField(1, 1000, BucketTransform(4), "n_bucket_4"),)
    assert len(list(world.load().scan().plan_files())) == 4
    assert len(list(world.load().scan("n = 7").plan_files())) == 1
    world.check()


async def test_a_partition_column_that_is_not_there_yet_joins_the_spec_when_it_comes() -> None:
    world = World(partition_by="[bucket(note, 4), day(missing)]")
    world.log.produce(0, good(range(5)))
    life = world.life()
    await life.drain()
    assert world.load().spec().is_unpartitioned()
    assert life.table.note == (
        "not partitioned by bucket(note, 4): the table has no column note; "
        "not partitioned by day(missing): the table has no column missing"
    )
    world.log.produce(0, good(range(5), 2))
    await life.round()
    assert [field.name for field in world.load().spec().fields] == ["note_bucket_4"]
    assert life.table.note == "not partitioned by day(missing): the table has no column missing"
    await world.life().drain()
    world.log.produce(0, [*good([6], 2), *good([7])])
    await world.life().drain()
    world.check()
    assert world.load().scan("n = 3").to_arrow().num_rows == 2


async def test_a_config_that_changes_is_the_spec_of_the_next_rows() -> None:
    world = World(partition_by="[n]")
    world.log.produce(0, good(range(3)))
    await world.life().drain()
    world.configs["streamlake.table.partition.by"] = "[bucket(n, 2), day(n)]"
    life = world.life()
    await life.drain()
    assert [field.name for field in world.load().spec().fields] == ["n"]  # there were no rows
    assert life.table.note.startswith("not partitioned by day(n): column n is long")
    world.log.produce(0, good(range(3)))
    await life.drain()
    table = world.load()
    assert [field.name for field in table.spec().fields] == ["n_bucket_2"]
    assert sorted(task.file.spec_id for task in table.scan("n = 1").plan_files()) == [0, 1]
    assert table.scan("n = 1").to_arrow().num_rows == 2
    world.check()


async def test_a_catalog_that_takes_no_other_spec_is_named_and_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit_machine, "DELAY_FIRST_S", 0.0)
    world = World(partition_by="[n]")
    world.log.produce(0, good(range(3)))
    await world.life().drain()
    world.configs["streamlake.table.partition.by"] = "[bucket(n, 2)]"
    world.log.produce(0, good(range(3)))
    commit = world.catalog.inner.commit_table

    def refusing(table: Any, requirements: Any, updates: Any) -> Any:
        if any(isinstance(update, AddPartitionSpecUpdate) for update in updates):
            raise BadRequestError("this catalog cannot change partitions")
        return commit(table, requirements, updates)

    monkeypatch.setattr(world.catalog.inner, "commit_table", refusing)
    with pytest.raises(OutcomeUnknown, match="this catalog cannot change partitions"):
        await world.life().drain()
    assert len(world.rows()) == 3
    world.configs["streamlake.table.partition.by"] = "[n]"  # whoever takes the config back has all rows
    await world.life().drain()
    assert len(world.rows()) == 6
    world.check()


async def test_rows_of_too_many_partitions_are_written_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition, "PARTITIONS_MAX", 3)
    world = World(partition_by="[n]")
    life = world.life()
    for numbers, note in ((range(9), "9 partitions in one commit, more than 3"), ([1, 2], ""), (range(5), "5 part")):
        world.log.produce(0, good(numbers))
        await life.drain()
        assert life.table.note.startswith(note) and bool(note) == bool(life.table.note)
    table = world.load()
    assert [spec.is_unpartitioned() for spec in table.specs().values()] == [False, True]
    assert not table.spec().is_unpartitioned()
    assert [table.scan(f"n = {n}").to_arrow().num_rows for n in (1, 4, 8)] == [3, 2, 1]
    world.check()


async def test_numbers_too_low_to_be_truncated_are_written_without_partitions() -> None:
    """The partition of the lowest numbers would be below their type; wrapped around, no filter would find them."""
    world = World(partition_by="[truncate(n, 10)]")
    life = world.life()
    for number, note in ((-(2**63), "truncate[10] of a number near -9223372036854775808"), (-7, "")):
        world.log.produce(0, good([number]))
        await life.drain()
        assert life.table.note.startswith(note) and bool(note) == bool(life.table.note)
    table = world.load()
    assert [table.scan(f).to_arrow().num_rows for f in ("n < -7", f"n = {-(2**63)}", "n = -7", "n < 0")] == [1, 1, 1, 2]
    assert len(list(table.scan("n > 20").plan_files())) == 0
    world.check()


async def test_dead_letters_alone_are_accounted_for() -> None:
    """No row, so no table yet: but the lag ends, retention may follow, and the next life does not read them again."""
    world = World(2)
    world.log.produce(0, [BAD] * 3)
    world.log.abort(1, good([1, 2]))
    world.log.garbage(1, 2)
    first = world.life()
    await first.drain()
    assert first.table.held.next == (3, 5)
    assert first.table.held.skipped == {"aborted": 2, "control": 1, "dead_letter": 5}
    assert first.table.note == (
        "there is no table yet, as no record became a row; dead letters in default.orders__dlq: 5"
    )
    await first.table.confirm()
    assert first.table.seen.next == (3, 5)
    world.log.delete_before(0, 3)  # retention
    life = world.life()
    await life.drain()
    assert life.table.reached.next == (3, 5)
    world.log.produce(0, [*good([1, 2]), BAD])
    await life.drain()
    progress = life.table.main.progress
    assert (progress.next, progress.skipped) == ((6, 5), {"aborted": 2, "control": 1, "dead_letter": 6})
    assert progress.rows == len(world.rows()) == 2
    await world.life().drain()
    world.check()


@pytest.mark.parametrize("dies_in", ["_create", "_commit"])
async def test_the_first_row_after_dead_letters_survives_a_crash(dies_in: str) -> None:
    world = World()
    world.log.produce(0, [BAD, BAD])
    await world.life().drain()
    world.log.produce(0, [*good([1]), BAD, *good([2])])
    for nth in range(1, 5):
        life = world.life()
        calls = itertools.count(1)

        def die(name: str, nth: int = nth, calls: "itertools.count[int]" = calls) -> None:
            if name == dies_in and next(calls) == nth:
                world.executor.before = None
                raise Killed

        world.executor.before = die
        with contextlib.suppress(Killed):
            await life.drain()
        world.executor.before = None
    life = world.life()
    await life.drain()
    world.check()
    assert life.table.main.progress.skipped == {"dead_letter": 3}


async def test_dead_letters_of_a_table_that_was_dropped_do_not_stand_for_its_rows() -> None:
    """The dead-letter table stays behind, and says that there were rows: all is read again."""
    world = World()
    world.log.produce(0, [*good([1]), BAD, *good([2])])
    await world.life().drain()
    world.catalog.inner.drop_table(("default", TOPIC))
    world.committed_once = False  # disabled and enabled again
    await world.life().drain()
    world.check()
    assert len(world.rows()) == 2


async def test_an_older_committer_that_makes_the_table_late_adds_no_row() -> None:
    """It could not be fenced by the table itself, which was not there."""
    world = World()
    world.log.produce(0, good([1]))
    old_executor = Executor()
    old = world.life(old_executor)
    await old.table.open()
    pause = Pause(old_executor, "_create")
    zombie = asyncio.create_task(old.round())
    await pause.reached.wait()
    new = world.life()
    await new.table.open()
    assert new.table.main.table is None
    pause.go.set()
    with pytest.raises(Fenced):
        await zombie
    assert world.rows() == []
    await new.round()
    world.check()


async def test_the_schema_grows_in_the_commit_of_its_first_row() -> None:
    world = World()
    world.log.produce(0, good([1]))
    life = world.life()
    await life.drain()
    world.log.produce(0, good([2], 2))
    await life.round()
    world.check()
    table = world.load()
    assert "note" in table.schema().column_names
    assert table.current_snapshot().schema_id == table.schema().schema_id


async def test_the_field_map_is_there_from_the_first_row_on() -> None:
    world = World()
    world.log.produce(0, good([1]))
    await world.life().drain()
    assert '"value/n":1' in world.load().properties["streamlake.fields"]


@pytest.mark.parametrize(
    ("tolerance", "values", "gone", "stops"),
    [
        ("none", [BAD], set(), "offset 1: invalid_value"),
        ("none", good([1]), {1}, "offset 0: unknown_schema"),
        ("invalid_data", [BAD], set(), None),
        ("invalid_data", good([2], 2), {2}, "offset 1: unknown_schema"),
        ("all", good([2], 2), {2}, None),
    ],
)
async def test_tolerance(tolerance: str, values: list[bytes | None], gone: set[int], stops: str | None) -> None:
    world = World(errors_tolerance=tolerance)
    world.log.produce(0, [*good([1]), *values])
    world.registry.gone = gone
    life = world.life()
    if stops is None:
        await life.drain()
        assert world.dead() == [(0, 1)]
        world.check()
        return
    with pytest.raises(Invalid, match=stops):
        await life.drain()
    assert world.rows() == world.dead() == []


async def test_no_tolerance_makes_no_dead_letter_table_but_honours_an_old_one() -> None:
    world = World(errors_tolerance="none")
    world.log.produce(0, good([1]))
    await world.life().drain()
    assert not world.catalog.inner.table_exists(("default", TOPIC + "__dlq"))
    with pytest.raises(Invalid, match="the batch at partition 0 offset 1"):
        world.log.garbage(0, 2)
        await world.life().drain()


async def test_a_registry_that_is_down_judges_no_record() -> None:
    world = World()
    world.log.produce(0, good([1]))
    world.registry.down = True
    life = world.life()
    with pytest.raises(Unavailable):
        await life.drain()
    world.registry.down = False
    await life.drain()
    assert world.dead() == []
    world.check()


async def test_only_dead_letters_so_far_make_no_main_table_and_are_not_decided_twice() -> None:
    world = World()
    world.log.produce(0, [BAD, BAD])
    await world.life().drain()
    assert world.rows() == []
    await world.life().drain()
    assert world.dead() == [(0, 0), (0, 1)]
    world.log.produce(0, good([1]))
    await world.life().drain()
    world.check()


async def test_positions_without_rows_wait_in_memory_for_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.log.produce(0, good([1]))
    life = world.life()
    await life.drain()
    commits = life.table.main.commits
    world.log.abort(0, good([1, 2]))
    assert not await life.round()
    assert (life.table.reached.position(0), life.table.main.progress.position(0)) == (4, 1)
    world.clock.ms += topic_table.EMPTY_MS_MAX
    world.log.abort(0, good([1, 2]))
    assert await life.round()
    assert life.table.main.progress.next == (7,)
    monkeypatch.setattr(topic_table, "EMPTY_POSITIONS_MAX", 3)
    world.log.abort(0, good([1, 2]))
    assert await life.round()
    assert life.table.main.commits == commits + 2
    world.check()


async def test_rows_after_positions_without_rows_bring_them_along() -> None:
    world = World()
    life = await world.opened()
    world.log.abort(0, good([1, 2]))
    await life.round()
    world.log.produce(0, good([1]))
    await life.round()
    assert life.table.main.progress.skipped == {"aborted": 2, "control": 1}
    assert life.table.main.progress.next == (4,)
    world.check()


async def test_a_round_that_does_not_add_up_is_never_committed() -> None:
    world = World()
    life = await world.opened()
    world.log.produce(0, good(range(5)))
    gathered = await life.gatherer.gather(life.table.reached, 0.0)
    gathered.fetched = [gathered.fetched[0].slice(1)]
    with pytest.raises(AssertionError, match="nothing was committed"):
        await life.table.commit(gathered)
    assert world.rows() == []


async def test_somebodys_table_of_the_dead_letters_name_is_refused() -> None:
    world = World()
    world.catalog.inner.create_namespace("default")
    world.catalog.inner.create_table(("default", TOPIC + "__dlq"), schema=pa.schema([("a", pa.int64())]))
    with pytest.raises(Invalid, match="does not have the columns of a dead-letter table"):
        await world.life().table.open()


async def test_somebodys_table_with_rows_is_continued() -> None:
    world = World()
    world.catalog.inner.create_namespace("default")
    rows = pa.table({"n": pa.array([1, 2], pa.int64())})
    world.catalog.inner.create_table(("default", TOPIC), schema=rows.schema).append(rows)
    world.log.produce(0, good([3]))
    await world.life().drain()
    assert sorted(world.load().scan().to_arrow()["n"].to_pylist()) == [1, 2, 3]


async def test_a_change_by_others_does_not_disturb_a_claim_but_a_newer_claim_fences() -> None:
    world = World()
    world.log.produce(0, good([1]))
    await world.life().drain()
    life = world.life()
    original = world.catalog.commit_table

    def other_first(table: Any, *args: object) -> object:
        if table.name() != ("default", TOPIC):
            return original(table, *args)
        world.catalog.commit_table = original
        with world.load().update_schema() as update:
            update.add_column("more", world.load().schema().find_type("n"))
        return original(table, *args)

    world.catalog.commit_table = other_first
    await life.table.open()
    assert life.table.main.claimed
    world.log.produce(0, good([2]))
    gathered = await life.gatherer.gather(life.table.reached, 0.0)
    await world.life().table.open()
    with pytest.raises(Fenced):
        await life.table.commit(gathered)


async def rolled_back(world: World, suffix: str, snapshot_id: int) -> None:
    world.load(suffix).manage_snapshots().rollback_to_snapshot(snapshot_id).commit()


@pytest.mark.parametrize(("suffix", "values"), [("", good(range(5))), ("__dlq", [BAD] * 5)])
async def test_a_rollback_right_after_a_commit_is_filled_up_again(suffix: str, values: list[bytes | None]) -> None:
    """The look that confirms a commit finds it taken back: going on from there would leave it out for ever."""
    world = World()
    life = await world.opened()
    world.log.produce(0, values)
    await life.round()
    first = world.load(suffix).current_snapshot().snapshot_id
    world.log.produce(0, values)
    await life.round()
    await rolled_back(world, suffix, first)
    with pytest.raises(Conflict, match="no longer shows"):
        await life.table.confirm()
    world.log.produce(0, [*values, *good([9])])
    await life.drain()
    world.check()


async def test_a_rollback_of_the_dead_letters_before_the_first_row_is_filled_up_again() -> None:
    world = World()
    life = await world.opened()
    world.log.produce(0, [BAD] * 5)
    await life.round()
    first = world.load("__dlq").current_snapshot().snapshot_id
    world.log.produce(0, [BAD] * 5)
    await life.round()
    await life.table.confirm()
    await rolled_back(world, "__dlq", first)
    world.log.produce(0, good([1]))
    with pytest.raises(Conflict, match="no longer shows"):
        await life.round()
    await life.drain()
    world.check()


async def test_what_is_not_tolerated_is_looked_at_again_when_the_table_was_made_meanwhile() -> None:
    world = World(errors_tolerance="none")
    life = await world.opened()
    world.log.produce(0, good([1]))
    by_hand = pa.table({"n": ["text"]})
    world.catalog.inner.create_namespace_if_not_exists(("default",))
    world.catalog.inner.create_table(("default", TOPIC), schema=by_hand.schema).append(by_hand)
    with pytest.raises(Invalid, match="incompatible_schema"):
        await life.round()


@pytest.mark.parametrize(("by", "name"), [("[N]", "n"), ("[bucket(N, 2)]", "n_bucket_2")])
async def test_a_partition_in_another_case_is_of_the_column(by: str, name: str) -> None:
    world = World(partition_by=by)
    world.log.produce(0, good([1, 2]))
    await world.life().drain()
    assert [field.name for field in world.load().spec().fields] == [name]
    assert [field.name for field in world.load().schema().fields] == ["n", "_kafka"]
    assert sorted(world.load().scan().to_arrow()["n"].to_pylist()) == [1, 2]
