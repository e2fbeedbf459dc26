"""Partitions follow their topics: opened, configured, held for tables, closed; and one that is sick harms no other."""

import asyncio
from typing import Any

import pytest
from support.wait import DEADLINE_S, until

from streamlake.broker import ownership as module
from streamlake.broker.ownership import TABLE_HOLD, Partitions
from streamlake.cluster.store.table_progress import Reported
from streamlake.core.errors import Closed, Corrupt, NotFound, Unavailable
from streamlake.log.manager import Opening
from streamlake.log.partition import Partition

DAY_MS = 24 * 3_600_000


async def test_a_topic_can_be_used_when_it_was_created(site) -> None:
    life = await site.start()
    topic = await life.create("t", partitions=3)
    assert len(life.logs) == 3
    for index in range(3):
        assert await life.append(life.logs.get(topic.id, index)) == 1


async def test_all_topics_are_open_after_a_restart(site) -> None:
    life = await site.start()
    topic = await life.create("t", partitions=2, max_message_bytes="500")
    await life.append(life.logs.get(topic.id, 1), count=3)
    await life.stop()
    life = await site.start()
    partition = life.logs.get(topic.id, 1)
    assert (partition.high_watermark, partition.settings.max_message_bytes) == (3, 500)
    assert partition.leader_epoch == 1, "each open is a new epoch"


async def test_new_configs_are_in_force_when_they_were_set(site) -> None:
    life = await site.start()
    topic = await life.create("t")
    partition = life.logs.get(topic.id, 0)
    await life.topics.alter_configs("t", {"max.message.bytes": "77"})
    assert partition.settings.max_message_bytes == 77
    await life.topics.alter_configs("t", {}, ["max.message.bytes"])
    await life.configs.alter(None, {"message.max.bytes": "88"})
    assert partition.settings.max_message_bytes == 88
    await life.configs.alter(None, {"producer.id.expiration.ms": "5000"})
    assert partition.settings.producer_id_expiration_ms == 5000
    assert life.logs.get(topic.id, 0) is partition, "nobody was thrown out"


async def test_a_topic_that_grows(site) -> None:
    life = await site.start()
    topic = await life.create("t")
    first = life.logs.get(topic.id, 0)
    await life.topics.add_partitions("t", 3)
    assert life.logs.get(topic.id, 0) is first
    assert await life.append(life.logs.get(topic.id, 2)) == 1


async def test_a_topic_that_is_deleted(site) -> None:
    life = await site.start()
    topic, other = await life.create("t", partitions=2), await life.create("other")
    partition = life.logs.get(topic.id, 0)
    await life.append(partition)
    await life.topics.delete("t")
    assert life.logs.get(topic.id, 0) is None and len(life.logs) == 1
    with pytest.raises(Closed):
        await life.append(partition)
    again = await life.create("t")
    assert life.logs.get(again.id, 0).high_watermark == 0
    assert await life.append(life.logs.get(other.id, 0)) == 1


# -- a partition that cannot be opened -------------------------------------------------------------------------------


class SickStreams:
    """Makes opening of some streams' logs fail."""

    def __init__(self, life, error: Exception, *stream_ids: int) -> None:
        self.error, self.stream_ids, self.tries = error, set(stream_ids), 0
        self._open = life.logs.open
        life.logs.open = self.open

    async def open(self, openings: list[Opening]):
        sick = [o for o in openings if o.stream.stream_id in self.stream_ids]
        self.tries += len(sick)
        results = iter(await self._open([o for o in openings if o not in sick]))
        return [self.error if o in sick else next(results) for o in openings]


async def test_a_sick_partition_harms_no_other_and_is_counted(site) -> None:
    life = await site.start()
    topic = await life.create("t", partitions=3)
    await life.stop()
    life = await site.start()
    life.logs.close_all()
    SickStreams(life, Corrupt("damaged"), topic.partitions[1].stream_id)
    await life.topics.alter_configs("t", {"retention.ms": "5"})
    assert life.logs.get(topic.id, 1) is None
    assert await life.append(life.logs.get(topic.id, 2)) == 1
    assert life.partitions.unopened == 1
    await life.create("another")
    assert life.partitions.unopened == 1, "a healthy topic does not make a sick one well"
    await life.topics.delete("t")
    assert life.partitions.unopened == 0


