from dataclasses import replace

import pytest

from streamlake.log.retention import apply_retention


async def four_batches(bench, **settings):
    """Ten offsets each, written at now + 0, 1, 2 and 3 s; runs of two batches."""
    partition = await bench.open(**settings)
    partition.stream.auto_durable = True
    for i in range(4):
        partition.append(bench.batch(10, at_ms=bench.clock.ms + 1000 * i))
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
    partition.append(bench.batch(10))
    partition.append(bench.batch(10))
    await apply_retention(partition, bench.clock.ms + 10**9)
    assert partition.log_start_offset == 40


async def test_records_without_a_timestamp_age_from_their_append(bench):
    partition = await bench.open(retention_ms=5000)
    partition.stream.auto_durable = True
    partition.append(bench.batch(10, at_ms=-1))
    assert await apply_retention(partition, bench.clock.ms + 5000) == 0
    assert await apply_retention(partition, bench.clock.ms + 5001) == 10


async def test_what_is_old_when_it_comes_goes_at_the_next_look(bench):
    """As in Kafka, which rolls a segment whose records have all expired. Who replays history sets retention.ms = -1."""
    partition = await bench.open(retention_ms=5000)
    partition.stream.auto_durable = True
    for _ in range(4):
        partition.append(bench.batch(10, at_ms=bench.clock.ms - 10**9))
    assert await apply_retention(partition, bench.clock.ms) == 40


async def test_what_is_old_stays_behind_what_is_not(bench):
    partition = await bench.open(retention_ms=5000)
    partition.stream.auto_durable = True
    for age_ms in (0, 10**9, 10**9, 10**9):
        partition.append(bench.batch(10, at_ms=bench.clock.ms - age_ms))
    assert await apply_retention(partition, bench.clock.ms) == 0
    assert await apply_retention(partition, bench.clock.ms + 5001) == 40


async def test_without_a_policy_nothing_goes(bench):
    partition, _ = await four_batches(bench, retention_ms=0, cleanup_policy="")
    assert await apply_retention(partition, bench.clock.ms + 10**9) == 0
    partition.settings = replace(partition.settings, retention_ms=0, cleanup_policy=" delete ")
    assert await apply_retention(partition, bench.clock.ms + 10**9) == 40
