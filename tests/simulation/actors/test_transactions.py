"""Producers of transactions and the reader of whole ones, against a real server whose answers are turned into lies."""

import random
from typing import Any

import msgspec
import pytest
from simulation.actors.client import World
from simulation.actors.transactions import Book, Transactor, WholeReader, check_transactions
from simulation.checks.ledger import Violation
from simulation.real import lie, new_topic, run_on, run_until, world_of
from support.server import Server

from streamlake.protocol.messages import ApiKey


async def actors(server: Server, count: int) -> tuple[World, Book, list[Transactor], WholeReader]:
    world, book = world_of(server), Book()
    topic = await new_topic(world, 2)
    made = [Transactor(world, f"{topic}-{n}", random.Random(n), book, topic=topic, pace_s=0.01) for n in range(count)]
    return world, book, made, WholeReader(world, "reader", random.Random(9), topic=topic, pace_s=0.01)


def fetched(**lies: Any) -> Any:
    """Answers to Fetch in which partitions say this."""

    def topic(data: Any) -> Any:
        partitions = tuple(msgspec.structs.replace(each, **lies) for each in data.partitions)
        return msgspec.structs.replace(data, partitions=partitions)

    return lambda answer: msgspec.structs.replace(answer, responses=tuple(map(topic, answer.responses)))


async def test_transactions_are_seen_whole_or_not_at_all(server: Server) -> None:
    world, book, made, reader = await actors(server, 2)

    def enough() -> bool:
        return {True, False} <= {sent.outcome for sent in book.sent} and book.committed > 20

    await run_until(world, enough, *made, reader)
    await check_transactions(world, book, reader, random.Random(1))
    committed = next(sent for sent in book.sent if sent.outcome)
    committed.outcome = False
    with pytest.raises(Violation, match="was aborted, and it is not so"):
        await check_transactions(world, book, reader, random.Random(1))
    committed.outcome = None
    next(iter(committed.values.values())).append(b"never sent")
    with pytest.raises(Violation, match="is there in part"):
        await check_transactions(world, book, reader, random.Random(1))


async def test_a_reader_that_is_not_told_what_was_aborted_is_caught(server: Server) -> None:
    world, book, made, reader = await actors(server, 1)
    lie(reader.client, ApiKey.FETCH, fetched(aborted_transactions=()))
    await run_until(world, lambda: sum(sent.outcome is False for sent in book.sent) > 3, *made, reader)
    for place in reader.client.places([reader.topic]):
        while not await reader.step(place):
            pass
    with pytest.raises(Violation, match="has seen"):
        await check_transactions(world, book, reader, random.Random(1))


async def test_a_last_stable_offset_that_goes_back_is_caught(server: Server) -> None:
    world, _, made, reader = await actors(server, 1)
    lie(reader.client, ApiKey.FETCH, fetched(last_stable_offset=0, records=b""), after=50)
    with pytest.raises(Violation, match="went back"):
        await run_on(world, *made, reader)
