import asyncio

import pytest
from support.members import next_process
from support.wait import until

from streamlake.cluster.image import keep_fresh
from streamlake.cluster.slots import Slots
from streamlake.cluster.store.fences import SlotEpoch
from streamlake.cluster.store.slots import SLOTS, SlotStore, assign, slot_of
from streamlake.core.errors import Unavailable
from streamlake.core.ids import Ids


async def slots_of(cluster, node: int) -> Slots:
    identity = (await next_process(cluster.database, cluster.clock, Ids(node), node)).identity
    return Slots(SlotStore(cluster.database, identity), node)


async def assigned(cluster, nodes: dict[int, int]) -> None:
    await cluster.database.write(lambda connection: assign(connection, nodes))


async def test_nobody_coordinates_a_group_before_its_slot_was_assigned(cluster) -> None:
    slots = await slots_of(cluster, 1)
    await slots.refresh()
    assert slots.coordinator_of("g") is None
    assert slots.ours == {}


async def test_a_broker_that_starts_has_the_free_slots(cluster) -> None:
    slots = await slots_of(cluster, 1)
    assert await slots.take_free() == SLOTS
    assert slots.ours == {slot: SlotEpoch(slot, 1) for slot in range(SLOTS)}
    assert slots.coordinator_of("g") == 1
    (counted,) = slots.metrics()
    assert [value for value, _ in counted.read()] == [SLOTS]


async def test_the_image_follows_assignments(cluster) -> None:
    ours, theirs = await slots_of(cluster, 1), await slots_of(cluster, 2)
    await ours.take_free()
    await theirs.refresh()
    heard: list[int] = []
    ours.listeners.append(lambda: heard.append(len(ours.ours)))
    await assigned(cluster, {slot_of("g"): 2, 0: 1})
    assert ours.coordinator_of("g") == 1, "as far as it knows"
    for image in (ours, theirs):
        await image.refresh()
        assert image.coordinator_of("g") == 2
    assert ours.ours[0] == SlotEpoch(0, 2), "who lost it and got it back has it under another epoch"
    assert theirs.ours == {slot_of("g"): SlotEpoch(slot_of("g"), 2)}
    assert heard == [SLOTS - 1]
    await assigned(cluster, {slot_of("g"): 3})
    await ours.refresh()
    assert ours.coordinator_of("g") == 3
    assert heard == [SLOTS - 1], "nothing of ours has changed"


async def test_an_older_answer_changes_nothing(cluster, monkeypatch) -> None:
    slots = await slots_of(cluster, 1)
    await slots.refresh()
    old = await slots._store.load()
    await slots.take_free()

    async def late(seen: int):
        return old

    monkeypatch.setattr(slots._store, "load_changed", late)
    await slots.refresh()
    assert len(slots.ours) == SLOTS


async def test_a_stale_image_is_read_until_it_succeeds(cluster, monkeypatch) -> None:
    slots = await slots_of(cluster, 1)
    await slots.take_free()
    await assigned(cluster, {slot_of("g"): 2})
    load, failures = slots._store.load_changed, [Unavailable("down")] * 2

    async def failing(seen: int):
        if failures:
            raise failures.pop()
        return await load(seen)

    monkeypatch.setattr(slots._store, "load_changed", failing)
    monkeypatch.setattr("streamlake.cluster.image.RETRY_S", 0)
    slots.stale.set()
    keeping = asyncio.create_task(keep_fresh(slots.stale, slots.refresh))
    await until(lambda: slots.coordinator_of("g") == 2)
    assert not slots.stale.is_set()
    keeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeping
