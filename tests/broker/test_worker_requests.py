"""Requests to the Iceberg REST catalog on their way to the worker: it may be starting, or die."""

import asyncio

import pytest
from msgspec.structs import replace
from support.wait import DEADLINE_S, turns

from streamlake.broker import worker_requests as module
from streamlake.broker.worker_requests import WorkerRequests
from streamlake.core.errors import Full, OutcomeUnknown, Unavailable
from streamlake.table.task.control import CatalogAnswer, CatalogCall

CALL = CatalogCall(0, "GET", "v1/config")


class Bench:
    def __init__(self) -> None:
        self.waits = 0
        self.sent: list[CatalogCall] = []
        self.requests = WorkerRequests(self._waiting)

    def _waiting(self) -> None:
        self.waits += 1

    async def ask(self, body: bytes = b"") -> "asyncio.Task[CatalogAnswer]":
        task = asyncio.create_task(self.requests.ask(replace(CALL, body=body)))
        await turns()
        return task

    def connect(self) -> None:
        self.requests.connected(self.sent.append)


async def answer_of(task: "asyncio.Task[CatalogAnswer]") -> CatalogAnswer:
    async with asyncio.timeout(DEADLINE_S):
        return await task


async def test_answers_find_their_requests() -> None:
    bench = Bench()
    bench.connect()
    first, second = await bench.ask(), await bench.ask()
    assert not bench.requests.waiting and len({call.number for call in bench.sent}) == 2
    bench.requests.answered(CatalogAnswer(bench.sent[1].number, 404, b"two"))
    bench.requests.answered(CatalogAnswer(bench.sent[0].number, 200, b"one"))
    assert ((await answer_of(first)).body, (await answer_of(second)).body) == (b"one", b"two")
    (metric,) = bench.requests.metrics()
    assert list(metric.read()) == [(1, {"status": "200"}), (1, {"status": "404"})]


async def test_what_comes_before_the_worker_waits_for_it() -> None:
    bench = Bench()
    task = await bench.ask()
    assert (bench.waits, bench.requests.waiting, bench.sent) == (1, True, [])
    bench.connect()
    bench.requests.answered(CatalogAnswer(bench.sent[0].number, 200))
    assert (await answer_of(task)).status == 200


async def test_a_worker_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SEND_TIMEOUT_S", 0.01)
    bench = Bench()
    with pytest.raises(Unavailable, match="does not start"):
        await answer_of(await bench.ask())
    assert not bench.requests.waiting
    bench.connect()
    assert bench.sent == [], "its client is gone"


async def test_a_worker_that_dies() -> None:
    bench = Bench()
    bench.connect()
    sent = await bench.ask()
    bench.requests.disconnected()
    with pytest.raises(OutcomeUnknown, match="may have been done or not"):
        await answer_of(sent)
    later = await bench.ask()
    assert bench.requests.waiting
    bench.connect()
    bench.requests.answered(CatalogAnswer(bench.sent[-1].number, 200))
    assert (await answer_of(later)).status == 200 and len(bench.sent) == 2


async def test_a_worker_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_TIMEOUT_S", 0.01)
    bench = Bench()
    bench.connect()
    with pytest.raises(OutcomeUnknown, match="did not answer"):
        await answer_of(await bench.ask())
    bench.requests.answered(CatalogAnswer(bench.sent[0].number, 200))  # late: nobody waits


async def test_more_than_the_worker_takes_wait_for_a_place() -> None:
    bench = Bench()
    bench.connect()
    tasks = [await bench.ask() for _ in range(module.REQUESTS_MAX + 2)]
    assert len(bench.sent) == module.REQUESTS_MAX
    tasks[0].cancel()  # a client that went away leaves its place
    await turns()
    assert len(bench.sent) == module.REQUESTS_MAX + 1
    bench.requests.answered(CatalogAnswer(bench.sent[1].number, 200))
    assert (await answer_of(tasks[1])).status == 200
    await turns()
    assert len(bench.sent) == module.REQUESTS_MAX + 2
    bench.requests.answered(CatalogAnswer(bench.sent[-1].number, 201))
    assert (await answer_of(tasks[-1])).status == 201
    for task in tasks:
        task.cancel()


async def test_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PLACE_TIMEOUT_S", 0.01)
    bench = Bench()
    bench.connect()
    tasks = [await bench.ask() for _ in range(module.REQUESTS_MAX)]
    with pytest.raises(Full, match="busy"):
        await answer_of(await bench.ask())
    assert len(bench.sent) == module.REQUESTS_MAX
    for task in tasks:
        task.cancel()


@pytest.mark.parametrize("limit", ["WAITING_MAX", "WAITING_BYTES_MAX"])
async def test_those_who_wait_have_a_limit(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, limit, 3)
    bench = Bench()
    bench.connect()
    tasks = [await bench.ask(b"x") for _ in range(module.REQUESTS_MAX + 3)]
    with pytest.raises(Full, match="many wait"):
        await answer_of(await bench.ask(b"x"))
    tasks[-1].cancel()
    await turns()
    tasks.append(await bench.ask(b"x"))
    assert not tasks[-1].done(), "one that has stopped waiting leaves its place"
    for task in tasks:
        task.cancel()
