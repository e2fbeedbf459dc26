"""Group members against a real server whose answers are turned into lies on the way."""

import random
from typing import Any

import msgspec
import pytest
from simulation.actors.client import Client, World
from simulation.actors.groups import GroupMember, GroupWatcher, decode_assignment, encode_assignment
from simulation.actors.producers import IdempotentProducer
from simulation.checks.history import Place, Violation
from simulation.checks.outcome import check_committed
from simulation.plan.story import TOPIC_ID
from simulation.real import lie, new_topic, run_on, run_until, world_of
from support.server import Server

from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey


async def members(server: Server, count: int, **options: Any) -> tuple[World, list[GroupMember], IdempotentProducer]:
    world = world_of(server)
    topic = await new_topic(world, 2)
    made = [GroupMember(world, f"{topic}-{n}", random.Random(n), topic, [topic], **options) for n in range(count)]
    return world, made, IdempotentProducer(world, "p", random.Random(9), [topic])


def committed(offset: int) -> Any:
    """An answer to OffsetFetch in which everything committed is this."""

    def partition(data: Any) -> Any:
        return msgspec.structs.replace(data, committed_offset=offset)

    def topic(data: Any) -> Any:
        return msgspec.structs.replace(data, partitions=tuple(map(partition, data.partitions)))

    def group(data: Any) -> Any:
        return msgspec.structs.replace(data, topics=tuple(map(topic, data.topics)))

    return lambda answer: msgspec.structs.replace(answer, groups=tuple(map(group, answer.groups)))


async def test_members_come_and_go(server: Server) -> None:
    world, made, producer = await members(server, 2, crash_share=0, leave_share=0.2)
    history = world.ledger.group(made[0].group)

    def generations() -> dict[int, None]:
        """In which commits were acknowledged."""
        commits = [commit for commits in history.commits.values() for commit in commits]
        return {commit.generation: None for commit in commits if commit.acked_at is not None}

    await run_until(world, lambda: len(generations()) > 2, producer, *made)
    assert sum(member.processed for member in made) > 20
    client = Client(world, "check", random.Random(1))
    await client.refresh([made[0].group])
    await check_committed(client, made[0].group)
    lie(client, ApiKey.OFFSET_FETCH, committed(-1))
    with pytest.raises(Violation, match="has -1 committed"):
        await check_committed(client, made[0].group)
    await client.drop()


@pytest.mark.parametrize("offset", [-1, 0, 1_000_000])
async def test_a_forgotten_commit_is_caught(server: Server, offset: int) -> None:
    world, (member,), producer = await members(server, 1, crash_share=0, leave_share=0.3)
    lie(member.client, ApiKey.OFFSET_FETCH, committed(offset), after=2)
    with pytest.raises(Violation, match="committed"):
        await run_on(world, producer, member)


async def test_a_watcher_catches_what_members_do_not_ask_for(server: Server) -> None:
    world, (member,), producer = await members(server, 1, crash_share=0, leave_share=0, nap_share=0)
    watcher = GroupWatcher(world, "watcher", random.Random(5), member.group, [member.group], pace_s=0.05)
    lie(watcher.client, ApiKey.OFFSET_FETCH, committed(0), after=3)
    with pytest.raises(Violation, match="has 0 committed"):
        await run_on(world, producer, member, watcher)


async def test_two_owners_of_a_partition_are_caught(server: Server) -> None:
    world, made, producer = await members(server, 2, crash_share=0)
    stolen: list[bytes] = []

    def the_first_assignment(answer: Any) -> Any:
        if answer.assignment:
            stolen.append(answer.assignment)
        return msgspec.structs.replace(answer, assignment=stolen[0]) if stolen else answer

    for member in made:
        lie(member.client, ApiKey.SYNC_GROUP, the_first_assignment)
    with pytest.raises(Violation, match="belongs to"):
        await run_on(world, producer, *made)


async def test_an_error_that_no_member_deserves_is_caught(server: Server) -> None:
    world, (member,), producer = await members(server, 1)
    wrong = ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    lie(member.client, ApiKey.HEARTBEAT, lambda a: msgspec.structs.replace(a, error_code=wrong))
    with pytest.raises(Violation, match="INCONSISTENT_GROUP_PROTOCOL"):
        await run_on(world, producer, member)


def test_assignments_come_back() -> None:
    places = [Place(TOPIC_ID, 0), Place(TOPIC_ID, 3)]
    assert decode_assignment(encode_assignment(places)) == places
    assert decode_assignment(b"") == []
