import asyncio
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.log_bench import Bench, append, log_settings

from streamlake.log.manager import LogManager
from streamlake.log.retention import apply_retention, is_due


async def four_batches(bench, **settings):
    """Ten offsets each, written at now + 0, 1, 2 and 3 s; runs of two batches."""
    partition = await bench.open(**settings)
    partition.stream.auto_durable = True
    for i in range(4):
        append(partition, bench.batch(10, at_ms=bench.clock.ms + 1000 * i))
    return partition, len(bench.batch(10))


async def test_by_age(bench):
    partition, _ = await four_batches(bench, retention_ms=5000)
    for after_ms, start in ((6000, 0), (6001, 20), (8000, 20), (8001, 40)):
        await apply_retention(partition, bench.clock.ms + after_ms)
        assert partition.log_start_offset == start


async def test_by_size(bench):
    partition, size = await four_batches(bench, retention_ms=-1, retention_bytes=0)
    partition.settings = replace(partition.settings, retention_ms=-1, retention_bytes=2 * size + 1)
    assert await apply_retention(partition, bench.clock.ms) == 0
    partition.settings = replace(partition.settings, retention_ms=-1, retention_bytes=2 * size)
    assert await apply_retention(partition, bench.clock.ms) == 20
    assert partition.log_start_offset == 20


@pytest.mark.parametrize("settings", [{"retention_ms": -1}, {"retention_ms": 0, "cleanup_policy": "compact"}])
async def test_nothing_to_do(bench, settings):
    partition, _ = await four_batches(bench, **settings)
    assert await apply_retention(partition, bench.clock.ms + 10**9) == 0


async def test_never_beyond_a_hold(bench):
    partition, _ = await four_batches(bench, retention_ms=0)
    partition.hold("table", 25)
    partition.hold("mirror", 5)
    late = bench.clock.ms + 10**9
    await apply_retention(partition, late)
    assert partition.log_start_offset == 0
    partition.release("mirror")
    partition.release("never was")
    await apply_retention(partition, late)
    assert partition.log_start_offset == 20
    partition.hold("table", 40)
    await apply_retention(partition, late)
    assert partition.log_start_offset == 40


async def test_a_hold_set_while_retention_decides_wins(bench):
    """Hazard C12: a table is enabled at the very moment."""
    partition, _ = await four_batches(bench, retention_ms=0)
    partition.stream.before_answer = lambda: partition.hold("table", 3)
    await apply_retention(partition, bench.clock.ms + 10**9)
    assert partition.log_start_offset == 3


async def test_never_beyond_what_is_durable(bench):
    partition, _ = await four_batches(bench, retention_ms=0)
    partition.stream.auto_durable = False
    append(partition, bench.batch(10))
    append(partition, bench.batch(10))
    await apply_retention(partition, bench.clock.ms + 10**9)
    assert partition.log_start_offset == 40


async def test_records_without_a_timestamp_age_from_their_append(bench):
    partition = await bench.open(retention_ms=5000)
    partition.stream.auto_durable = True
    append(partition, bench.batch(10, at_ms=-1))
    assert await apply_retention(partition, bench.clock.ms + 5000) == 0
    assert await apply_retention(partition, bench.clock.ms + 5001) == 10


async def test_what_is_old_when_it_comes_goes_at_the_next_look(bench):
    """As in Kafka, which rolls a segment whose records have all expired. Who replays history sets retention.ms = -1."""
    partition = await bench.open(retention_ms=5000)
    partition.stream.auto_durable = True
    for _ in range(4):
        append(partition, bench.batch(10, at_ms=bench.clock.ms - 10**9))
    assert await apply_retention(partition, bench.clock.ms) == 40


async def test_what_is_old_stays_behind_what_is_not(bench):
    partition = await bench.open(retention_ms=5000)
    partition.stream.auto_durable = True
    for age_ms in (0, 10**9, 10**9, 10**9):
        append(partition, bench.batch(10, at_ms=bench.clock.ms - age_ms))
    assert await apply_retention(partition, bench.clock.ms) == 0
    assert await apply_retention(partition, bench.clock.ms + 5001) == 40


async def test_without_a_policy_nothing_goes(bench):
    partition, _ = await four_batches(bench, retention_ms=0, cleanup_policy="")
    assert await apply_retention(partition, bench.clock.ms + 10**9) == 0
    partition.settings = replace(partition.settings, retention_ms=0, cleanup_policy=" delete ")
    assert await apply_retention(partition, bench.clock.ms + 10**9) == 40


# -- looks that are left out -----------------------------------------------------------------------------------------


async def test_an_idle_partition_is_due_again_when_something_comes_of_age(bench):
    partition, _ = await four_batches(bench, retention_ms=5000)
    now_ms = bench.clock.ms
    assert is_due(partition, now_ms)
    await apply_retention(partition, now_ms)
    assert [is_due(partition, now_ms + after_ms) for after_ms in (-1, 0, 6000, 6001)] == [False, False, False, True]
    assert await apply_retention(partition, now_ms + 6001) == 20
    assert is_due(partition, now_ms + 6001), "there may be more"
    await apply_retention(partition, now_ms + 6001)
    assert [is_due(partition, now_ms + after_ms) for after_ms in (8000, 8001)] == [False, True]


