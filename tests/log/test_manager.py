import asyncio
from uuid import UUID

import pytest
from support.fake_stream import FakeStream
from support.log_bench import append, log_settings

from streamlake.core.errors import Closed, Corrupt, Exists, Unavailable
from streamlake.log.manager import LogManager, Opening
from streamlake.log.partition import Partition

A, B = UUID(int=1), UUID(int=2)


@pytest.fixture
def manager(bench) -> LogManager:
    return LogManager(bench.clock, bench.executor)


def opening(topic: UUID, index: int, **settings) -> Opening:
    stream = FakeStream(stream_id=10 * topic.int + index)
    stream.auto_durable = True
    return Opening(stream, topic, index, log_settings(**settings))


async def test_open_and_find(manager):
    opened = await manager.open([opening(A, 0), opening(A, 1), opening(B, 0)])
    assert [(p.topic_id, p.index) for p in opened] == [(A, 0), (A, 1), (B, 0)]
    assert manager.get(A, 1) is opened[1]
    assert manager.get(B, 1) is None
    assert (len(manager), list(manager)) == (3, opened)


async def test_one_that_cannot_be_read_harms_no_other(manager):
    bad = opening(A, 1)
    bad.stream.checkpoint = b"nonsense"
    results = await manager.open([opening(A, 0), bad, opening(A, 0)])
    assert isinstance(results[0], Partition)
    assert isinstance(results[1], Corrupt)
    assert isinstance(results[2], Exists)
    assert (manager.get(A, 0), manager.get(A, 1)) == (results[0], None)


async def test_replays_are_bounded(manager, bench, monkeypatch):
    monkeypatch.setattr("streamlake.log.manager.OPENING_MAX", 3)
    running, most = 0, 0

    async def slow_open(*_):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        raise Unavailable("later")

    monkeypatch.setattr(Partition, "open", slow_open)
    assert len(await manager.open([opening(A, i) for i in range(10)])) == 10
    assert most == 3


async def test_close(manager, bench):
    (first, second, other) = await manager.open([opening(A, 0), opening(A, 1), opening(B, 0)])
    manager.close(A, 0)
    manager.close(A, 0)
    with pytest.raises(Closed):
        append(first, bench.batch())
    assert manager.close_topic(A) == [second.stream.stream_id]
    assert list(manager) == [other]
    manager.close_all()
    assert len(manager) == 0
    with pytest.raises(Closed):
        append(other, bench.batch())


async def test_a_closed_partition_still_gives_its_checkpoint(manager, bench):
    """The last upload of a stream comes after its partition was closed."""
    (partition,) = await manager.open([opening(A, 0)])
    append(partition, bench.idempotent(0))
    manager.close(A, 0)
    partition.stream.upload()
    again = await bench.open(partition.stream.reopen())
    assert append(again, bench.idempotent(0)).appended_bytes == 0


async def test_retention_runs_over_all_and_survives_a_failure(manager, bench):
    opened = await manager.open([opening(A, i, retention_ms=0) for i in range(3)])
    for partition in opened:
        append(partition, bench.idempotent(0, 10))

    async def failing(*_):
        raise Unavailable("the metadata store is away")

    opened[1].stream.retention_point = failing
    bench.clock.ms += 2 * 24 * 3_600_000
    for partition in manager:
        await manager.retain(partition)
    assert [p.log_start_offset for p in opened] == [10, 0, 10]
    assert (manager.offsets_expired, manager.retention_failures, manager.producers_expired) == (20, 1, 3)
