import pytest

from streamlake.cluster.store.table_progress import PartitionProgress, Reported, TableProgress
from streamlake.core.errors import Fenced

ENABLE = "streamlake.table.enable"


@pytest.fixture
async def topics(cluster):
    return await cluster.topics()


@pytest.fixture
async def topic(topics):
    return await topics.create("orders", 2, {ENABLE: "true"})


@pytest.fixture
def progress(cluster) -> TableProgress:
    return TableProgress(cluster.database, cluster.identity)


async def test_a_new_table_holds_everything_and_has_committed_nothing(progress, topic, clock) -> None:
    assert await progress.load() == [
        PartitionProgress(topic.id, index, 0, 0, committed_once=False, updated_ms=clock.now_ms(), incarnation=1)
        for index in (0, 1)
    ]


async def test_progress_moves_forward_only(progress, topic) -> None:
    await progress.advance(topic.id, 1, {0: Reported(10, 5), 1: Reported(3, 3)}, committed_once=True, now_ms=7)
    await progress.advance(topic.id, 1, {0: Reported(8, 9), 5: Reported(1, 1)}, committed_once=False, now_ms=8)
    await progress.advance(topic.id, 1, {}, committed_once=False, now_ms=9)
    assert await progress.load() == [
        PartitionProgress(topic.id, 0, 9, 10, committed_once=True, updated_ms=8, incarnation=1),
        PartitionProgress(topic.id, 1, 3, 3, committed_once=True, updated_ms=7, incarnation=1),
    ]


async def test_a_report_before_the_first_commit_does_not_claim_one(progress, topic) -> None:
    await progress.advance(topic.id, 1, {0: Reported(0, 0)}, committed_once=False, now_ms=7)
    assert not any(row.committed_once for row in await progress.load())


async def test_a_late_report_of_a_table_that_was_switched_off_holds_nothing(progress, topics, topic) -> None:
    await progress.advance(topic.id, 1, {0: Reported(10, 10)}, committed_once=True, now_ms=7)
    await topics.alter_configs("orders", {ENABLE: "false"})
    await progress.advance(topic.id, 1, {0: Reported(20, 20)}, committed_once=True, now_ms=8)
    first, _ = await progress.load()
    assert (first.hold_offset, first.committed_offset, first.committed_once) == (None, 20, True)
    # Switched on again: a table that was dropped meanwhile is built anew, one that exists tells its progress itself.
    await topics.alter_configs("orders", {ENABLE: "true"})
    first, _ = await progress.load()
    assert (first.hold_offset, first.committed_offset, first.committed_once) == (0, 0, False)


async def test_a_report_of_a_deleted_topic_is_ignored(progress, topics, topic) -> None:
    await topics.delete("orders")
    await progress.advance(topic.id, 1, {0: Reported(10, 10)}, committed_once=True, now_ms=7)
    assert await progress.load() == []


async def test_committer_epochs_grow_for_ever(progress, cluster) -> None:
    epochs = [await progress.next_committer_epoch() for _ in range(2)]
    successor = TableProgress(cluster.database, await cluster.register())
    assert [*epochs, await successor.next_committer_epoch()] == [1, 2, 3]


async def test_a_zombie_changes_nothing(progress, topic, cluster) -> None:
    await cluster.register()
    before = await cluster.dump()
    with pytest.raises(Fenced):
        await progress.advance(topic.id, 1, {0: Reported(10, 10)}, committed_once=True, now_ms=7)
    with pytest.raises(Fenced):
        await progress.next_committer_epoch()
    assert await cluster.dump() == before
