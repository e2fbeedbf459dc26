"""Questions to brokers that share requests."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from support.wait import turns

from streamlake.broker import batches as module
from streamlake.broker.batches import Batches
from streamlake.core.errors import Corrupt, Full, Unavailable
from streamlake.core.tasks import Supervisor


class Brokers:
    """Each answers with the question and its node; while the gate is closed it takes its time."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, list[int]]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None
        self.lost = 0

    async def ask(self, node: int, questions: Sequence[int]) -> list[tuple[int, int]]:
        self.asked.append((node, list(questions)))
        await self.gate.wait()
        if self.error:
            raise self.error
        return [(node, question) for question in questions][self.lost :]


@pytest.fixture
async def tasks() -> AsyncIterator[Supervisor]:
    tasks = Supervisor()
    yield tasks
    await tasks.stop()


@pytest.fixture
def brokers() -> Brokers:
    return Brokers()


@pytest.fixture
def batches(brokers: Brokers, tasks: Supervisor) -> "Batches[int, tuple[int, int]]":
    return Batches(brokers.ask, 3, tasks)


async def test_those_that_come_during_a_request_share_the_next(brokers: Brokers, batches) -> None:
    brokers.gate.clear()
    asking = [asyncio.create_task(batches.answer(1, n)) for n in range(6)]
    asking.append(asyncio.create_task(batches.answer(2, 9)))
    await turns(5)
    brokers.gate.set()
    assert await asyncio.gather(*asking) == [*((1, n) for n in range(6)), (2, 9)]
    assert sorted(brokers.asked) == [(1, [0, 1, 2]), (1, [3, 4, 5]), (2, [9])]
    assert await batches.answer(1, 7) == (1, 7)


async def test_a_request_that_fails_fails_its_questions_alone(brokers: Brokers, batches) -> None:
    brokers.error = Unavailable("away")
    with pytest.raises(Unavailable, match="away"):
        await batches.answer(1, 0)
    brokers.error, brokers.lost = None, 1
    with pytest.raises(Corrupt, match="1 questions with 0 answers"):
        await batches.answer(1, 1)
    brokers.lost = 0
    assert await batches.answer(1, 2) == (1, 2)


async def test_who_stopped_waiting_does_not_hold_up_the_others(brokers: Brokers, batches) -> None:
    brokers.gate.clear()
    first, second = (asyncio.create_task(batches.answer(1, n)) for n in range(2))
    await turns(5)
    first.cancel()
    brokers.gate.set()
    assert await second == (1, 1)


async def test_the_queue_has_a_limit(brokers: Brokers, batches, monkeypatch) -> None:
    monkeypatch.setattr(module, "WAITING_MAX", 2)
    brokers.gate.clear()
    asking = [asyncio.create_task(batches.answer(1, n)) for n in range(2)]
    await turns(1)
    asking += [asyncio.create_task(batches.answer(1, n)) for n in range(2, 5)]
    await turns(5)
    brokers.gate.set()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert sum(isinstance(answer, Full) for answer in answers) >= 1


async def test_nobody_waits_for_ever_when_the_broker_stops(brokers: Brokers, batches, tasks: Supervisor) -> None:
    brokers.gate.clear()
    asking = [asyncio.create_task(batches.answer(1, n)) for n in range(5)]
    await turns(5)
    await tasks.stop()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert all(isinstance(answer, asyncio.CancelledError) for answer in answers)