async def test_a_partition_that_keeps_everything_is_never_due(bench):
    partition, _ = await four_batches(bench, retention_ms=-1)
    await apply_retention(partition, bench.clock.ms)
    assert not is_due(partition, 2**62)


@pytest.mark.parametrize(
    "change",
    [
        lambda partition, batch: setattr(partition, "settings", log_settings(retention_bytes=0, retention_ms=-1)),
        lambda partition, batch: append(partition, batch),  # not durable yet, and it counts for what is kept
        lambda partition, batch: partition.release("table"),
    ],
    ids=["settings", "size", "hold"],
)
async def test_a_partition_is_due_when_what_a_look_goes_by_has_changed(bench, change):
    partition, _ = await four_batches(bench, retention_ms=-1, retention_bytes=10_000)
    partition.stream.auto_durable = False
    partition.hold("table", 40)
    await apply_retention(partition, bench.clock.ms)
    assert not is_due(partition, bench.clock.ms)
    partition.hold("table", 40)
    assert not is_due(partition, bench.clock.ms)
    append(partition, bench.batch(10))
    partition.stream.make_durable()
    await apply_retention(partition, bench.clock.ms)
    assert not is_due(partition, bench.clock.ms)
    change(partition, bench.batch(10))
    assert is_due(partition, bench.clock.ms)


async def test_a_partition_is_due_when_its_start_was_moved(bench):
    """What was old behind what was not, goes now."""
    partition = await bench.open(retention_ms=5000)
    partition.stream.auto_durable = True
    for age_ms in (0, 10**9, 10**9):
        append(partition, bench.batch(10, at_ms=bench.clock.ms - age_ms))
    assert await apply_retention(partition, bench.clock.ms) == 0
    assert not is_due(partition, bench.clock.ms)
    await partition.move_start(10)
    assert is_due(partition, bench.clock.ms)


async def test_a_partition_is_due_when_a_producer_has_been_silent_for_long(bench):
    partition = await bench.open(producer_id_expiration_ms=1000)
    append(partition, bench.idempotent(0))
    await apply_retention(partition, bench.clock.ms)
    assert [is_due(partition, bench.clock.ms + after_ms) for after_ms in (999, 1000)] == [False, True]


async def test_a_hold_that_came_and_went_during_a_look_leaves_the_next_one_due(bench):
    partition, _ = await four_batches(bench, retention_ms=0)
    partition.stream.before_answer = lambda: partition.hold("table", 0)
    late_ms = bench.clock.ms + 10**6
    assert await apply_retention(partition, late_ms) == 0
    partition.release("table")
    assert is_due(partition, late_ms)


SETTINGS = [
    log_settings(retention_ms=retention_ms, retention_bytes=retention_bytes, producer_id_expiration_ms=60)
    for retention_ms in (-1, 0, 40)
    for retention_bytes in (-1, 0, 250)
] + [
    log_settings(cleanup_policy="compact", retention_ms=0),
    log_settings(producer_id_expiration_ms=10, retention_ms=80),
]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(-30, 60)),
        st.tuples(st.just("send"), st.integers(1, 3)),
        st.tuples(st.just("durable")),
        st.tuples(st.just("hold"), st.integers(0, 12)),
        st.tuples(st.just("release")),
        st.tuples(st.just("delete"), st.integers(0, 12)),
        st.tuples(st.just("configure"), st.sampled_from(SETTINGS)),
        st.tuples(st.just("held meanwhile"), st.integers(0, 12)),
        st.tuples(st.just("clock"), st.integers(-20, 60)),
    ),
    max_size=40,
)


@given(st.sampled_from(SETTINGS), STEPS)
@settings(max_examples=300)
def test_what_looks_only_when_due_deletes_what_a_look_at_everything_deletes(chosen, steps):
    asyncio.run(_look_beside_one_that_always_looks(Bench(), chosen, steps))


async def _look_beside_one_that_always_looks(bench, chosen, steps) -> None:
    """After each step."""
    manager = LogManager(bench.clock, bench.executor)
    lazy, eager = await bench.open(), await bench.open()
    lazy.settings = eager.settings = chosen
    sequence = {1: 0, 2: 0, 3: 0}
    for step, *arguments in (*steps, *[("clock", 30)] * 4):
        if step == "clock":
            bench.clock.ms += arguments[0]
        for partition in (lazy, eager):
            match step, *arguments:
                case "append", age_ms:
                    append(partition, bench.batch(1, at_ms=bench.clock.ms - age_ms))
                case "send", producer:
                    append(partition, bench.idempotent(sequence[producer], producer=producer))
                case "durable", *_:
                    partition.stream.make_durable()
                case "hold", offset:
                    partition.hold("table", offset)
                case "release", *_:
                    partition.release("table")
                case "delete", offset:
                    await partition.move_start(min(offset, partition.high_watermark))
                case "configure", chosen:
                    partition.settings = chosen
                case "held meanwhile", offset:
                    partition.stream.before_answer = lambda p=partition, to=offset: p.hold("other", to)
            if partition is eager or manager.is_due(partition):
                await manager.retain(partition)
            partition.stream.before_answer = lambda: None
            partition.release("other")
        if step == "send":
            sequence[arguments[0]] += 1
        assert lazy.log_start_offset == eager.log_start_offset
        assert list(lazy._producers.items()) == list(eager._producers.items())