async def test_a_partition_that_could_not_be_read_is_opened_later(site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its object store was away for a moment: that must not need a restart."""
    monkeypatch.setattr(module, "REOPEN_MAX_S", 0.001)
    life = await site.start()
    topic = await life.create("t", partitions=2)
    life.logs.close_all()
    sick = SickStreams(life, Unavailable("the store is away"), topic.partitions[0].stream_id)
    await life.topics.alter_configs("t", {"retention.ms": "5"})
    assert life.partitions.unopened == 1 and life.logs.get(topic.id, 1)
    await until(lambda: sick.tries > 2)
    sick.stream_ids.clear()
    await until(lambda: life.partitions.unopened == 0)
    assert life.logs.get(topic.id, 0) is not None


async def test_a_damaged_partition_is_not_tried_again_and_again(site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each try is a new leader epoch and a line in the log, and cannot help."""
    monkeypatch.setattr(module, "REOPEN_MAX_S", 0.001)
    life = await site.start()
    topic = await life.create("t")
    life.logs.close_all()
    sick = SickStreams(life, Corrupt("damaged"), topic.partitions[0].stream_id)
    await life.topics.alter_configs("t", {"retention.ms": "5"})
    await asyncio.sleep(0.05)
    assert sick.tries == 1


async def test_a_topic_that_is_deleted_while_others_are_opened(site, monkeypatch: pytest.MonkeyPatch) -> None:
    life = await site.start()
    doomed, other = await life.create("doomed"), await life.create("other", partitions=2)
    life.logs.close_all()
    opened, gone = life.streams.open, doomed.partitions[0].stream_id

    async def without_the_doomed(stream_ids):
        healthy = iter(await opened([i for i in stream_ids if i != gone]))
        return [NotFound("no such stream") if i == gone else next(healthy) for i in stream_ids]

    monkeypatch.setattr(life.streams, "open", without_the_doomed)
    await life.configs.alter(None, {"log.retention.ms": "5"})
    assert [life.logs.get(other.id, index) is not None for index in (0, 1)] == [True, True]


async def test_while_metadata_is_away_nobody_is_kept_waiting(site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REOPEN_MAX_S", 0.001)
    life = await site.start()
    topic = await life.create("t")
    life.logs.close_all()
    healthy, tries = life.streams.open, 0

    async def away(_stream_ids):
        nonlocal tries
        tries += 1
        raise Unavailable("no metadata store")

    monkeypatch.setattr(life.streams, "open", away)
    await asyncio.wait_for(life.topics.alter_configs("t", {"retention.ms": "5"}), DEADLINE_S)
    assert life.logs.get(topic.id, 0) is None
    await until(lambda: tries > 2)
    life.streams.open = healthy
    await until(lambda: life.logs.get(topic.id, 0) is not None)


# -- partitions that move ----------------------------------------------------------------------------------------------


def has(life, topic, index: int = 0):
    return lambda: life.logs.get(topic.id, index) is not None


def lacks(life, topic, index: int = 0):
    return lambda: life.logs.get(topic.id, index) is None


async def test_a_partition_moves_with_all_its_records_and_comes_back(site) -> None:
    one, two = await site.start(), await site.start(node=1)
    topic = await one.create("t", partitions=2)
    left = one.logs.get(topic.id, 0)
    await one.append(left, count=3)
    await site.move(topic, 0, 1)
    await until(has(two, topic))
    moved = two.logs.get(topic.id, 0)
    assert (moved.high_watermark, moved.leader_epoch) == (3, 1)
    with pytest.raises(Closed):
        await one.append(left)
    assert await two.append(moved, count=2) == 5
    assert one.logs.get(topic.id, 1) is not None and two.logs.get(topic.id, 1) is None
    await site.move(topic, 0, 0)
    await until(has(one, topic))
    back = one.logs.get(topic.id, 0)
    assert (back.high_watermark, back.leader_epoch) == (5, 2)
    assert await one.append(back) == 6
    assert lacks(two, topic)()


async def test_records_in_flight_are_acknowledged_before_another_broker_goes_on(site) -> None:
    """`close-at-durable`: they have their offsets, and must not be given again."""
    one, two = await site.start(), await site.start(node=1)
    topic = await one.create("t")
    partition = one.logs.get(topic.id, 0)
    await one.append(partition)
    one.wal.manual = True
    appending = asyncio.create_task(one.append(partition, count=2))
    await site.move(topic, 0, 1)
    await asyncio.sleep(0.05)
    assert lacks(two, topic)() and not appending.done()
    one.wal.manual = False
    one.wal.sync()
    assert await appending == 3
    await until(has(two, topic))
    assert two.logs.get(topic.id, 0).high_watermark == 3


async def test_a_partition_that_is_wanted_again_while_it_is_closed(site) -> None:
    one, two = await site.start(), await site.start(node=1)
    topic = await one.create("t")
    partition = one.logs.get(topic.id, 0)
    await one.append(partition)
    one.wal.manual = True
    appending = asyncio.create_task(one.append(partition))
    await site.move(topic, 0, 1)
    await asyncio.sleep(0.02)
    await site.move(topic, 0, 0)
    one.wal.manual = False
    one.wal.sync()
    assert await appending == 2
    await until(has(one, topic))
    assert await one.append(one.logs.get(topic.id, 0)) == 3
    assert lacks(two, topic)()


async def test_a_store_that_is_away_holds_up_a_move_and_loses_nothing(site) -> None:
    one, two = await site.start(), await site.start(node=1)
    topic, stays = await one.create("t"), await one.create("stays")
    await one.append(one.logs.get(topic.id, 0), count=3)
    site.store.fail("put", "unavailable", times=5)
    await site.move(topic, 0, 1)
    assert await one.append(one.logs.get(topic.id, 0)) == 4, "it serves while it uploads"
    assert await one.append(one.logs.get(stays.id, 0)) == 1
    await until(has(two, topic))
    assert two.logs.get(topic.id, 0).high_watermark == 4


async def test_what_was_moved_while_its_broker_was_down_is_given_up_by_its_next_life(site) -> None:
    """Its WAL is its own: only this node has the records that are in no object yet."""
    one, two = await site.start(), await site.start(node=1)
    topic = await one.create("t", partitions=2)
    await one.append(one.logs.get(topic.id, 0), count=3)  # the other one has no record in the WAL
    await one.stop()
    await site.move(topic, 0, 1)
    await site.move(topic, 1, 1)
    await asyncio.sleep(0.05)
    assert lacks(two, topic)() and two.partitions.unopened == 2
    one = await site.start()
    for index in (0, 1):
        await until(has(two, topic, index))
        assert one.logs.get(topic.id, index) is None
    assert two.logs.get(topic.id, 0).high_watermark == 3
    await until(lambda: two.partitions.unopened == 0)


async def test_what_is_moved_while_its_broker_starts_again_is_given_up(site, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its own round as the controller, for one: then it has never opened in this life what it is to give up."""
    one, two = await site.start(), await site.start(node=1)
    topic = await one.create("t")
    await one.stop()
    start = Partitions.start

    async def late(self: Partitions, *args: Any) -> None:
        await site.move(topic, 0, 1)
        await self._topics.refresh()
        await start(self, *args)

    monkeypatch.setattr(Partitions, "start", late)
    one = await site.start()
    await until(has(two, topic))
    assert not one.streams.held()


# -- holds -----------------------------------------------------------------------------------------------------------


async def test_a_table_is_held_from_the_moment_it_is_enabled(site) -> None:
    life = await site.start()
    topic = await life.create("t", streamlake_table_enable="true")
    partition = life.logs.get(topic.id, 0)
    await life.append(partition, count=5)
    assert partition.deletable_offset == 0
    await life.topics.alter_configs("t", {"streamlake.table.enable": "false"})
    assert partition.deletable_offset == 5
    await life.topics.alter_configs("t", {"streamlake.table.enable": "true"})
    assert partition.deletable_offset == 0


async def test_the_hold_is_there_again_after_a_restart(site) -> None:
    life = await site.start()
    topic = await life.create("t", partitions=2, streamlake_table_enable="true")
    for index in (0, 1):
        await life.append(life.logs.get(topic.id, index), count=5)
    await life.progress.advance(topic.id, 1, {1: Reported(4, 3)}, True, life.clock.ms)
    await life.stop()
    life = await site.start()
    assert [life.logs.get(topic.id, index).deletable_offset for index in (0, 1)] == [0, 3]


async def test_retention_lets_go_of_what_nobody_holds(site) -> None:
    life = await site.start()
    topic = await life.create("t", retention_ms="1000")
    partition = life.logs.get(topic.id, 0)
    await life.append(partition, count=5, age_ms=DAY_MS)
    await life.streams.flush()
    await until(lambda: partition.log_start_offset == 5)


async def test_retention_stops_at_the_hold(site) -> None:
    life = await site.start()
    free = await life.create("free", retention_ms="1000")
    held = await life.create("held", retention_ms="1000", streamlake_table_enable="true")
    for topic in (held, free):
        await life.append(life.logs.get(topic.id, 0), count=5, age_ms=DAY_MS)
    await life.streams.flush()
    await until(lambda: life.logs.get(free.id, 0).log_start_offset == 5)
    assert life.logs.get(held.id, 0).log_start_offset == 0
    life.logs.get(held.id, 0).release(TABLE_HOLD)
    await life.logs.retain(life.logs.get(held.id, 0))
    assert life.logs.get(held.id, 0).log_start_offset == 0, "the hold in the metadata store counts"
    await life.topics.alter_configs("held", {"streamlake.table.enable": "false"})
    await until(lambda: life.logs.get(held.id, 0).log_start_offset == 5)


async def test_retention_looks_again_only_where_something_may_be_due(site) -> None:
    """Ten thousand idle partitions: looking at all of them every time is most of what an idle broker does."""
    life = await site.start()
    idle = await life.create("idle", partitions=3)
    due = await life.create("due", retention_ms="1000")
    for topic in (idle, due):
        await life.append(life.logs.get(topic.id, 0), count=5)
    await life.streams.flush()
    await until(lambda: not any(map(life.logs.is_due, life.logs)))
    looks, retain = [], life.logs.retain

    async def counted(partition: Partition) -> None:
        looks.append(partition)
        await retain(partition)

    life.logs.retain = counted
    life.clock.ms += 1001
    await until(lambda: life.logs.get(due.id, 0).log_start_offset == 5)
    await until(lambda: not any(map(life.logs.is_due, life.logs)))
    assert {partition.topic_id for partition in looks} == {due.id}


async def test_retention_waits_while_a_hold_could_not_be_read(site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table was enabled and that was answered; its hold is durable and not in memory yet."""
    monkeypatch.setattr(module, "REOPEN_MAX_S", 0.001)
    life = await site.start()
    topic = await life.create("t")
    partition = life.logs.get(topic.id, 0)
    await life.append(partition, count=5, age_ms=DAY_MS)
    await life.streams.flush()
    healthy, tries, runs = life.progress.load, 0, 0
    retain = life.logs.retain

    async def away():
        nonlocal tries
        tries += 1
        raise Unavailable("no metadata store")

    async def counted(partition: Partition) -> None:
        nonlocal runs
        runs += 1
        await retain(partition)

    life.progress.load = away
    await life.topics.alter_configs("t", {"streamlake.table.enable": "true", "retention.ms": "1000"})
    life.logs.retain = counted
    await until(lambda: tries > 20)
    assert (runs, partition.log_start_offset) == (0, 0)
    life.progress.load = healthy
    await until(lambda: runs > 0)
    assert (partition.deletable_offset, partition.log_start_offset) == (0, 0)
