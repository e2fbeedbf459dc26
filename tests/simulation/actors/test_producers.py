"""Producers against a real server whose answers are turned into lies on the way."""

import random
from typing import Any

import msgspec
import pytest
from simulation.actors.producers import IdempotentProducer, Item, Line, Parcel, PlainProducer
from simulation.checks.history import Violation
from simulation.checks.ledger import Series
from simulation.checks.outcome import check_all
from simulation.plan.story import Story
from simulation.real import lie, new_topic, run_on, run_until, world_of
from support.server import Server

from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey


def changed(**fields: Any) -> Any:
    """An answer to Produce in which all partitions say this."""

    def change(answer: Any) -> Any:
        return msgspec.structs.replace(
            answer,
            responses=tuple(
                msgspec.structs.replace(
                    topic,
                    partition_responses=tuple(msgspec.structs.replace(p, **fields) for p in topic.partition_responses),
                )
                for topic in answer.responses
            ),
        )

    return change


def changed_leaders(node_id: int) -> Any:
    """An answer to Metadata in which this broker leads everything."""

    def change(answer: Any) -> Any:
        return msgspec.structs.replace(
            answer,
            topics=tuple(
                msgspec.structs.replace(
                    topic, partitions=tuple(msgspec.structs.replace(p, leader_id=node_id) for p in topic.partitions)
                )
                for topic in answer.topics
            ),
        )

    return change


@pytest.mark.parametrize("kind", [PlainProducer, IdempotentProducer])
async def test_two_batches_acknowledged_at_one_offset(server: Server, kind: Any) -> None:
    world = world_of(server)
    producer = kind(world, "p", random.Random(1), [await new_topic(world)])
    lie(producer.client, ApiKey.PRODUCE, changed(error_code=0, base_offset=0))
    with pytest.raises(Violation):
        await run_on(world, producer)


async def test_acknowledged_and_not_stored_there(server: Server) -> None:
    world = world_of(server)
    producer = IdempotentProducer(world, "p", random.Random(1), [await new_topic(world)])
    lie(
        producer.client,
        ApiKey.PRODUCE,
        lambda a: changed(base_offset=1_000_000 * a.responses[0].partition_responses[0].base_offset + 7)(a),
    )
    with pytest.raises(Violation):
        await run_until(world, lambda: world.ledger.records_acked > 5, producer)
        await check_all(world, random.Random(2))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, "everything before it is acknowledged"),
        (ErrorCode.INVALID_PRODUCER_EPOCH, "good batch was refused"),
        (ErrorCode.INVALID_RECORD, "good batch was refused"),
        (ErrorCode.MESSAGE_TOO_LARGE, "does not take"),
    ],
)
async def test_an_idempotent_producer_is_not_refused(server: Server, code: ErrorCode, message: str) -> None:
    world = world_of(server)
    producer = IdempotentProducer(world, "p", random.Random(1), [await new_topic(world)])
    lie(producer.client, ApiKey.PRODUCE, changed(error_code=code, base_offset=-1), after=5)
    with pytest.raises(Violation, match=message):
        await run_on(world, producer)


async def test_what_was_refused_is_stored_all_the_same(server: Server) -> None:
    world = world_of(server)
    producer = PlainProducer(world, "p", random.Random(1), [await new_topic(world)], tries_max=1, broken_share=0)
    lie(producer.client, ApiKey.PRODUCE, changed(error_code=ErrorCode.NOT_ENOUGH_REPLICAS, base_offset=-1))
    await run_until(world, lambda: bool(world.ledger.partitions), producer)
    with pytest.raises(Violation, match="at most 0 times"):
        await check_all(world, random.Random(2))


async def test_a_producer_id_given_twice(server: Server) -> None:
    world = world_of(server)
    topics = [await new_topic(world)]
    producers = [IdempotentProducer(world, name, random.Random(1), topics) for name in ("p", "q")]
    for producer in producers:
        lie(producer.client, ApiKey.INIT_PRODUCER_ID, lambda a: msgspec.structs.replace(a, producer_id=1 << 40))
    with pytest.raises(Violation, match="given twice"):
        await run_on(world, *producers)


async def test_passing_errors_and_lost_answers_end_well(server: Server) -> None:
    world = world_of(server)
    producer = IdempotentProducer(world, "p", random.Random(1), [await new_topic(world, 2)], crash_share=0)
    true_lie = changed(error_code=ErrorCode.REQUEST_TIMED_OUT, base_offset=-1)
    lie(producer.client, ApiKey.PRODUCE, lambda a: true_lie(a) if producer.client.rng.random() < 0.2 else a)
    await run_until(world, lambda: world.ledger.records_acked > 300, producer)
    (log, *_) = (await check_all(world, random.Random(2))).values()
    assert log.end > 10
    assert all(batch.stored for history in world.ledger.partitions.values() for batch in history.batches)


async def test_nothing_follows_what_was_given_up(server: Server) -> None:
    """A topic that seemed to be gone was not: more of the same series would leave a hole."""
    world = world_of(server)
    topic = await new_topic(world)
    producer = IdempotentProducer(world, "p", random.Random(1), [topic], pace_s=0.01, crash_share=0)
    leaderless = changed_leaders(-1)
    lie(producer.client, ApiKey.METADATA, lambda a: leaderless(a) if producer.client.refreshes < 3 else a)
    await producer.client.refresh([topic])
    world.ledger.deleting(producer.client.ids[topic])
    await run_until(world, lambda: producer.client.refreshes > 5, producer)
    assert world.ledger.partitions, "nothing was given up"
    await check_all(world, random.Random(2))


class TestLine:
    """A line is written with a letter per batch: n(ew), f(lying), d(oubtful), D(oubtful and flying), - (settled)."""

    def sendable(self, batches: str, *, known: bool = True, cautious_start: bool = True) -> int | None:
        line, story = Line(Series(1, 0), known=known), Story()
        for number, letter in enumerate(batches):
            if letter != "-":
                parcel = Parcel(story.draft(), b"")
                line.items.append(Item(parcel, number, in_flight=letter in "fD", doubtful=letter in "dD"))
        item = line.sendable(cautious_start)
        return None if item is None else item.number

    def test_new_batches_go_out_behind_first_tries(self) -> None:
        assert self.sendable("ffnn") == 2

    def test_a_doubtful_batch_is_repeated_alone(self) -> None:
        assert self.sendable("dfn") == 0
        assert self.sendable("Dn") is None
        assert self.sendable("fdn") is None

    def test_no_more_than_five_are_beyond_the_last_settled_one(self) -> None:
        assert self.sendable("ffffn") == 4
        assert self.sendable("fffffn") is None
        assert self.sendable("f----n") is None

    def test_a_cautious_start_waits_for_the_first_answer(self) -> None:
        assert self.sendable("fn", known=False) is None
        assert self.sendable("fn", known=False, cautious_start=False) == 1
