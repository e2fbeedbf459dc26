"""Requests about one table in the worker: each is answered, whatever happens."""

from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from support.table_world import World
from support.wait import until

from streamlake.core.errors import Conflict, OutcomeUnknown, Unavailable
from streamlake.table.task.control import CatalogAnswer, RedriveReport, TableCall
from streamlake.table.task.redrive import Order
from streamlake.worker.table_calls import TableCalls


class Task:
    def __init__(self) -> None:
        self.error: Exception | None = None
        self.orders: list[Order] = []

    async def dead_letters(self, examples: int) -> dict[str, Any]:
        if self.error is not None:
            raise self.error
        return {"examples": examples}

    async def redrive(self, order: Order) -> None:
        if self.error is not None:
            raise self.error
        self.orders.append(order)

    def report(self) -> Any:
        return SimpleNamespace(redrive=RedriveReport("running", self.orders[-1].reasons))


async def answer_of(task: Task | None, action: str, **arguments: str) -> tuple[int, Any]:
    spec = World().spec()
    sent: list[CatalogAnswer] = []
    tables = cast(Any, SimpleNamespace(tasks={} if task is None else {spec.topic_id: task}))
    TableCalls(tables, sent.append).receive(TableCall(7, spec, cast(Any, action), arguments))
    await until(lambda: sent)
    (answer,) = sent
    assert answer.number == 7
    return answer.status, msgspec.json.decode(answer.body)


async def test_answers() -> None:
    task = Task()
    assert await answer_of(task, "dead_letters", examples="5") == (200, {"examples": 5})
    status, body = await answer_of(task, "redrive", reason="unknown_schema")
    assert (status, body["redrive"]["state"], task.orders) == (202, "running", [Order(("unknown_schema",))])


@pytest.mark.parametrize(
    ("error", "status"),
    [(Conflict("x"), 409), (Unavailable("x"), 503), (OutcomeUnknown("x"), 504), (OSError("x"), 503)],
)
async def test_errors(error: Exception, status: int) -> None:
    task = Task()
    task.error = error
    got, body = await answer_of(task, "redrive", reason="")
    assert got == body["error"]["code"] == status and "x" in body["error"]["message"]


async def test_a_wrong_reason_and_a_table_that_is_not_open() -> None:
    assert (await answer_of(Task(), "redrive", reason="x"))[0] == 400
    status, body = await answer_of(None, "dead_letters")
    assert status == 503 and "is not open yet" in body["error"]["message"]
