"""Administration against a real server, and lies about it."""

import random
from typing import Any

import msgspec
import pytest
from simulation.actors.admin import EARLIEST, LATEST, Admin
from simulation.actors.client import World
from simulation.actors.producers import IdempotentProducer
from simulation.checks.history import Violation
from simulation.checks.ledger import Place
from simulation.checks.outcome import check_all
from simulation.real import lie, new_topic, run_until, world_of
from support.server import Server

from streamlake.protocol.messages import ApiKey


async def admin_of(server: Server) -> tuple[World, Admin, Place]:
    """Of a topic with some records."""
    world = world_of(server)
    topic = await new_topic(world)
    producer = IdempotentProducer(world, "p", random.Random(1), [topic])
    await run_until(world, lambda: world.ledger.records_acked > 5, producer)
    admin = Admin(world, "a", random.Random(2), [topic])
    await admin.client.refresh([topic])
    (place,) = admin.client.places([topic])
    return world, admin, place


async def test_start_and_end_move_as_asked(server: Server) -> None:
    world, admin, place = await admin_of(server)
    end = await admin.list_offsets(place, LATEST)
    assert end is not None and end > 3
    assert await admin.list_offsets(place, EARLIEST) == 0
    assert await admin.delete_records(place, 2)
    assert await admin.list_offsets(place, EARLIEST) == 2
    (log,) = (await check_all(world, random.Random(3))).values()
    assert (log.start, log.end) == (2, end)
    await admin.client.drop()


@pytest.mark.parametrize(("timestamp", "offset"), [(LATEST, 1), (EARLIEST, 1)])
async def test_a_lie_of_list_offsets_is_caught(server: Server, timestamp: int, offset: int) -> None:
    _, admin, place = await admin_of(server)
    await admin.list_offsets(place, timestamp)

    def moved(answer: Any) -> Any:
        (topic,) = answer.topics
        partitions = tuple(msgspec.structs.replace(p, offset=offset) for p in topic.partitions)
        return msgspec.structs.replace(answer, topics=(msgspec.structs.replace(topic, partitions=partitions),))

    lie(admin.client, ApiKey.LIST_OFFSETS, moved)
    with pytest.raises(Violation):
        await admin.list_offsets(place, timestamp)
    await admin.client.drop()


async def test_records_that_were_said_to_be_deleted_are_not(server: Server) -> None:
    _, admin, place = await admin_of(server)

    def unmoved(answer: Any) -> Any:
        (topic,) = answer.topics
        partitions = tuple(msgspec.structs.replace(p, low_watermark=0) for p in topic.partitions)
        return msgspec.structs.replace(answer, topics=(msgspec.structs.replace(topic, partitions=partitions),))

    lie(admin.client, ApiKey.DELETE_RECORDS, unmoved)
    with pytest.raises(Violation, match="was to start at 2"):
        await admin.delete_records(place, 2)
    await admin.client.drop()


async def test_a_topic_that_was_created_or_deleted_stays_so(server: Server) -> None:
    world, admin, place = await admin_of(server)
    while not await admin.delete(place.topic_id):  # any address is asked, one is dead
        pass
    assert await check_all(world, random.Random(3)) == {}
    facts = world.ledger.topics[place.topic_id]
    facts.deleted = facts.deleting = False
    with pytest.raises(Violation, match="was created and is gone"):
        await check_all(world, random.Random(3))
    await admin.client.drop()


async def test_a_deleted_topic_is_back(server: Server) -> None:
    world, admin, place = await admin_of(server)
    world.ledger.deleting(place.topic_id)
    world.ledger.deleted(place.topic_id)
    with pytest.raises(Violation, match="was deleted and is back"):
        await check_all(world, random.Random(3))
    await admin.client.drop()


async def test_a_lost_partition_is_caught(server: Server) -> None:
    world, admin, place = await admin_of(server)
    world.ledger.topics[place.topic_id].partitions = 2
    with pytest.raises(Violation, match="is now"):
        await check_all(world, random.Random(3))
    await admin.client.drop()
